//! `leadsman doctor`: looks at what Leadsman needs of a machine, says how to remedy what is missing, and records itself to
//! see that all of it works together.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use ipc_endpoint::rights::{Machine, capability_names};

use crate::error::Failure;
use crate::preconditions::{BTF, missing_capabilities};

/// Oldest kernel with BPF ring buffers, CAP_BPF and BTF as they are used here.
const OLDEST_KERNEL: (u32, u32) = (5, 10);
/// First kernel that all guarantees are made for.
const FULL_KERNEL: (u32, u32) = (6, 1);

/// What kernels have since when, and what is done without it.
const SINCE: [((u32, u32), &str, &str); 4] = [
    (
        (5, 11),
        "BPF maps are charged to the memory cgroup",
        "they are charged to the locked memory limit, which is lifted for the sampler",
    ),
    (
        (5, 12),
        "mapping records carry build IDs",
        "files are told apart by device and inode until they were read",
    ),
    (
        (5, 19),
        "BPF maps can be written without a capability",
        "the sampler keeps CAP_BPF after its start",
    ),
    (
        (6, 1),
        "perf events may use maps that grow",
        "kernel memory for unwind tables is taken whole at the start, and fewer processes are known in the kernel at once",
    ),
];

/// What a check came to.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Good(String),
    /// Works, with less.
    Less(String, &'static str),
    /// Does not work before this is done.
    Bad(String, &'static str),
}

/// Prints all findings; exit code 1 when Leadsman can't run here.
///
/// # Errors
/// None; the findings say all.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    let machine = Machine::read();
    let mut findings = vec![
        architecture(std::env::consts::ARCH),
        rights(&machine)?,
        kernel(machine.kernel),
        btf(Path::new(BTF)),
        paranoid(machine.perf_event_paranoid),
        lockdown(&read("/sys/kernel/security/lockdown")),
        unprivileged_bpf(&read("/proc/sys/kernel/unprivileged_bpf_disabled")),
        kallsyms(&read("/proc/sys/kernel/kptr_restrict")),
        landlock(&read("/sys/kernel/security/lsm")),
        binaries(),
    ];
    findings.splice(3..3, other_ways(machine.kernel));
    let mut bad = 0;
    for finding in &findings {
        match finding {
            Finding::Good(what) => println!("ok       {what}"),
            Finding::Less(what, remedy) => println!("less     {what}\n         {remedy}"),
            Finding::Bad(what, remedy) => {
                bad += 1;
                println!("missing  {what}\n         {remedy}");
            }
        }
    }
    if bad > 0 {
        println!("{bad} to be remedied before Leadsman can run here");
        return Ok(ExitCode::FAILURE);
    }
    match record_itself() {
        Ok(summary) => {
            println!("ok       recorded itself: {summary}");
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            println!("missing  a recording of itself: {failure}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Records this process for a moment while it computes: from the timer to the profile. Returns the summary's first line.
fn record_itself() -> Result<String, String> {
    let own = std::process::id().to_string();
    let recording = Command::new("/proc/self/exe")
        .args([
            "record",
            "-d",
            "1s",
            "-F",
            "97",
            "-o",
            "/dev/null",
            "-p",
            &own,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let stop = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let output = recording.wait_with_output();
        stop.store(true, Ordering::Relaxed);
        output
    });
    let output = output.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(said.lines().next().unwrap_or_default().to_owned())
    } else {
        Err(said.trim().to_owned())
    }
}

fn read(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

fn architecture(architecture: &str) -> Finding {
    match architecture {
        "x86_64" => Finding::Good("x86-64".to_owned()),
        other => Finding::Bad(other.to_owned(), "user stacks are walked on x86-64 only"),
    }
}

fn rights(machine: &Machine) -> Result<Finding, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Finding::Bad(
            "root".to_owned(),
            "run `sudo leadsman doctor`, and `up` and `record` by sudo too",
        ));
    }
    let missing = missing_capabilities(machine)?;
    Ok(if missing.is_empty() {
        Finding::Good("root with all capabilities that are handed on".to_owned())
    } else {
        Finding::Bad(
            capability_names(missing),
            "allow them to this container or service: --cap-add, CapabilityBoundingSet=",
        )
    })
}

fn kernel(release: (u32, u32)) -> Finding {
    let name = format!("Linux {}.{}", release.0, release.1);
    if release < OLDEST_KERNEL {
        Finding::Bad(name, "use Linux 6.1 or later (5.10 at least)")
    } else if release < FULL_KERNEL {
        Finding::Less(name, "works; with Linux 6.1 and later all guarantees hold")
    } else {
        Finding::Good(name)
    }
}

/// What is done in another way because the kernel is older than the usual one.
fn other_ways(release: (u32, u32)) -> Vec<Finding> {
    let missing = SINCE.iter().filter(|(since, ..)| release < *since);
    missing
        .map(|((major, minor), what, instead)| {
            Finding::Less(format!("before {major}.{minor}, not: {what}"), instead)
        })
        .collect()
}

fn btf(path: &Path) -> Finding {
    if path.is_file() {
        Finding::Good(format!("{}: the kernel's types", path.display()))
    } else {
        Finding::Bad(
            path.display().to_string(),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as distributions' kernels are",
        )
    }
}

fn paranoid(level: i32) -> Finding {
    let what = format!("perf_event_paranoid is {level}");
    if level >= 3 {
        Finding::Less(
            what,
            "the sampler starts with CAP_SYS_ADMIN here; sysctl kernel.perf_event_paranoid=2 spares it that",
        )
    } else {
        Finding::Good(what)
    }
}

/// The kernel shows the mode in brackets: `none [integrity] confidentiality`.
fn lockdown(modes: &Option<String>) -> Finding {
    match modes.as_deref().and_then(|modes| modes.split_once('[')) {
        Some((_, mode)) if mode.starts_with("confidentiality") => Finding::Bad(
            "kernel lockdown is in confidentiality mode".to_owned(),
            "BPF may not read kernel memory then: boot with lockdown=integrity",
        ),
        _ => Finding::Good("kernel lockdown does not forbid BPF".to_owned()),
    }
}

fn unprivileged_bpf(value: &Option<String>) -> Finding {
    match value.as_deref() {
        Some("0") => Finding::Less(
            "any user may load BPF programs on this machine".to_owned(),
            "Leadsman does not need that: sysctl kernel.unprivileged_bpf_disabled=2",
        ),
        _ => Finding::Good("BPF is for the privileged only".to_owned()),
    }
}

fn kallsyms(restrict: &Option<String>) -> Finding {
    match restrict.as_deref() {
        Some("2") => Finding::Less(
            "kptr_restrict is 2: kernel addresses are hidden even from root".to_owned(),
            "kernel frames stay without names; sysctl kernel.kptr_restrict=1 shows them to root",
        ),
        _ => Finding::Good("root sees kernel symbols".to_owned()),
    }
}

fn landlock(modules: &Option<String>) -> Finding {
    match modules {
        Some(modules) if !modules.split(',').any(|module| module == "landlock") => Finding::Less(
            "Landlock is off".to_owned(),
            "seccomp and file modes still confine the processes; boot with lsm=landlock,... to add it",
        ),
        Some(_) => Finding::Good("Landlock".to_owned()),
        // Root can't tell where securityfs is not mounted.
        None => Finding::Good("Landlock is used where the kernel has it".to_owned()),
    }
}

fn binaries() -> Finding {
    let missing = crate::roles::ALL
        .iter()
        .map(|role| crate::roles::binary(*role))
        .find(|name| crate::launch::binary(name).is_err());
    match missing {
        None => Finding::Good("all binaries lie side by side".to_owned()),
        Some(name) => Finding::Bad(
            format!("{name} beside leadsman"),
            "build or install all of them: cargo build --release --workspace",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_told_from_new_ones() {
        assert!(matches!(kernel((5, 4)), Finding::Bad(..)));
        assert!(matches!(kernel((5, 15)), Finding::Less(..)));
        assert!(matches!(kernel((6, 1)), Finding::Good(_)));
        assert!(matches!(kernel((10, 0)), Finding::Good(_)));
    }

    #[test]
    fn older_kernels_have_other_ways() {
        assert_eq!(other_ways((5, 10)).len(), SINCE.len());
        assert_eq!(other_ways((5, 15)).len(), 2);
        assert_eq!(other_ways((6, 1)), []);
    }

    #[test]
    fn only_confidentiality_forbids() {
        let mode = |text: &str| lockdown(&Some(text.to_owned()));
        assert!(matches!(
            mode("none integrity [confidentiality]"),
            Finding::Bad(..)
        ));
        assert!(matches!(
            mode("none [integrity] confidentiality"),
            Finding::Good(_)
        ));
        assert!(matches!(lockdown(&None), Finding::Good(_)));
    }

    #[test]
    fn what_is_hidden_or_open_is_said() {
        let some = |text: &str| Some(text.to_owned());
        assert!(matches!(kallsyms(&some("2")), Finding::Less(..)));
        assert!(matches!(kallsyms(&some("0")), Finding::Good(_)));
        assert!(matches!(unprivileged_bpf(&some("0")), Finding::Less(..)));
        assert!(matches!(
            landlock(&some("capability,yama")),
            Finding::Less(..)
        ));
        assert!(matches!(paranoid(4), Finding::Less(..)));
    }
}
