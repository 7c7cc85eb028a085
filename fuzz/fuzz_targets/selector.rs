//! A selector that somebody typed into the page.
#![no_main]

#[path = "../../viewer/src/selector.rs"]
#[allow(dead_code, reason = "the page's server matches by it, this only parses")]
mod selector;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = str::from_utf8(data) {
        let _selector = selector::Selector::parse(text);
    }
});
