//! Sampler and symbolizer: stacks and what was mapped one way, unwind tables and acknowledgements the other.

use crate::codec::{Bytes, List};
use crate::ids::{BuildId, ExecutableId, ImageId, Pid, Tid, WindowId};
use crate::limits::{
    MAX_CGROUPS, MAX_FRAMES, MAX_FURTHER, MAX_KERNEL_FRAMES, MAX_MAPPINGS, MAX_PATH, MAX_SNAPSHOT,
    MAX_STACKS,
};
use crate::{messages, wire_enum, wire_struct};

messages! {
    /// What the sampler says.
    pub enum SamplerMessage {
        /// Facts about this run; with one fd: `/proc/kallsyms` (absent when it could not be opened).
        Start(Start) = 1,
        /// A process image that samples will name.
        Image(Image) = 2,
        /// More mappings of an image, appended to those known.
        Mappings(Mappings) = 3,
        /// An executable that mappings will name.
        Executable(Executable) = 4,
        /// Counted stacks of a window.
        Batch(SampleBatch) = 5,
        /// One sample to be finished from its snapshot.
        Snapshot(Snapshot) = 6,
        /// No more batches of that window follow.
        WindowEnd(WindowEnd) = 7,
        /// The image is gone: no further message names it.
        ImageGone(ImageGone) = 8,
    }
}

messages! {
    /// What the symbolizer says.
    pub enum SymbolizerMessage {
        /// An executable's unwind table: with one fd, a sealed memfd in the format of [`crate::table_file`].
        Table(Table) = 1,
        /// There is no table to be had.
        NoTable(NoTable) = 2,
        /// A window left the symbolizer.
        Taken(Taken) = 3,
    }
}

wire_struct! {
    /// Facts about a run of the sampler.
    pub struct Start {
        /// Samples a second and CPU.
        pub frequency: u32,
        /// CLOCK_REALTIME - CLOCK_MONOTONIC, nanoseconds.
        pub clock_offset: i64,
        /// The vDSO image as mapped into the sampler; all 64-bit processes of this kernel share it.
        pub vdso: Bytes<32768>,
        /// Release of the running kernel.
        pub kernel_release: Bytes<128>,
        /// The kernel's build ID; empty when unknown.
        pub kernel_build_id: BuildId,
    }
}

wire_struct! {
    /// A program image of a process.
    pub struct Image {
        /// Its identity.
        pub id: ImageId,
        /// The process.
        pub pid: Pid,
        /// When the process started, CLOCK_BOOTTIME nanoseconds; 0 when unknown.
        pub start_time: u64,
        /// The process's name, NUL trimmed.
        pub comm: Bytes<16>,
        /// Parent process; 0 when unknown.
        pub parent: Pid,
    }
}

wire_struct! {
    /// Mappings appended to an image's list.
    pub struct Mappings {
        /// The image.
        pub image: ImageId,
        /// Index of the first of `mappings` in the image's list.
        pub first: u32,
        /// In the order the kernel reported them.
        pub mappings: List<Mapping, MAX_MAPPINGS>,
    }
}

wire_enum! {
    /// What backs an executable mapping.
    pub enum Backing {
        /// An executable file.
        File = 0 => "file",
        /// Nothing: generated code.
        Anonymous = 1 => "anonymous",
        /// The kernel's vDSO.
        Vdso = 2 => "vdso",
        /// Another special mapping: vsyscall, uprobes trampoline.
        Special = 3 => "special",
    }
}

wire_struct! {
    /// One executable mapping.
    pub struct Mapping {
        /// First address.
        pub start: u64,
        /// First address behind it.
        pub end: u64,
        /// File offset of `start`.
        pub file_offset: u64,
        /// A [`Backing`] number.
        pub backing: u8,
        /// The file; meaningless unless backed by one.
        pub executable: ExecutableId,
    }
}

wire_struct! {
    /// An executable as the kernel reported it.
    pub struct Executable {
        /// Its identity.
        pub id: ExecutableId,
        /// Build ID from the kernel; empty when it had none.
        pub build_id: BuildId,
        /// Device and inode, for executables without a build ID (else 0).
        pub device: u64,
        /// See `device`.
        pub inode: u64,
        /// Path in the mount namespace of the process that mapped it first.
        pub path: Bytes<MAX_PATH>,
        /// A process that has it mapped: where the opener finds it.
        pub pid: Pid,
        /// That process's start, CLOCK_BOOTTIME nanoseconds; 0 when unknown.
        pub start_time: u64,
        /// The mapping in that process.
        pub mapping_start: u64,
        /// See `mapping_start`.
        pub mapping_end: u64,
        /// Whether the kernel side waits for its unwind table.
        pub table_wanted: bool,
    }
}

wire_struct! {
    /// A user frame.
    pub struct Frame {
        /// Index into the image's mappings.
        pub mapping: u32,
        /// Where the code ran. A caller's frame holds its call's address, the return address - 1.
        pub address: u64,
    }
}

wire_struct! {
    /// Equal stacks of one thread within a window.
    pub struct CountedStack {
        /// The process image.
        pub image: ImageId,
        /// The thread.
        pub tid: Tid,
        /// The thread's name, NUL trimmed.
        pub thread_name: Bytes<16>,
        /// The cgroup2 directory's inode number.
        pub cgroup: u64,
        /// How many samples.
        pub count: u64,
        /// A `StopReason` number.
        pub stop: u8,
        /// Kernel frames, leaf first; callers as return addresses.
        pub kernel: List<u64, MAX_KERNEL_FRAMES>,
        /// User frames, leaf first.
        pub user: List<Frame, MAX_FRAMES>,
    }
}

wire_struct! {
    /// Some of a window's stacks.
    pub struct SampleBatch {
        /// The window.
        pub window: WindowId,
        /// The stacks.
        pub stacks: List<CountedStack, MAX_STACKS>,
    }
}

wire_struct! {
    /// A sample whose user stack is still to be walked.
    pub struct Snapshot {
        /// The window.
        pub window: WindowId,
        /// The process image.
        pub image: ImageId,
        /// The thread.
        pub tid: Tid,
        /// The thread's name, NUL trimmed.
        pub thread_name: Bytes<16>,
        /// The cgroup2 directory's inode number.
        pub cgroup: u64,
        /// Why the kernel side gave up, a `StopReason` number.
        pub stop: u8,
        /// Kernel frames, leaf first.
        pub kernel: List<u64, MAX_KERNEL_FRAMES>,
        /// General registers by DWARF number, then the pc.
        pub registers: List<u64, 17>,
        /// Whether the pc is where execution stood; not so behind a `syscall` instruction.
        pub pc_is_exact: bool,
        /// The stack from `RED_ZONE_BYTES` below rsp upwards.
        pub stack: Bytes<MAX_SNAPSHOT>,
        /// Address of the first byte of `further`.
        pub further_start: u64,
        /// A second piece of stack: the one that a signal interrupted, from its rsp upwards, when the handler runs on
        /// another, else what lies behind `stack` and the pages that nobody has touched yet; often nothing.
        pub further: Bytes<MAX_FURTHER>,
    }
}

wire_struct! {
    /// A window's end, and the account of its samples on the way to here.
    pub struct WindowEnd {
        /// The window.
        pub window: WindowId,
        /// Its start, CLOCK_REALTIME nanoseconds.
        pub start: u64,
        /// Its length, nanoseconds.
        pub duration: u64,
        /// Samples a second and CPU, the same all through it.
        pub frequency: u32,
        /// Samples that this link carried for it, snapshots included.
        pub samples: u64,
        /// Samples of this window dropped before this link, by cause.
        pub drops: List<Drop, 32>,
        /// Those cgroups of its samples that the sampler saw being made.
        pub cgroups: List<CgroupPath, MAX_CGROUPS>,
        /// Whether the sampler ends with it.
        pub last: bool,
    }
}

wire_struct! {
    /// Where a cgroup stood when it was made.
    pub struct CgroupPath {
        /// The cgroup2 directory's inode number, which no other cgroup gets while the machine runs.
        pub id: u64,
        /// Its path from the root of the cgroup2 tree.
        pub path: Bytes<MAX_PATH>,
    }
}

wire_struct! {
    /// Samples dropped for one cause.
    pub struct Drop {
        /// Lower case, words joined by `_`.
        pub cause: Bytes<64>,
        /// How many.
        pub samples: u64,
    }
}

wire_struct! {
    /// The end of an image.
    pub struct ImageGone {
        /// Which.
        pub image: ImageId,
    }
}

wire_struct! {
    /// An unwind table is there.
    pub struct Table {
        /// Whose.
        pub executable: ExecutableId,
        /// Bytes of the memfd.
        pub bytes: u64,
        /// The build ID found in the file; empty when it has none. Executables known by inode and by build ID are
        /// then known to be one.
        pub build_id: BuildId,
    }
}

wire_struct! {
    /// There will be no unwind table: the kernel side walks this executable by frame pointer.
    pub struct NoTable {
        /// Whose.
        pub executable: ExecutableId,
        /// Whether another process with the same executable may be asked later (the file could not be opened).
        pub retry: bool,
    }
}

wire_struct! {
    /// A window was delivered to the next process, or dropped and counted: its samples are off the sender's account.
    ///
    /// Samples whose window was not taken when the link broke died with the receiver; the sender counts them.
    pub struct Taken {
        /// The window.
        pub window: WindowId,
        /// Samples taken.
        pub samples: u64,
    }
}
