//! The bytes of `.eh_frame` in an otherwise sound file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leadsman_symbolizer::fuzz::call_frames(data));
