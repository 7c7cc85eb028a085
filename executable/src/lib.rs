//! One ELF file as a profiler needs it: headers, build ID, symbols, debuginfo, and the names of its addresses. It works
//! on bytes and file descriptors it was handed, opens nothing itself, and answers foreign nonsense with a value, never
//! with a panic. Two processes read so: the symbolizer to name addresses, the debuginfo-uploader to check what it sends.

#![forbid(unsafe_code)]

pub mod build_id;
pub mod debugdata;
pub mod debuglink;
pub mod demangle;
pub mod dwarf;
pub mod elf;
pub mod executable;
pub mod facts;
pub mod file_bytes;
pub mod go_pclntab;
pub mod names;
pub mod reason;
pub mod runtime;
pub mod section;
pub mod symbols;
pub mod work;
