//! Perf events: those that report what processes map, exec, fork and exit, and new cgroups, one per CPU, each with a ring in
//! shared memory; and the timers that run the BPF program.
//!
//! The only file of this process with `unsafe`: the ring is memory that the kernel writes. Nothing here decodes a
//! record; bytes are copied out and handed on.
#![expect(
    unsafe_code,
    reason = "perf_event_open has no safe wrapper, and its ring is memory shared with the kernel"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use thiserror::Error;

/// `struct perf_event_attr` up to `PERF_ATTR_SIZE_VER5` (include/uapi/linux/perf_event.h).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    breakpoint_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clock: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}
const _: () = assert!(size_of::<Attributes>() == 112);

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_DUMMY: u64 = 9;
/// `PERF_SAMPLE_TID | PERF_SAMPLE_TIME`: what `sample_id_all` appends to each record.
const SAMPLE_TYPE: u64 = 1 << 1 | 1 << 2;
/// Bits of `perf_event_attr`'s flags.
mod flag {
    pub(super) const MMAP: u64 = 1 << 8;
    pub(super) const COMM: u64 = 1 << 9;
    pub(super) const TASK: u64 = 1 << 13;
    pub(super) const WATERMARK: u64 = 1 << 14;
    pub(super) const SAMPLE_ID_ALL: u64 = 1 << 18;
    pub(super) const MMAP2: u64 = 1 << 23;
    pub(super) const COMM_EXEC: u64 = 1 << 24;
    pub(super) const USE_CLOCKID: u64 = 1 << 25;
    /// Since Linux 5.7.
    pub(super) const CGROUP: u64 = 1 << 32;
    /// Since Linux 5.12.
    pub(super) const BUILD_ID: u64 = 1 << 34;
}
const PERF_FLAG_FD_CLOEXEC: u64 = 1 << 3;
const PERF_COUNT_SW_CPU_CLOCK: u64 = 0;
/// Bit of `perf_event_attr`'s flags: it starts switched off.
const DISABLED: u64 = 1;
/// ioctls of a perf event.
const ENABLE: libc::Ioctl = 0x2400;
const DISABLE: libc::Ioctl = 0x2401;
const PERIOD: libc::Ioctl = 0x4008_2404;
const SET_BPF: libc::Ioctl = 0x4004_2408;

/// Offsets into `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;
const PAGE: usize = 4096;
/// Bytes of `struct perf_event_header`.
const RECORD_HEADER: usize = 8;

/// Why a ring could not be set up.
#[derive(Debug, Error)]
pub(crate) enum PerfEventError {
    /// `perf_event_open` failed.
    #[error(
        "cannot follow mappings on CPU {cpu}: {source}: CAP_PERFMON is needed, or CAP_SYS_ADMIN where kernel.perf_event_paranoid is 3 or more"
    )]
    Open {
        /// The CPU.
        cpu: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A timer could not be set up or changed.
    #[error(
        "cannot {what} the timer of CPU {cpu}: {source}: CAP_PERFMON is needed to set it up, or CAP_SYS_ADMIN where kernel.perf_event_paranoid is 3 or more"
    )]
    Timer {
        /// What was tried.
        what: &'static str,
        /// The CPU.
        cpu: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The ring could not be mapped.
    #[error(
        "cannot map the perf ring of CPU {cpu}: {source}: raise RLIMIT_MEMLOCK or kernel.perf_event_mlock_kb"
    )]
    Map {
        /// The CPU.
        cpu: u32,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One CPU's ring.
#[derive(Debug)]
pub(crate) struct PerfRing {
    fd: OwnedFd,
    base: NonNull<u8>,
    data_bytes: usize,
    /// Whether mappings carry build IDs.
    pub(crate) build_ids: bool,
}

impl PerfRing {
    /// Opens the events of all processes on `cpu` into a ring of `data_pages` (a power of two) pages.
    ///
    /// Readable by poll when a quarter of it is full.
    pub(crate) fn open(cpu: u32, data_pages: usize) -> Result<Self, PerfEventError> {
        let data_bytes = data_pages * PAGE;
        let (fd, build_ids) = match open_event(cpu, data_bytes, flag::BUILD_ID | flag::CGROUP) {
            Ok(fd) => (fd, true),
            // Before 5.12 the flag is unknown.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (
                open_event(cpu, data_bytes, flag::CGROUP)
                    .map_err(|source| PerfEventError::Open { cpu, source })?,
                false,
            ),
            Err(source) => return Err(PerfEventError::Open { cpu, source }),
        };
        // SAFETY: a fresh shared mapping at an address of the kernel's choice.
        let base = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            mmap(
                std::ptr::null_mut(),
                PAGE + data_bytes,
                protection,
                MapFlags::SHARED,
                &fd,
                0,
            )
        };
        let base = base.map_err(|error| PerfEventError::Map {
            cpu,
            source: error.into(),
        })?;
        let Some(base) = NonNull::new(base.cast()) else {
            return Err(PerfEventError::Map {
                cpu,
                source: io::ErrorKind::InvalidData.into(),
            });
        };
        Ok(Self {
            fd,
            base,
            data_bytes,
            build_ids,
        })
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: `data_head` and `data_tail` are aligned u64 in the first page, which lives as long as `self`; the
        // kernel writes the head with release ordering (Documentation: struct perf_event_mmap_page).
        unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU64>() }
    }

    /// Hands each record's bytes, header included, to `take`, and frees their room.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(&[u8])) {
        let head = self.position(DATA_HEAD).load(Ordering::Acquire);
        let mut tail = self.position(DATA_TAIL).load(Ordering::Relaxed);
        let mut record = Vec::new();
        while head.wrapping_sub(tail) >= RECORD_HEADER as u64 {
            self.copy(tail, RECORD_HEADER, &mut record);
            let size = record.get(6..8).map_or(0, |size| {
                usize::from(u16::from_le_bytes([size[0], size[1]]))
            });
            if size < RECORD_HEADER || size as u64 > head.wrapping_sub(tail) {
                // The kernel writes no such record: give the room back rather than reading it for ever.
                tail = head;
                break;
            }
            self.copy(tail, size, &mut record);
            take(&record);
            tail = tail.wrapping_add(size as u64);
        }
        self.position(DATA_TAIL).store(tail, Ordering::Release);
    }

    /// Copies `length` bytes at `position`, which wraps at the ring's end.
    fn copy(&self, position: u64, length: usize, into: &mut Vec<u8>) {
        into.clear();
        let start = position as usize & (self.data_bytes - 1);
        let first = length.min(self.data_bytes - start);
        // SAFETY: both parts lie within the data pages, and the kernel does not write between tail and head.
        unsafe {
            let data = self.base.as_ptr().add(PAGE);
            into.extend_from_slice(std::slice::from_raw_parts(data.add(start), first));
            into.extend_from_slice(std::slice::from_raw_parts(data, length - first));
        }
    }
}

impl AsFd for PerfRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for PerfRing {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `open`, used by nobody after this.
        let result = unsafe { munmap(self.base.as_ptr().cast(), PAGE + self.data_bytes) };
        if let Err(error) = result {
            log::warn!(
                "cannot unmap a perf ring of fd {}: {error}",
                self.fd.as_raw_fd()
            );
        }
    }
}

/// A timer on one CPU. At each tick the BPF program runs on what runs there; gone with the value.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: OwnedFd,
    cpu: u32,
}

impl Timer {
    /// Sets up a timer of `frequency` Hz, switched off.
    pub(crate) fn open(
        cpu: u32,
        frequency: u32,
        program: BorrowedFd<'_>,
    ) -> Result<Self, PerfEventError> {
        let attributes = Attributes {
            kind: PERF_TYPE_SOFTWARE,
            size: size_of::<Attributes>() as u32,
            config: PERF_COUNT_SW_CPU_CLOCK,
            sample_period: period(frequency),
            flags: DISABLED,
            ..Attributes::default()
        };
        let fd = open_with(&attributes, cpu).map_err(|source| PerfEventError::Timer {
            what: "open",
            cpu,
            source,
        })?;
        let timer = Self { fd, cpu };
        // SAFETY: takes a descriptor by value; the kernel keeps what it refers to.
        let result = unsafe { libc::ioctl(timer.fd.as_raw_fd(), SET_BPF, program.as_raw_fd()) };
        timer.check("give a program to", result)?;
        Ok(timer)
    }

    /// Switches it on.
    pub(crate) fn start(&self) -> Result<(), PerfEventError> {
        // SAFETY: takes no argument.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), ENABLE, 0) };
        self.check("start", result)
    }

    /// Switches it off: when this returns, its program runs no more.
    pub(crate) fn stop(&self) -> Result<(), PerfEventError> {
        // SAFETY: takes no argument.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), DISABLE, 0) };
        self.check("stop", result)
    }

    /// Changes its rate. Takes no capability.
    pub(crate) fn set_frequency(&self, frequency: u32) -> Result<(), PerfEventError> {
        let period = period(frequency);
        // SAFETY: reads eight bytes that outlive the call.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), PERIOD, &raw const period) };
        self.check("change the rate of", result)
    }

    fn check(&self, what: &'static str, result: libc::c_int) -> Result<(), PerfEventError> {
        let cpu = self.cpu;
        match result {
            0 => Ok(()),
            _ => Err(PerfEventError::Timer {
                what,
                cpu,
                source: io::Error::last_os_error(),
            }),
        }
    }
}

/// Nanoseconds between two ticks.
fn period(frequency: u32) -> u64 {
    1_000_000_000 / u64::from(frequency.max(1))
}

fn open_event(cpu: u32, data_bytes: usize, more_flags: u64) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<Attributes>() as u32,
        config: PERF_COUNT_SW_DUMMY,
        sample_type: SAMPLE_TYPE,
        flags: flag::MMAP
            | flag::COMM
            | flag::TASK
            | flag::WATERMARK
            | flag::SAMPLE_ID_ALL
            | flag::MMAP2
            | flag::COMM_EXEC
            | flag::USE_CLOCKID
            | more_flags,
        wakeup_watermark: (data_bytes / 4) as u32,
        // The clock of bpf_ktime_get_ns, so that records and samples can be put in order.
        clock: libc::CLOCK_MONOTONIC,
        ..Attributes::default()
    };
    open_with(&attributes, cpu)
}

fn open_with(attributes: &Attributes, cpu: u32) -> io::Result<OwnedFd> {
    // SAFETY: the attributes outlive the call and state their own size; the result is a new fd or an error.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(attributes),
            -1,
            cpu as libc::c_int,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        );
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd as libc::c_int))
        }
    }
}
