//! What the kernel says about this process, from `/proc/self/status` (proc_pid_status(5)).

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::pread;
use rustix::thread::CapabilitySet;

use super::LockdownError;
use crate::rights::capability_names;

/// The file, opened while paths are open.
pub(super) struct Status {
    fd: OwnedFd,
}

/// One reading of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Real, effective, saved and file system uid.
    pub(super) uids: Vec<u32>,
    pub(super) threads: u64,
    pub(super) inheritable: CapabilitySet,
    pub(super) permitted: CapabilitySet,
    pub(super) effective: CapabilitySet,
    pub(super) ambient: CapabilitySet,
    pub(super) no_new_privs: bool,
    /// 2: a filter is installed.
    pub(super) seccomp: u32,
}

impl Status {
    pub(super) fn open() -> Result<Self, LockdownError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = open("/proc/self/status", flags, Mode::empty()).map_err(LockdownError::Status)?;
        Ok(Self { fd })
    }

    pub(super) fn read(&self) -> Result<State, LockdownError> {
        let mut text = [0; 8192];
        let length = pread(&self.fd, &mut text, 0).map_err(LockdownError::Status)?;
        Ok(State::parse(&String::from_utf8_lossy(
            text.get(..length).unwrap_or_default(),
        )))
    }
}

impl State {
    fn parse(text: &str) -> Self {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))
                .unwrap_or_default()
        };
        // A set that can't be read counts as full: the check must fail.
        let set = |name| {
            let bits = u64::from_str_radix(field(name), 16).unwrap_or(u64::MAX);
            CapabilitySet::from_bits_retain(bits)
        };
        Self {
            uids: field("Uid")
                .split_ascii_whitespace()
                .filter_map(|uid| uid.parse().ok())
                .collect(),
            threads: field("Threads").parse().unwrap_or(0),
            inheritable: set("CapInh"),
            permitted: set("CapPrm"),
            effective: set("CapEff"),
            ambient: set("CapAmb"),
            no_new_privs: field("NoNewPrivs") == "1",
            seccomp: field("Seccomp").parse().unwrap_or(0),
        }
    }

    /// What a locked down process that keeps `kept` must not be or have.
    pub(super) fn excess(&self, kept: CapabilitySet) -> Vec<String> {
        let mut excess = Vec::new();
        let has = self.permitted | self.effective | self.ambient;
        if !(has - kept).is_empty() {
            excess.push(capability_names(has - kept));
        }
        if !self.inheritable.is_empty() {
            excess.push("inheritable capabilities".to_owned());
        }
        if self.uids.len() != 4 || self.uids.contains(&0) {
            excess.push("uid 0".to_owned());
        }
        if !self.no_new_privs {
            excess.push("the way to new privileges".to_owned());
        }
        if self.seccomp != 2 {
            excess.push("all system calls".to_owned());
        }
        excess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nUid:\t990\t990\t990\t990\nThreads:\t1\nCapInh:\t0000000000000000\n\
        CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";

    #[test]
    fn nothing_is_in_excess() {
        let state = State::parse(STATUS);
        assert_eq!(state.threads, 1);
        assert_eq!(state.excess(CapabilitySet::empty()), Vec::<String>::new());
    }

    #[test]
    fn each_excess_is_named() {
        let each = [
            ("Uid:\t990", "Uid:\t0"),
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000080000"),
            ("CapInh:\t0000000000000000", "CapInh:\t0000000000080000"),
            ("CapEff:\t0000000000000000", "CapEff:\tnonsense"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp:\t2", "Seccomp:\t0"),
        ];
        for (good, bad) in each {
            let state = State::parse(&STATUS.replace(good, bad));
            assert_eq!(state.excess(CapabilitySet::empty()).len(), 1, "{bad}");
        }
        let kept =
            State::parse(&STATUS.replace("CapEff:\t0000000000000000", "CapEff:\t0000000000080000"));
        assert!(kept.excess(CapabilitySet::SYS_PTRACE).is_empty());
    }
}
