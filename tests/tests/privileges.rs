//! What each live process may do is exactly what is documented: ids, capabilities, filters, namespaces, open files.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::credentials::{Credentials, capability_names};
use leadsman_tests::process::run;
use leadsman_tests::up::Up;
use leadsman_tests::{Machine, binaries};

/// One row of the documented table (docs/THREAT-MODEL.md).
struct Rights {
    process: &'static str,
    capabilities: &'static [&'static str],
    own_network_namespace: bool,
    /// What the kernel calls the files it may hold open, by their beginnings.
    open_files: &'static [&'static str],
}

/// Standard streams, the event loop, sockets of our own edges.
const COMMON: [&str; 7] = [
    "/dev/null",
    "pipe:",
    "socket:",
    "anon_inode:[eventpoll]",
    "anon_inode:[eventfd]",
    "anon_inode:[timerfd]",
    "anon_inode:[signalfd]",
];

const TABLE: [Rights; 6] = [
    Rights {
        process: "leadsman-sampler",
        capabilities: &[],
        own_network_namespace: true,
        open_files: &[
            "anon_inode:bpf-map",
            "anon_inode:bpf-prog",
            "anon_inode:bpf_link",
            "anon_inode:[perf_event]",
            "anon_inode:btf",
            "/proc/kallsyms",
            "/sys/devices/system/cpu/online",
            "/memfd:",
            // What its BPF maps cost.
            "OWN FDINFO",
        ],
    },
    Rights {
        process: "leadsman-opener",
        capabilities: &[
            "CAP_DAC_READ_SEARCH",
            "CAP_SYS_PTRACE",
            "CAP_CHECKPOINT_RESTORE",
        ],
        own_network_namespace: true,
        // Its own /proc; a file on its way to the symbolizer may be seen for a moment.
        open_files: &["/proc"],
    },
    Rights {
        process: "leadsman-symbolizer",
        capabilities: &[],
        own_network_namespace: true,
        // Executables it was handed, whatever their names: checked by their mode below.
        open_files: &["/"],
    },
    Rights {
        process: "leadsman-debuginfo-uploader",
        capabilities: &[],
        own_network_namespace: true,
        open_files: &["/"],
    },
    Rights {
        process: "leadsman-shipper",
        capabilities: &[],
        own_network_namespace: true,
        open_files: &["STORE", "/memfd:"],
    },
    Rights {
        process: "leadsman-viewer",
        capabilities: &[],
        own_network_namespace: true,
        open_files: &["STORE"],
    },
];

fn check(
    rights: &Rights,
    process: &Credentials,
    store: &str,
    faults: &mut Vec<String>,
) -> Result<()> {
    let mut fault = |text: String| faults.push(format!("{}: {text}", rights.process));
    let uids: BTreeSet<u32> = process.uids()?.into_iter().collect();
    let gids: BTreeSet<u32> = process.gids()?.into_iter().collect();
    if uids.len() != 1 || uids.contains(&0) {
        fault(format!("uids {uids:?}"));
    }
    if gids.len() != 1 || gids.contains(&0) {
        fault(format!("gids {gids:?}"));
    }
    if process
        .field("Groups")?
        .split_whitespace()
        .any(|group| group == "0")
    {
        fault(format!("groups {}", process.field("Groups")?));
    }
    let documented: BTreeSet<String> = rights
        .capabilities
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    // With no_new_privs nothing can be regained from the bounding set: it stays as the start needed it.
    let bounding: BTreeSet<String> = capability_names(process.capabilities("CapBnd")?)
        .into_iter()
        .filter(|name| {
            rights.process != "leadsman-sampler"
                || !["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"].contains(&name.as_str())
        })
        .collect();
    if bounding != documented {
        fault(format!("CapBnd {bounding:?}, documented {documented:?}"));
    }
    for field in ["CapEff", "CapPrm"] {
        let held: BTreeSet<String> = capability_names(process.capabilities(field)?)
            .into_iter()
            .collect();
        if held != documented {
            fault(format!("{field} {held:?}, documented {documented:?}"));
        }
    }
    for field in ["CapInh", "CapAmb"] {
        let held = process.capabilities(field)?;
        if held != 0 {
            fault(format!("{field} {:?}", capability_names(held)));
        }
    }
    for (field, expected) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        if process.field(field)? != expected {
            fault(format!("{field} {}", process.field(field)?));
        }
    }
    if process.is_dumpable()? {
        fault("is dumpable".to_owned());
    }
    let of_host = std::fs::read_link("/proc/self/ns/net")?
        .to_string_lossy()
        .into_owned();
    if (process.namespace("net")? == of_host) == rights.own_network_namespace {
        fault(format!(
            "network namespace {}, the host's is {of_host}",
            process.namespace("net")?
        ));
    }
    for (number, file) in process.open_files()? {
        let name = file.to_string_lossy().into_owned();
        // What its own memory costs, and where its crash report will be written: opened before the lockdown.
        let own_cost = name == format!("/proc/{}/smaps_rollup", process.pid);
        let role = rights.process.trim_start_matches("leadsman-");
        let is_crash_report = name == format!("/var/lib/leadsman/crashes/{role}/pending");
        let fdinfo = format!("/proc/{}/fdinfo/", process.pid);
        let documented = own_cost
            || is_crash_report
            || COMMON.iter().chain(rights.open_files).any(|start| {
                name.starts_with(match *start {
                    "STORE" => store,
                    "OWN FDINFO" => &fdinfo,
                    start => start,
                })
            });
        if !documented {
            fault(format!("descriptor {number} is {name}"));
        }
        // Nobody but the store's keeper holds a file of the disk open for writing, but for the own crash report.
        let flags = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", process.pid))
            .unwrap_or_default();
        let access = flags
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
            .unwrap_or(0)
            & 3;
        let on_disk =
            name.starts_with('/') && !name.starts_with("/dev/") && !name.starts_with("/memfd:");
        if on_disk
            && access != 0
            && !is_crash_report
            && !name.starts_with(store)
            && rights.process != "leadsman-symbolizer"
        {
            fault(format!("descriptor {number} is open for writing: {name}"));
        }
    }
    Ok(())
}

#[test]
fn each_live_process_has_what_is_documented_and_no_more() -> Result<()> {
    let _machine = Machine::lock()?;
    let up = Up::start(1, &[])?;
    let processes = up.processes()?;
    let mut faults = Vec::new();
    let mut uids = BTreeSet::new();
    for rights in &TABLE {
        let process = processes
            .get(rights.process)
            .with_context(|| format!("no {} runs", rights.process))?;
        check(rights, process, &up.store().to_string_lossy(), &mut faults)?;
        if !uids.insert(process.uids()?[0]) {
            faults.push(format!(
                "{}: shares its uid {}",
                rights.process,
                process.uids()?[0]
            ));
        }
    }
    for name in processes
        .keys()
        .filter(|name| !TABLE.iter().any(|rights| rights.process == name.as_str()))
    {
        faults.push(format!("{name}: runs, but is not documented"));
    }
    let documentation = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/THREAT-MODEL.md"
    ))
    .context("docs/THREAT-MODEL.md")?;
    for rights in &TABLE {
        let role = rights.process.trim_start_matches("leadsman-");
        let rows: Vec<&str> = documentation
            .lines()
            .filter(|line| line.starts_with(&format!("| {role} |")))
            .collect();
        if rows.is_empty() {
            faults.push(format!("{role}: no row in docs/THREAT-MODEL.md"));
        }
        for capability in rights.capabilities {
            if !rows.iter().any(|row| row.contains(capability)) {
                faults.push(format!(
                    "{role}: its documented rows do not name {capability}"
                ));
            }
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// Started by hand with more rights than its role has, a process refuses to run.
#[test]
fn a_process_with_more_rights_refuses_to_run() -> Result<()> {
    let _machine = Machine::lock()?;
    let directory = tempfile::tempdir()?;
    for rights in TABLE
        .iter()
        .filter(|rights| rights.process != "leadsman-sampler")
    {
        let output = run(
            Command::new(binaries::directory()?.join(rights.process))
                .arg("--runtime-directory")
                .arg(directory.path()),
            Duration::from_secs(10),
        )?;
        ensure!(
            output.code().is_some_and(|code| code != 0),
            "{} runs as root with all capabilities: {output:?}",
            rights.process
        );
        ensure!(
            !output.stderr.contains("panicked"),
            "{}: {}",
            rights.process,
            output.stderr
        );
    }
    Ok(())
}
