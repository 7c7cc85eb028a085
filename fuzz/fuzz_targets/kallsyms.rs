//! The kernel's symbols.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leadsman_symbolizer::fuzz::kallsyms(data));
