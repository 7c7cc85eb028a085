//! Everything that reads other people's bytes: ELF, DWARF, symbol tables, call frame information, perf maps, kallsyms.
//! It works on bytes and file descriptors it was handed, opens nothing itself but for the inspection commands, and
//! answers foreign nonsense with a value, never with a panic.

#![forbid(unsafe_code)]

pub mod build_id;
pub mod cache;
pub mod debugdata;
pub mod debuglink;
pub mod demangle;
pub mod dwarf;
pub mod elf;
pub mod executable;
pub mod facts;
pub mod file_bytes;
pub mod fuzz;
pub mod go_pclntab;
pub mod inspect;
pub mod kernel;
pub mod names;
pub mod perf_map;
pub mod reason;
pub mod resolve;
pub mod runtime;
pub mod section;
pub mod symbols;
pub mod unwind_table;
pub mod work;
