//! An ELF file whose call frame information becomes an unwind table.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leadsman_symbolizer::fuzz::unwind_table(data));
