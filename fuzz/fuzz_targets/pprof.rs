//! A profile that another tool wrote, as `leadsman report` and the page read it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _profile = pprof::read(data);
});
