//! Records and map values exchanged by the BPF programs and the sampler: one definition, compiled for both.

use crate::limits::{
    BLOCK_MAPPINGS, FURTHER_BYTES, MAX_KERNEL_FRAMES, MAX_USER_FRAMES, PROCESS_BLOCKS,
    SNAPSHOT_BYTES,
};
use crate::registers::Registers;

/// Head of each record in the ring buffer. Behind it stand
/// `kernel_frames` + `user_frames` addresses (u64, leaf first, kernel's first), and, when `snapshot_bytes` is not
/// zero, a [`SnapshotHead`], that many bytes of the stack, from [`RED_ZONE_BYTES`](crate::limits::RED_ZONE_BYTES) below
/// its stack pointer upwards, and as many further ones as the head says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RecordHeader {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time: u64,
    /// When the process's first thread started, CLOCK_BOOTTIME, nanoseconds (`task_struct.start_boottime`).
    pub start_time: u64,
    /// `bpf_get_current_cgroup_id`: the cgroup2 directory's inode number.
    pub cgroup: u64,
    /// For [`StopReason::TableMissing`](crate::stop::StopReason::TableMissing): the table's number << 32 | the file offset
    /// >> [`MISSING_SHIFT`], where no row was found.
    pub missing: u64,
    /// The process.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// The thread's name, NUL padded.
    pub comm: [u8; 16],
    /// Changes with each exec of the process (`task_struct.self_exec_id`, its low half).
    pub exec_id: u32,
    /// The CPU.
    pub cpu: u32,
    /// Frames of the kernel stack; 0 when the CPU was in user mode.
    pub kernel_frames: u16,
    /// Frames of the user stack.
    pub user_frames: u16,
    /// Bytes of user stack behind the frames.
    pub snapshot_bytes: u16,
    /// [`StopReason`](crate::stop::StopReason) of the user stack.
    pub stop: u8,
    /// Explicit padding, zero.
    pub reserved: u8,
}

/// What stands before the stack of a sample that is finished in user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SnapshotHead {
    /// The youngest frame.
    pub registers: Registers,
    /// Where the further bytes stood: those of the stack that a signal interrupted, when its handler runs on another, else
    /// those behind the first piece and the pages that nobody has touched yet.
    pub further_start: u64,
    /// How many there are.
    pub further_bytes: u64,
}

/// Bits of a file offset that [`RecordHeader::missing`] leaves out.
pub const MISSING_SHIFT: u32 = 12;

/// Words behind the header at most: frames, or kernel frames and a snapshot.
pub const RECORD_WORDS: usize = MAX_KERNEL_FRAMES
    + if MAX_USER_FRAMES > SNAPSHOT_WORDS {
        MAX_USER_FRAMES
    } else {
        SNAPSHOT_WORDS
    };
const SNAPSHOT_WORDS: usize = (size_of::<SnapshotHead>() + SNAPSHOT_BYTES + FURTHER_BYTES) / 8;

/// How a pc inside a mapping is unwound.
pub mod mapping_kind {
    /// By the unwind table `Mapping::table`.
    pub const TABLE: u32 = 0;
    /// By the frame pointer: generated code.
    pub const FRAME_POINTER: u32 = 1;
    /// By the frame pointer, if there is one: an executable whose table is not to be had.
    pub const UNREADABLE: u32 = 2;
}

/// One executable mapping, as the kernel reported it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mapping {
    /// First address behind it.
    pub end: u64,
    /// What to add to an address to get its file offset, wrapping.
    pub to_file_offset: u64,
    /// Number of the executable's unwind table.
    pub table: u32,
    /// One of [`mapping_kind`].
    pub kind: u32,
}

/// Value of the `PROCESSES` map, keyed by tgid.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Process {
    /// [`RecordHeader::start_time`] of the process meant: another one may have its number now.
    pub start_time: u64,
    /// [`RecordHeader::exec_id`] of the program image meant.
    pub exec_id: u32,
    /// Number of its first block: while a newer set of blocks is written, this one stays in force.
    pub first_block: u32,
    /// First address of each block, ascending; `u64::MAX` behind the last.
    pub starts: [u64; PROCESS_BLOCKS],
}

/// Key of the `MAPPINGS` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct BlockKey {
    /// The process.
    pub tgid: u32,
    /// Which of its blocks.
    pub block: u32,
}

/// Value of the `MAPPINGS` map: some of a process's executable mappings in address order.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MappingBlock {
    /// First address of each mapping, ascending; `u64::MAX` behind the last.
    pub starts: [u64; BLOCK_MAPPINGS],
    /// The mappings.
    pub mappings: [Mapping; BLOCK_MAPPINGS],
}

/// Offsets into kernel structures, from BTF at start; read-only data of the BPF object, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KernelOffsets {
    /// `task_struct.stack`.
    pub task_stack: u32,
    /// `task_struct.flags`.
    pub task_flags: u32,
    /// `task_struct.mm`.
    pub task_mm: u32,
    /// `task_struct.group_leader`.
    pub task_group_leader: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.real_parent`.
    pub task_real_parent: u32,
    /// `task_struct.start_boottime` (`real_start_time` before 5.5).
    pub task_start_time: u32,
    /// `task_struct.self_exec_id`.
    pub task_exec_id: u32,
    /// `task_struct.parent_exec_id`.
    pub task_parent_exec_id: u32,
    /// `mm_struct.start_stack`.
    pub mm_start_stack: u32,
    /// From `task_struct.stack` to the saved user registers (`struct pt_regs`).
    pub stack_to_registers: u32,
}

/// What the BPF programs count, by index into the `COUNTERS` per-CPU array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Timer ticks on a CPU that ran a thread.
    Samples = 0,
    /// Timer ticks on an idle CPU: no sample.
    Idle = 1,
    /// Samples written to the ring buffer.
    Written = 2,
    /// Samples the ring buffer had no room for.
    RingFull = 3,
    /// User frames walked.
    Frames = 4,
    /// Samples written with a snapshot.
    Snapshots = 5,
    /// Samples lost because a walk could not go on (no scratch space, no tail call).
    WalkRefused = 6,
    /// Samples whose snapshot was left out because the ring buffer was nearly full.
    Withheld = 7,
    /// Most bytes that waited in the ring buffer; the greatest over the CPUs counts, not the sum.
    RingPeak = 8,
    /// Helper calls for the walks of user stacks: map look-ups and reads of the stack.
    Helpers = 9,
}

/// Number of [`Counter`]s.
pub const COUNTERS: u32 = 10;

#[cfg(feature = "user")]
mod pod {
    //! SAFETY of each: `repr(C)` without implicit padding, valid for any bit pattern.
    #![expect(unsafe_code, reason = "aya asks for Pod on map values")]
    use crate::abi::{BlockKey, KernelOffsets, Mapping, MappingBlock, Process};
    use crate::table::{Chunk, Region, RegionKey};

    // SAFETY: see the module.
    unsafe impl aya::Pod for BlockKey {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for KernelOffsets {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for Mapping {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for MappingBlock {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for Process {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for Region {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for RegionKey {}
    // SAFETY: see the module.
    unsafe impl aya::Pod for Chunk {}
}

const _: () = assert!(size_of::<RecordHeader>() == 72);
const _: () = assert!(size_of::<Registers>() == 144);
const _: () = assert!(size_of::<MappingBlock>() + 64 <= 1024);
const _: () = assert!(size_of::<Process>() + 64 <= 512);
const _: () = assert!(size_of::<crate::table::Region>() + 64 <= 1024);
const _: () = assert!(size_of::<crate::table::Chunk>() + 64 <= 2048);
