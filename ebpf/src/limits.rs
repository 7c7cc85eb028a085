//! Every bound of the unwinder and of its kernel maps, tied together at compile time.

/// Frames of one user stack: the leaf side is kept, the rest is cut and says so.
pub const MAX_USER_FRAMES: usize = FRAMES_PER_CALL * WALK_CALLS;

/// Frames walked by one run of the `walk` program before it tail-calls itself.
///
/// 32 keep one program far below the verifier's complexity limit on every kernel since 5.10.
pub const FRAMES_PER_CALL: usize = 32;

/// Runs of the `walk` program for one sample. The kernel allows 33 tail calls (`MAX_TAIL_CALL_CNT`).
pub const WALK_CALLS: usize = 32;

/// Frames of one kernel stack (`kernel.perf_event_max_stack` defaults to 127).
pub const MAX_KERNEL_FRAMES: usize = 127;

/// Bytes of user stack carried by a sample that is finished in user space.
pub const SNAPSHOT_BYTES: usize = 16 * 1024;

/// Bytes below the stack pointer that belong to a leaf function (System V ABI, 3.2.2); a snapshot begins with them.
pub const RED_ZONE_BYTES: usize = 128;

/// Bytes of a second piece of stack: see [`SnapshotHead::further_start`](crate::abi::SnapshotHead::further_start).
pub const FURTHER_BYTES: usize = 8 * 1024;

/// Bytes of user stack that the walker reads with one helper call.
pub const STACK_WINDOW_BYTES: usize = 256;

/// Bytes of one [`Chunk`](crate::table::Chunk): with its hash element's header it fills one 2 KiB kernel object.
pub const CHUNK_BYTES: usize = 1984;

/// Text covered by one [`Region`](crate::table::Region), as a power of two: 1 MiB.
pub const REGION_BITS: u32 = 20;

/// Chunks of one region: with its hash element's header a region fills one 1 KiB kernel object.
pub const REGION_CHUNKS: usize = 119;

/// Text that one chunk may span: its rows hold 16-bit addresses.
pub const CHUNK_SPAN: u64 = 1 << 16;

/// Executable mappings in one [`MappingBlock`](crate::abi::MappingBlock).
pub const BLOCK_MAPPINGS: usize = 30;

/// Blocks of executable mappings of one process.
pub const PROCESS_BLOCKS: usize = 48;

/// Executable mappings of one process that the kernel side knows; further ones are finished in user space.
pub const MAX_MAPPINGS: usize = BLOCK_MAPPINGS * PROCESS_BLOCKS;

/// Processes the kernel side knows at once.
pub const MAX_PROCESSES: u32 = 8192;

const _: () = assert!(
    MAX_USER_FRAMES >= 256,
    "the contract promises at least 256 frames"
);
const _: () = assert!(WALK_CALLS < 33, "MAX_TAIL_CALL_CNT");
const _: () = assert!(CHUNK_BYTES / 3 < 1024, "the row search takes 10 steps");
const _: () = assert!(REGION_CHUNKS < 128, "the region search takes 7 steps");
const _: () = assert!(BLOCK_MAPPINGS < 32, "the mapping search takes 5 steps");
const _: () = assert!(PROCESS_BLOCKS < 64, "the block search takes 6 steps");
