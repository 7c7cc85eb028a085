//! Requests to the opener and its replies.
//!
//! The sampler asks for `/proc/PID/maps` of processes older than itself; asking names the process as sampled. The
//! symbolizer asks for files, and gets only those of processes and paths that the sampler named.

use crate::codec::Bytes;
use crate::ids::{BuildId, Pid};
use crate::limits::MAX_PATH;
use crate::{messages, wire_enum, wire_struct};

messages! {
    /// What the opener is asked.
    pub enum OpenerRequest {
        /// The process is being sampled. Only from the sampler; not answered.
        Sampled(Sampled) = 1,
        /// `/proc/PID/maps`. Only from the sampler.
        OpenMaps(OpenMaps) = 2,
        /// The file behind an executable mapping. Only from the symbolizer.
        OpenExecutable(OpenExecutable) = 3,
        /// The process's perf map. Only from the symbolizer.
        OpenPerfMap(OpenPerfMap) = 4,
        /// Separate debug information. Only from the symbolizer.
        OpenDebugFile(OpenDebugFile) = 5,
    }
}

impl OpenerRequest {
    /// The number to be repeated in the answer; 0 where there is none.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Sampled(_) => 0,
            Self::OpenMaps(wanted) => wanted.request,
            Self::OpenExecutable(wanted) => wanted.request,
            Self::OpenPerfMap(wanted) => wanted.request,
            Self::OpenDebugFile(wanted) => wanted.request,
        }
    }

    /// The process that it is about.
    #[must_use]
    pub fn pid(&self) -> Pid {
        match self {
            Self::Sampled(wanted) => wanted.pid,
            Self::OpenMaps(wanted) => wanted.pid,
            Self::OpenExecutable(wanted) => wanted.pid,
            Self::OpenPerfMap(wanted) => wanted.pid,
            Self::OpenDebugFile(wanted) => wanted.pid,
        }
    }
}

messages! {
    /// What the opener answers.
    pub enum OpenerReply {
        /// With one fd when `status` is `Opened`.
        Opened(Opened) = 1,
    }
}

wire_struct! {
    /// A process that is being sampled, with an executable the kernel reported for it.
    pub struct Sampled {
        /// The process.
        pub pid: Pid,
        /// Its start, CLOCK_BOOTTIME nanoseconds; 0 when unknown.
        pub start_time: u64,
        /// An executable it mapped: may be opened by this path, in the initial mount namespace, should the process
        /// be gone; empty: none.
        pub path: Bytes<MAX_PATH>,
    }
}

wire_struct! {
    /// See [`OpenerRequest::OpenMaps`].
    pub struct OpenMaps {
        /// Repeated in the reply.
        pub request: u64,
        /// The process.
        pub pid: Pid,
        /// Its start, CLOCK_BOOTTIME nanoseconds; 0 when unknown.
        pub start_time: u64,
    }
}

wire_struct! {
    /// See [`OpenerRequest::OpenExecutable`].
    pub struct OpenExecutable {
        /// Repeated in the reply.
        pub request: u64,
        /// The process.
        pub pid: Pid,
        /// Its start, CLOCK_BOOTTIME nanoseconds; 0 when unknown.
        pub start_time: u64,
        /// The mapping.
        pub mapping_start: u64,
        /// See `mapping_start`.
        pub mapping_end: u64,
        /// Tried when the process is gone, if the sampler named it ([`Sampled`]).
        pub path: Bytes<MAX_PATH>,
    }
}

wire_struct! {
    /// See [`OpenerRequest::OpenPerfMap`].
    pub struct OpenPerfMap {
        /// Repeated in the reply.
        pub request: u64,
        /// The process.
        pub pid: Pid,
        /// Its start, CLOCK_BOOTTIME nanoseconds; 0 when unknown.
        pub start_time: u64,
    }
}

wire_struct! {
    /// See [`OpenerRequest::OpenDebugFile`]: by build ID below the debug directories, or by `.gnu_debuglink` name beside the
    /// executable; inside the process's root first, then in the initial mount namespace.
    pub struct OpenDebugFile {
        /// Repeated in the reply.
        pub request: u64,
        /// A process that has the executable mapped.
        pub pid: Pid,
        /// Its start, CLOCK_BOOTTIME nanoseconds; 0 when unknown.
        pub start_time: u64,
        /// The executable's path.
        pub path: Bytes<MAX_PATH>,
        /// Its build ID; empty: look by name.
        pub build_id: BuildId,
        /// The `.gnu_debuglink` name, one path component; empty: look by build ID.
        pub name: Bytes<255>,
    }
}

wire_enum! {
    /// How a request ended.
    pub enum OpenStatus {
        /// The fd is attached.
        Opened = 0 => "opened",
        /// No such process, or another one has its number now.
        ProcessGone = 1 => "process_gone",
        /// The process is not being sampled.
        NotSampled = 2 => "not_sampled",
        /// No such mapping or file.
        NotFound = 3 => "not_found",
        /// Not a regular file, not ELF, or on a file system that may block.
        Refused = 4 => "refused",
        /// The kernel said no.
        Denied = 5 => "denied",
        /// Larger than the bound.
        TooLarge = 6 => "too_large",
        /// Too many requests a second: ask again later.
        RateLimited = 7 => "rate_limited",
        /// The file system did not answer in time.
        TimedOut = 8 => "timed_out",
    }
}

wire_struct! {
    /// The answer to one request.
    pub struct Opened {
        /// The request's number.
        pub request: u64,
        /// An [`OpenStatus`] number.
        pub status: u8,
        /// Device of the file.
        pub device: u64,
        /// Inode of the file.
        pub inode: u64,
        /// Size in bytes.
        pub size: u64,
        /// Modification time, CLOCK_REALTIME nanoseconds.
        pub modified: u64,
    }
}
