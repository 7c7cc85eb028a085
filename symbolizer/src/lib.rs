//! Everything that names and unwinds by other people's bytes: ELF, DWARF, symbol tables, call frame information, perf
//! maps, kallsyms. It works on bytes and file descriptors it was handed, opens nothing itself but for the inspection
//! commands, and answers foreign nonsense with a value, never with a panic. What is in one ELF file is read by
//! `leadsman-executable`.

#![forbid(unsafe_code)]

pub mod cache;
pub mod fuzz;
pub mod inspect;
pub mod kernel;
pub mod perf_map;
pub mod resolve;
pub mod unwind_table;

pub use leadsman_executable::{
    build_id, debuglink, demangle, elf, executable, facts, file_bytes, names, reason, runtime,
    section, work,
};
