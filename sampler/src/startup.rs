//! What is read once, before the lockdown: the vDSO's image, the clocks' distance, the names of running processes.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ipc_endpoint::clock::{monotonic, nanoseconds};
use ipc_endpoint::inherited::Inherited;
use rustix::time::ClockId;

use crate::maps_file;

/// Time that reading the names of running processes may take: a machine with very many keeps some unnamed.
const NAMES_PATIENCE: Duration = Duration::from_millis(100);

/// Bytes of the largest vDSO image taken.
const MAX_VDSO: u64 = 32 * 1024;

/// CLOCK_REALTIME - CLOCK_MONOTONIC, nanoseconds.
pub(crate) fn clock_offset() -> i64 {
    nanoseconds(ClockId::Realtime).wrapping_sub(monotonic()) as i64
}

/// The vDSO as mapped into this process; all processes of this kernel map the same image.
pub(crate) fn vdso() -> io::Result<Vec<u8>> {
    let maps = fs::read("/proc/self/maps")?;
    let mappings = maps_file::executable_mappings(&maps);
    let vdso = mappings.iter().find(|mapping| mapping.path == b"[vdso]");
    let vdso = vdso
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no [vdso] in /proc/self/maps"))?;
    let mut image = vec![0; (vdso.end - vdso.start).min(MAX_VDSO) as usize];
    File::open("/proc/self/mem")?.read_exact_at(&mut image, vdso.start)?;
    Ok(image)
}

/// The kernel's symbols, opened by who may see their addresses: passed by name, or as standard input by a service manager
/// that passes no other files (systemd before 253).
pub(crate) fn kernel_symbols(inherited: &mut Inherited) -> Option<OwnedFd> {
    const SYMBOLS: &str = "/proc/kallsyms";
    inherited.take("kallsyms").or_else(|| {
        let input = fs::read_link("/proc/self/fd/0").ok()?;
        let ours = input == Path::new(SYMBOLS);
        ours.then(|| io::stdin().as_fd().try_clone_to_owned().ok())?
    })
}

/// Names and parents of the processes that run already, from `/proc/PID/stat`, which anybody may read.
pub(crate) fn running_processes() -> HashMap<u32, (Vec<u8>, u32)> {
    let started = Instant::now();
    let mut processes = HashMap::new();
    let Ok(directory) = fs::read_dir("/proc") else {
        return processes;
    };
    for entry in directory.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some(found) = fs::read(entry.path().join("stat"))
            .ok()
            .and_then(|stat| name_and_parent(&stat))
        {
            processes.insert(pid, found);
        }
        if started.elapsed() > NAMES_PATIENCE {
            break;
        }
    }
    processes
}

/// `pid (name) state parent ...`: the name is anything, so it ends at the last parenthesis.
fn name_and_parent(stat: &[u8]) -> Option<(Vec<u8>, u32)> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = stat.get(open + 1..close)?.to_vec();
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    Some((name, rest.split_ascii_whitespace().nth(1)?.parse().ok()?))
}

/// Whether records of new cgroups are about the cgroup2 tree: no cgroup1 tree holds the `perf_event` controller.
pub(crate) fn perf_cgroups_are_cgroup2() -> bool {
    fs::read_to_string("/proc/cgroups").is_ok_and(|table| is_of_cgroup2(&table, "perf_event"))
}

/// A line of `/proc/cgroups` is: controller, number of its cgroup1 tree or 0, number of cgroups, enabled.
fn is_of_cgroup2(table: &str, controller: &str) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        fields.next() == Some(controller) && fields.next() == Some("0")
    })
}

/// The running kernel's release.
pub(crate) fn kernel_release() -> Vec<u8> {
    rustix::system::uname().release().to_bytes().to_vec()
}

/// The running kernel's build ID, from the ELF notes it shows to everybody; empty when it has none.
pub(crate) fn kernel_build_id() -> Vec<u8> {
    fs::read("/sys/kernel/notes")
        .ok()
        .and_then(|notes| gnu_build_id(&notes))
        .unwrap_or_default()
}

/// `NT_GNU_BUILD_ID` among ELF notes: name size, description size, type, name, description, each padded to 4 bytes.
fn gnu_build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    loop {
        let (head, rest) = notes.split_first_chunk::<12>()?;
        let word =
            |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?) as usize);
        let (name_bytes, description_bytes, kind) = (word(0)?, word(4)?, word(8)?);
        let (name, rest) = rest.split_at_checked(name_bytes.checked_next_multiple_of(4)?)?;
        let (description, rest) =
            rest.split_at_checked(description_bytes.checked_next_multiple_of(4)?)?;
        if kind == 3 && name == b"GNU\0" {
            return description
                .get(..description_bytes.min(32))
                .map(<[u8]>::to_vec);
        }
        notes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_at_the_last_parenthesis() {
        let (name, parent) = name_and_parent(b"42 (a) b) (c) S 7 42 42 0").expect("parses");
        assert_eq!((name.as_slice(), parent), (&b"a) b) (c"[..], 7));
        assert_eq!(name_and_parent(b"42 nonsense"), None);
        assert!(running_processes().contains_key(&std::process::id()));
    }

    #[test]
    fn a_controller_is_in_one_tree() {
        let table =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t1\t1\nperf_event\t0\t9\t1\n";
        assert!(is_of_cgroup2(table, "perf_event"));
        assert!(!is_of_cgroup2(table, "cpu") && !is_of_cgroup2(table, "pids"));
    }

    #[test]
    fn the_vdso_is_an_elf_image() {
        let image = vdso().expect("this machine maps one");
        assert_eq!(image.get(..4), Some(&b"\x7fELF"[..]));
    }

    #[test]
    fn a_build_id_is_found_behind_other_notes() {
        let mut notes = vec![4, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0];
        notes.extend_from_slice(b"Xen\0\x01\x02\0\0");
        notes.extend_from_slice(&[4, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0]);
        notes.extend_from_slice(b"GNU\0abc\0");
        assert_eq!(gnu_build_id(&notes), Some(b"abc".to_vec()));
        assert_eq!(gnu_build_id(&notes[..20]), None);
    }
}
