//! What the kernel says about a live process: its ids, capabilities, filters, namespaces and open files. Reads /proc only.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Bits of `CapEff` and its siblings (include/uapi/linux/capability.h).
pub const CAPABILITIES: [(&str, u32); 6] = [
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
    ("CAP_CHECKPOINT_RESTORE", 40),
];

/// One process as /proc shows it.
#[derive(Debug)]
pub struct Credentials {
    pub pid: u32,
    pub comm: String,
    fields: BTreeMap<String, String>,
}

impl Credentials {
    /// Reads `/proc/PID/status`.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let fields: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect();
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"))?
            .trim()
            .to_owned();
        Ok(Self { pid, comm, fields })
    }

    /// One field of the status file, whitespace trimmed.
    pub fn field(&self, name: &str) -> Result<&str> {
        self.fields
            .get(name)
            .map(String::as_str)
            .with_context(|| format!("/proc/{}/status has no {name}", self.pid))
    }

    /// Real, effective, saved and file system uid.
    pub fn uids(&self) -> Result<Vec<u32>> {
        self.ids("Uid")
    }

    /// The same four for the group.
    pub fn gids(&self) -> Result<Vec<u32>> {
        self.ids("Gid")
    }

    /// A capability set by its field name, such as `CapEff`.
    pub fn capabilities(&self, field: &str) -> Result<u64> {
        u64::from_str_radix(self.field(field)?, 16)
            .with_context(|| format!("{field} is no hexadecimal number"))
    }

    /// The inode of a namespace, `net` for instance.
    pub fn namespace(&self, kind: &str) -> Result<String> {
        let path = format!("/proc/{}/ns/{kind}", self.pid);
        let target = fs::read_link(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(target.to_string_lossy().into_owned())
    }

    /// Where each open descriptor points.
    pub fn open_files(&self) -> Result<BTreeMap<u32, PathBuf>> {
        let directory = format!("/proc/{}/fd", self.pid);
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))? {
            let entry = entry?;
            // A descriptor that was closed since the listing is not open.
            if let (Ok(number), Ok(target)) = (
                entry.file_name().to_string_lossy().parse(),
                fs::read_link(entry.path()),
            ) {
                files.insert(number, target);
            }
        }
        Ok(files)
    }

    /// Whether the kernel hides the process from others of its uid (PR_SET_DUMPABLE 0): its /proc files then belong to root.
    pub fn is_dumpable(&self) -> Result<bool> {
        let path = format!("/proc/{}/environ", self.pid);
        let owner = fs::metadata(&path)
            .with_context(|| format!("cannot stat {path}"))?
            .uid();
        Ok(self
            .uids()?
            .get(1)
            .is_some_and(|&uid| uid == owner && uid != 0))
    }

    fn ids(&self, field: &str) -> Result<Vec<u32>> {
        self.field(field)?
            .split_whitespace()
            .map(|id| id.parse().context("an id is no number"))
            .collect()
    }
}

/// The names behind a capability set's bits; numbers for those that nothing here should ever hold.
#[must_use]
pub fn capability_names(set: u64) -> Vec<String> {
    (0..64)
        .filter(|bit| set & (1 << bit) != 0)
        .map(|bit| {
            CAPABILITIES
                .iter()
                .find(|(_, number)| *number == bit)
                .map_or_else(
                    || format!("capability {bit}"),
                    |(name, _)| (*name).to_owned(),
                )
        })
        .collect()
}

/// All processes whose parent is `parent`, and theirs.
pub fn descendants(parent: u32) -> Result<Vec<u32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // Processes come and go during the walk.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if let Some(Ok(of)) = after_name.split_whitespace().nth(1).map(str::parse::<u32>) {
            parents.insert(pid, of);
        }
    }
    let mut found = vec![parent];
    let mut next = 0;
    while let Some(&of) = found.get(next) {
        found.extend(
            parents
                .iter()
                .filter(|(_, above)| **above == of)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.remove(0);
    Ok(found)
}
