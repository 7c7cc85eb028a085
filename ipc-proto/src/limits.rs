//! Every bound of the protocol.

/// Version that both ends of a link must speak.
pub const PROTOCOL_VERSION: u32 = 3;
/// Bytes of a message that travels inside its datagram, header included.
pub const MAX_INLINE: usize = 64 * 1024;
/// Bytes of a body in a sealed memfd: a symbolized window of a large machine.
pub const MAX_BODY: usize = 64 * 1024 * 1024;
/// Bytes of a serialized unwind table in a sealed memfd.
pub const MAX_TABLE: usize = 256 * 1024 * 1024;
/// File descriptors of one message, a body's memfd included.
pub const MAX_FDS: usize = 2;
/// Frames of one stack, kernel and user together.
pub const MAX_FRAMES: usize = 1280;
/// Frames of one kernel stack.
pub const MAX_KERNEL_FRAMES: usize = 127;
/// Bytes of user stack in a snapshot.
pub const MAX_SNAPSHOT: usize = 16 * 1024;
/// Bytes of the second piece of stack of a snapshot.
pub const MAX_FURTHER: usize = 8 * 1024;
/// Stacks of one batch message.
pub const MAX_STACKS: usize = 4096;
/// Mappings of one message.
pub const MAX_MAPPINGS: usize = 512;
/// Cgroups of one window whose paths are told.
pub const MAX_CGROUPS: usize = 4096;
/// Bytes of a path.
pub const MAX_PATH: usize = 4096;
/// Bytes of a build ID: GNU's have 20 (`PERF_RECORD_MISC_MMAP_BUILD_ID` carries as many), Go's are text of 83.
pub const MAX_BUILD_ID: usize = 128;
/// Bytes of a function name, a file name or another string of a symbolized batch.
pub const MAX_STRING: usize = 4096;
/// Metrics of one statistics message.
pub const MAX_METRICS: usize = 512;
/// Labels of one metric.
pub const MAX_LABELS: usize = 8;
/// Buckets of one histogram.
pub const MAX_BUCKETS: usize = 16;
/// Bytes of a metric's name, label or help text.
pub const MAX_METRIC_TEXT: usize = 256;
/// Entries of each table of a symbolized batch.
pub const MAX_TABLE_ENTRIES: usize = 4 * 1024 * 1024;
