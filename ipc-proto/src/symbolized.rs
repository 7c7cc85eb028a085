//! Symbolizer to shipper: a window with names. Tables are referred to by index, in the manner of pprof.

use crate::codec::{Bytes, List};
use crate::ids::{BuildId, Pid, Tid, WindowId};
use crate::limits::{MAX_CGROUPS, MAX_FRAMES, MAX_STRING, MAX_TABLE_ENTRIES};
use crate::sample::{CgroupPath, Drop, Taken};
use crate::{messages, wire_enum, wire_struct};

messages! {
    /// What the symbolizer says to the shipper.
    pub enum SymbolizedMessage {
        /// A window, or a part of one.
        Batch(SymbolizedBatch) = 1,
    }
}

messages! {
    /// What the shipper answers.
    pub enum ShipperMessage {
        /// The window was stored, or dropped and counted: the symbolizer need not keep it.
        Taken(Taken) = 1,
    }
}

/// Index that refers to nothing.
pub const NONE: u32 = u32::MAX;

wire_struct! {
    /// A window with names.
    pub struct SymbolizedBatch {
        /// The window.
        pub window: WindowId,
        /// Its start, CLOCK_REALTIME nanoseconds.
        pub start: u64,
        /// Its length, nanoseconds.
        pub duration: u64,
        /// Samples a second and CPU.
        pub frequency: u32,
        /// Samples dropped on the way to here, by cause.
        pub drops: List<Drop, 64>,
        /// Strings the other tables refer to; 0 is "".
        pub strings: List<Bytes<MAX_STRING>, MAX_TABLE_ENTRIES>,
        /// Mappings the locations refer to.
        pub mappings: List<SymbolizedMapping, MAX_TABLE_ENTRIES>,
        /// Locations the samples refer to.
        pub locations: List<Location, MAX_TABLE_ENTRIES>,
        /// Main executables of the processes, as far as their files could be read.
        pub executables: List<SymbolizedExecutable, MAX_TABLE_ENTRIES>,
        /// Those cgroups of the samples whose paths are known from their making.
        pub cgroups: List<CgroupPath, MAX_CGROUPS>,
        /// Process images the samples refer to.
        pub processes: List<SymbolizedProcess, MAX_TABLE_ENTRIES>,
        /// The samples.
        pub samples: List<SymbolizedSample, MAX_TABLE_ENTRIES>,
        /// Whether the sampler ended with this window.
        pub last: bool,
    }
}

wire_struct! {
    /// A mapping.
    pub struct SymbolizedMapping {
        /// First address.
        pub start: u64,
        /// First address behind it.
        pub end: u64,
        /// File offset of `start`.
        pub file_offset: u64,
        /// Path, `[kernel.kallsyms]`, `[vdso]`, `jit` or another bracketed name: a string's index.
        pub file: u32,
        /// Build ID; empty when there is none.
        pub build_id: BuildId,
    }
}

wire_enum! {
    /// What kind of code a location is.
    pub enum LocationKind {
        /// Native user code.
        Native = 0 => "native",
        /// The kernel.
        Kernel = 1 => "kernel",
        /// The vDSO.
        Vdso = 2 => "vdso",
        /// Generated code.
        Jit = 3 => "jit",
        /// An interpreted function.
        Interpreted = 4 => "interpreted",
        /// No code: says how the walk of the stack ended.
        Stop = 5 => "stop",
    }
}

wire_struct! {
    /// A place in code.
    pub struct Location {
        /// A [`LocationKind`] number.
        pub kind: u8,
        /// Index of its mapping, or [`NONE`].
        pub mapping: u32,
        /// Where it ran (a call's address for callers); 0 for kinds without one.
        pub address: u64,
        /// The same as address of the ELF file; equals `address` where there is no file, 0 where the file is not known
        /// well enough.
        pub elf_address: u64,
        /// Functions, innermost first; empty when it has no name.
        pub lines: List<Line, 256>,
        /// Why it has no name: a string's index (0: it has one).
        pub reason: u32,
    }
}

wire_struct! {
    /// A function at a location.
    pub struct Line {
        /// Demangled name: a string's index.
        pub function: u32,
        /// Name as in the file's symbol table: a string's index.
        pub system_name: u32,
        /// Source file: a string's index, 0 when unknown.
        pub file: u32,
        /// Line, 0 when unknown.
        pub line: u32,
    }
}

wire_struct! {
    /// A process image.
    pub struct SymbolizedProcess {
        /// The process.
        pub pid: Pid,
        /// Its start, CLOCK_BOOTTIME nanoseconds; 0 when unknown.
        pub start_time: u64,
        /// Parent process; 0 when unknown.
        pub parent: Pid,
        /// Its name: a string's index.
        pub comm: u32,
        /// Index of the main executable's mapping, or [`NONE`].
        pub executable: u32,
        /// What the main executable's file says: its place in `executables`, counted from 1; 0 when unknown.
        pub facts: u32,
        /// The language runtime it runs, as `python`: a string's index, 0 when it is none that is known.
        pub runtime: u32,
        /// That runtime's version: a string's index, 0 when unknown.
        pub runtime_version: u32,
    }
}

wire_struct! {
    /// What an executable's file says of itself.
    pub struct SymbolizedExecutable {
        /// First half of the SHA-256 of its first and last 4,096 bytes and its size (8 bytes, most significant first).
        pub file_id: [u8; 16],
        /// Compiler and version, as `GCC 12.2.0`: a string's index, 0 when unknown.
        pub compiler: u32,
        /// Whether it needs no shared library.
        pub is_static: bool,
        /// Whether it has no symbol table.
        pub is_stripped: bool,
    }
}

wire_struct! {
    /// Equal stacks of one thread.
    pub struct SymbolizedSample {
        /// Index of the process.
        pub process: u32,
        /// The thread.
        pub tid: Tid,
        /// The thread's name: a string's index.
        pub thread_name: u32,
        /// The cgroup2 directory's inode number.
        pub cgroup: u64,
        /// How many samples.
        pub count: u64,
        /// A `StopReason` number.
        pub stop: u8,
        /// Indexes of the locations, leaf first. A stack that is not whole ends in a location of kind
        /// [`LocationKind::Stop`].
        pub locations: List<u32, MAX_FRAMES>,
    }
}
