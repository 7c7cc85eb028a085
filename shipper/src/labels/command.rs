//! `leadsman-shipper labels --pid PID`: the label set of a live process as one JSON object, from the same providers that
//! label samples. What only the symbolizer knows (an executable's content) is not among it.

use std::ffi::OsString;
use std::io::Write;
use std::time::{Duration, Instant};

use ipc_endpoint::clock::monotonic;
use ipc_proto::codec::{Bytes, List};
use ipc_proto::ids::{Pid, Tid};
use ipc_proto::symbolized::{
    NONE, SymbolizedBatch, SymbolizedMapping, SymbolizedProcess, SymbolizedSample,
};

use super::proc_file::{Cgroups, Stat};
use super::{Labeller, Labels, Settings, Sources};

/// How long the Kubernetes API may take to tell its pods.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nanoseconds of a tick of `/proc/PID/stat`.
const TICK: u64 = 10_000_000;

/// Prints the label set; `leadsman relabel test --pid` reads it.
///
/// # Errors
/// One line on what is wrong.
pub fn run(
    pid: u32,
    settings: Settings,
    sources: Sources,
) -> Result<(), Box<dyn std::error::Error>> {
    let labels = of_process(pid, settings, sources)?;
    let text = serde_json::to_string(&labels)?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// Takes `--pid PID` out of the arguments of `labels`; the rest are the shipper's own.
///
/// # Errors
/// One line on what is wrong.
pub fn pid_of(arguments: &mut Vec<OsString>) -> Result<u32, String> {
    let missing = || "labels needs --pid PID".to_owned();
    let at = arguments
        .iter()
        .position(|argument| argument.to_string_lossy().starts_with("--pid"))
        .ok_or_else(missing)?;
    let argument = arguments.remove(at).to_string_lossy().into_owned();
    let value = match argument.split_once('=') {
        Some((_, value)) => value.to_owned(),
        None if at < arguments.len() => arguments.remove(at).to_string_lossy().into_owned(),
        None => return Err(missing()),
    };
    value
        .parse()
        .map_err(|_error| format!("{value:?} is no PID: give a number"))
}

/// The label set of a live process, before relabelling.
///
/// # Errors
/// There is no such process.
pub fn of_process(
    pid: u32,
    settings: Settings,
    sources: Sources,
) -> Result<Labels, Box<dyn std::error::Error>> {
    let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}"));
    let stat = read("stat").map_err(|error| format!("there is no process {pid}: {error}"))?;
    let stat = Stat::parse(&stat).ok_or_else(|| format!("/proc/{pid}/stat is malformed"))?;
    let executable = std::fs::read_link(format!("/proc/{pid}/exe"));
    if let Some(pods) = &sources.pods {
        let asked = Instant::now();
        while !pods.is_synced() && asked.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let cgroup = Cgroups::parse(&read("cgroup").unwrap_or_default());
    let path = cgroup.unified.unwrap_or_default();
    let strings: Vec<Bytes<4096>> = ["", &stat.comm]
        .iter()
        .map(|text| Bytes::cut(text.as_bytes()))
        .chain(
            executable
                .iter()
                .map(|path| Bytes::cut(path.to_string_lossy().as_bytes())),
        )
        .collect();
    let mappings = executable.iter().map(|_path| SymbolizedMapping {
        file: 2,
        ..SymbolizedMapping::default()
    });
    // A window with one sample of the process's first thread.
    let batch = SymbolizedBatch {
        strings: List(strings),
        mappings: List(mappings.collect()),
        cgroups: List(vec![ipc_proto::sample::CgroupPath {
            id: 1,
            path: Bytes::cut(path.as_bytes()),
        }]),
        processes: List(vec![SymbolizedProcess {
            pid: Pid(pid),
            start_time: stat.start_ticks * TICK,
            parent: Pid(stat.parent),
            comm: 1,
            executable: if executable.is_ok() { 0 } else { NONE },
            ..SymbolizedProcess::default()
        }]),
        samples: List(vec![SymbolizedSample {
            tid: Tid(pid),
            thread_name: 1,
            cgroup: u64::from(!path.is_empty()),
            count: 1,
            ..SymbolizedSample::default()
        }]),
        ..SymbolizedBatch::default()
    };
    let mut labeller = Labeller::new(settings, sources);
    Ok(labeller.full_set(&batch, monotonic())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_process_has_its_labels() {
        let settings = Settings {
            node: "n1".to_owned(),
            external: vec![("zone".to_owned(), "b".to_owned())],
            command_line: true,
        };
        let own = std::process::id();
        let labels = of_process(own, settings, Sources::default()).unwrap();
        let get = |name: &str| labels.get(name).cloned().unwrap_or_default();
        assert_eq!(
            (get("node"), get("zone")),
            ("n1".to_owned(), "b".to_owned())
        );
        assert_eq!(get("__meta_process_pid"), own.to_string());
        assert_eq!(get("__meta_thread_id"), own.to_string());
        assert!(!get("comm").is_empty() && get("comm") == get("__meta_thread_comm"));
        assert_eq!(
            get("__meta_process_ppid"),
            std::os::unix::process::parent_id().to_string()
        );
        assert!(
            get("__meta_process_cmdline").contains(&get("__meta_process_executable_name")[..8])
        );
        assert!(!get("__meta_system_kernel_release").is_empty());
        assert!(!get("__meta_user_id").is_empty());
        let gone = of_process(u32::MAX, Settings::default(), Sources::default());
        assert!(gone.unwrap_err().to_string().contains("no process"));
    }

    #[test]
    fn the_pid_is_taken_out_of_the_arguments() {
        for arguments in [&["--node=n", "--pid=7"][..], &["--pid", "7", "--node=n"]] {
            let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            assert_eq!(pid_of(&mut arguments), Ok(7));
            assert_eq!(arguments, ["--node=n"]);
        }
        for arguments in [&[][..], &["--pid"], &["--pid=x"]] {
            let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            assert!(pid_of(&mut arguments).is_err(), "{arguments:?}");
        }
    }
}
