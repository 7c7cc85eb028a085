//! The head of a request to the page's server.
#![no_main]

#[path = "../../viewer/src/http/request.rs"]
#[allow(dead_code, reason = "the server answers it, this only parses")]
mod request;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(Some((_, bytes))) = request::parse(data) {
        assert!(bytes <= data.len());
    }
});
