//! One process's `/proc/PID`, held open so that another process of the same number can't take its place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_proto::opener::OpenStatus;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::{Errno, read};

/// Nanoseconds of one tick of `/proc/PID/stat`'s start time (USER_HZ is 100 on every Linux port that matters here).
const TICK: u64 = 10_000_000;

/// The open directory.
#[derive(Debug)]
pub(crate) struct ProcessDirectory {
    fd: OwnedFd,
}

impl ProcessDirectory {
    /// Opens `/proc/PID` of the process that started at `start_time` (CLOCK_BOOTTIME nanoseconds; 0: any).
    pub(crate) fn open(pid: u32, start_time: u64) -> Result<Self, OpenStatus> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match open(format!("/proc/{pid}"), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Err(OpenStatus::ProcessGone),
            result => result.map_err(status)?,
        };
        let directory = Self { fd };
        if start_time != 0 {
            let started = directory.start_ticks()?;
            if started.abs_diff(start_time / TICK) > 1 {
                return Err(OpenStatus::ProcessGone);
            }
        }
        Ok(directory)
    }

    /// Field 22 of `stat`; the name before it may hold anything, so fields are counted behind the last parenthesis.
    fn start_ticks(&self) -> Result<u64, OpenStatus> {
        let stat = openat(
            &self.fd,
            "stat",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let mut text = [0; 1024];
        let length = read(stat.map_err(status)?, &mut text).map_err(status)?;
        let text = text.get(..length).unwrap_or_default();
        let behind_name = text.iter().rposition(|byte| *byte == b')').unwrap_or(0);
        let fields = text.get(behind_name..).unwrap_or_default();
        let field = fields.split(|byte| *byte == b' ').nth(20);
        let ticks = field.and_then(|field| std::str::from_utf8(field).ok()?.parse().ok());
        ticks.ok_or(OpenStatus::ProcessGone)
    }
}

impl AsFd for ProcessDirectory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a refusal of the kernel means to who asked.
pub(crate) fn status(error: Errno) -> OpenStatus {
    match error {
        Errno::SRCH => OpenStatus::ProcessGone,
        Errno::NOENT | Errno::NOTDIR => OpenStatus::NotFound,
        Errno::ACCESS | Errno::PERM => OpenStatus::Denied,
        Errno::LOOP | Errno::NXIO | Errno::NODEV => OpenStatus::Refused,
        Errno::FBIG | Errno::OVERFLOW => OpenStatus::TooLarge,
        _ => OpenStatus::NotFound,
    }
}
