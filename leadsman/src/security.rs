//! `leadsman security`: what the running processes may do, against what they are meant to.

use std::fs;
use std::process::ExitCode;

use ipc_endpoint::rights::{ALL, Machine, Rights, capability_names, line};
use rustix::thread::CapabilitySet;

use crate::cli::Security;
use crate::error::Failure;
use crate::roles;

/// What `/proc/PID/status` says of a process.
#[derive(Debug, Default)]
struct Seen {
    uid: u32,
    permitted: u64,
    effective: u64,
    no_new_privs: u32,
    seccomp: u32,
}

/// Prints each live process; exit code 1 when one has other rights than it should.
pub(crate) fn run(options: &Security) -> Result<ExitCode, Failure> {
    let machine = Machine::read();
    let directory = options.runtime_directory.as_os_str().as_encoded_bytes();
    let (mut found, mut wrong) = (0, 0);
    for rights in &ALL {
        for pid in pids_of(rights, directory) {
            found += 1;
            println!("pid {pid:<7} {}", line(rights, &machine));
            let Some(seen) = status(pid) else { continue };
            for fault in faults(rights, &machine, &seen) {
                wrong += 1;
                println!("            WRONG: {fault}");
            }
        }
    }
    if found == 0 {
        return Err(Failure::failed(format!(
            "no process of Leadsman runs in {}: start it by `sudo leadsman up`, or name its --runtime-directory",
            options.runtime_directory.display()
        )));
    }
    println!("{found} processes, {wrong} deviations");
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn faults(rights: &Rights, machine: &Machine, seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    if seen.uid == 0 {
        faults.push("runs as root".to_owned());
    }
    let allowed = rights.after_lockdown(machine);
    let held = CapabilitySet::from_bits_retain(seen.permitted | seen.effective);
    let excess = held.difference(allowed);
    if !excess.is_empty() {
        faults.push(format!("has {}", capability_names(excess)));
    }
    if seen.no_new_privs != 1 {
        faults.push("no_new_privs is off".to_owned());
    }
    if seen.seccomp != 2 {
        faults.push("has no seccomp filter".to_owned());
    }
    faults
}

/// Processes whose command line begins with the role's binary and names that runtime directory.
fn pids_of(rights: &Rights, runtime_directory: &[u8]) -> Vec<u32> {
    let name = roles::binary(rights.role);
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_of_run(&command, name.as_bytes(), runtime_directory)
    })
    .collect()
}

fn is_of_run(command: &[u8], name: &[u8], runtime_directory: &[u8]) -> bool {
    let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    let program = words
        .first()
        .and_then(|word| word.rsplit(|byte| *byte == b'/').next());
    // As `leadsman up` says it, and as `leadsman run` does.
    const OPTION: &[u8] = b"--runtime-directory";
    let apart: &[&[u8]] = &[OPTION, runtime_directory];
    let together = [OPTION, b"=", runtime_directory].concat();
    program == Some(name)
        && (words.windows(2).any(|pair| pair == apart) || words.contains(&&together[..]))
}

fn status(pid: u32) -> Option<Seen> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()
    };
    let hexadecimal = |name: &str| field(name).and_then(|text| u64::from_str_radix(text, 16).ok());
    Some(Seen {
        uid: field("Uid:")?.parse().ok()?,
        permitted: hexadecimal("CapPrm:")?,
        effective: hexadecimal("CapEff:")?,
        no_new_privs: field("NoNewPrivs:")?.parse().ok()?,
        seccomp: field("Seccomp:")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_another_run_are_left_out() {
        let command = b"leadsman-opener\0--runtime-directory\0/run/leadsman\0--peer\0opener=1\0";
        assert!(is_of_run(command, b"leadsman-opener", b"/run/leadsman"));
        assert!(!is_of_run(command, b"leadsman-opener", b"/run/other"));
        let command = b"leadsman-opener\0--runtime-directory=/run/leadsman\0--peer=opener=1\0";
        assert!(is_of_run(command, b"leadsman-opener", b"/run/leadsman"));
        assert!(!is_of_run(command, b"leadsman-opener", b"/run/lead"));
        assert!(!is_of_run(command, b"leadsman-viewer", b"/run/leadsman"));
        assert!(!is_of_run(b"", b"leadsman-viewer", b"/run/leadsman"));
    }

    #[test]
    fn an_ordinary_process_is_told_from_a_confined_one() {
        let own = status(std::process::id()).expect("readable");
        let machine = Machine::read();
        let rights = ALL.first().expect("there are some");
        assert!(
            faults(rights, &machine, &own)
                .iter()
                .any(|fault| fault.contains("seccomp"))
        );
        let confined = Seen {
            uid: 61184,
            no_new_privs: 1,
            seccomp: 2,
            ..Seen::default()
        };
        assert!(faults(rights, &machine, &confined).is_empty());
    }
}
