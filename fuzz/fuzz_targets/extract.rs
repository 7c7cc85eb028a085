//! An ELF file: what naming its addresses takes, extracted, compressed and compared.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leadsman_debuginfo_uploader::fuzz::extract(data));
