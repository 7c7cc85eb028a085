//! The maps of the BPF programs, and the scratch space of one walk.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray, ProgramArray, RingBuf};
use leadsman_ebpf::abi::{
    BlockKey, COUNTERS as COUNTER_COUNT, Counter, KernelOffsets, MappingBlock, Process,
    RECORD_WORDS, RecordHeader,
};
use leadsman_ebpf::limits::{MAX_PROCESSES, STACK_WINDOW_BYTES};
use leadsman_ebpf::registers::Registers;
use leadsman_ebpf::table::{Chunk, Region, RegionKey};

/// Samples to the sampler. The loader sets the real size.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// tgid -> its blocks of mappings. Written by the sampler.
#[map]
pub(crate) static PROCESSES: HashMap<u32, Process> =
    HashMap::with_max_entries(MAX_PROCESSES, BPF_F_NO_PREALLOC);

/// (tgid, block) -> executable mappings. Written by the sampler.
#[map]
pub(crate) static MAPPINGS: HashMap<BlockKey, MappingBlock> =
    HashMap::with_max_entries(4 * MAX_PROCESSES, BPF_F_NO_PREALLOC);

/// (table, file offset >> 20) -> directory of chunks. Written by the sampler; the loader sets the real size.
#[map]
pub(crate) static REGIONS: HashMap<RegionKey, Region> =
    HashMap::with_max_entries(16384, BPF_F_NO_PREALLOC);

/// Chunk number -> unwind rows. Written by the sampler; the loader sets the real size.
#[map]
pub(crate) static CHUNKS: HashMap<u32, Chunk> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// [`Counter`] -> count, for each CPU.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);

/// One [`Scratch`] for each CPU: timer ticks of one CPU do not nest.
#[map]
pub(crate) static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Index 0: the `walk` program.
#[map]
pub(crate) static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Set by the loader from BTF, then frozen.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: KernelOffsets = KernelOffsets {
    task_stack: 0,
    task_flags: 0,
    task_mm: 0,
    task_group_leader: 0,
    task_tgid: 0,
    task_real_parent: 0,
    task_start_time: 0,
    task_exec_id: 0,
    task_parent_exec_id: 0,
    mm_start_stack: 0,
    stack_to_registers: 0,
};

/// The walk of one sample, from the timer to the ring buffer: it outlives the tail calls between them.
#[repr(C)]
pub(crate) struct Scratch {
    /// The frame being walked.
    pub(crate) registers: Registers,
    /// The youngest frame, for a snapshot.
    pub(crate) first: Registers,
    /// Whose mappings apply: the sampled process's, or its parent's, as [`Process`] tells them apart.
    pub(crate) owner_start_time: u64,
    pub(crate) owner_tgid: u32,
    pub(crate) owner_exec_id: u32,
    /// First address and length of the mapping found last; length 0: none.
    pub(crate) mapping_start: u64,
    pub(crate) mapping_length: u64,
    pub(crate) to_file_offset: u64,
    pub(crate) table: u32,
    pub(crate) mapping_kind: u32,
    /// The return address that led to the frame emitted last; 0 when its pc is exact, or a frame pointer was followed
    /// on the way to it.
    pub(crate) return_address: u64,
    /// Whether a frame pointer was followed.
    pub(crate) guessed: u32,
    /// Whether the youngest frame was not made yet, or not any more.
    pub(crate) unframed: u32,
    /// Runs of `walk` so far.
    pub(crate) calls: u32,
    /// Frames in `words`, kernel frames included.
    pub(crate) frames: u32,
    /// Helper calls of this walk.
    pub(crate) helpers: u64,
    /// Address of `window`'s first byte; 1 (no stack's address) when it holds nothing.
    pub(crate) window_start: u64,
    /// Some of the user stack, and room for a masked read at its last byte.
    pub(crate) window: [u64; STACK_WINDOW_BYTES / 8 + 1],
    /// `struct pt_regs` of a thread interrupted in the kernel.
    pub(crate) saved: [u64; 21],
    /// What goes to the ring buffer.
    pub(crate) header: RecordHeader,
    pub(crate) words: [u64; RECORD_WORDS],
}

/// Adds to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter, amount: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the verifier checked the pointer; only this CPU writes the value.
        unsafe { *value += amount };
    }
}

/// Makes a counter at least so much.
#[inline(always)]
pub(crate) fn raise(counter: Counter, least: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: as in `count`.
        unsafe {
            if *value < least {
                *value = least;
            }
        }
    }
}
