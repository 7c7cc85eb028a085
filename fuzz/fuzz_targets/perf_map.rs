//! The perf map of a process.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leadsman_symbolizer::fuzz::perf_map(data));
