//! An ELF file: segments, sections, symbol tables, DWARF.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leadsman_symbolizer::fuzz::elf(data));
