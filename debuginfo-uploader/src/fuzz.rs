//! The entry point of the fuzz target: takes any bytes and must come back, without a panic, in bounded time and memory.

use std::fs::File;
use std::io::Write;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::prepare::{Options, choose};

fn temporary() -> std::io::Result<File> {
    Ok(memfd_create("fuzz", MemfdFlags::CLOEXEC)?.into())
}

/// Reads the bytes as an ELF file, extracts and compresses it. Whatever is made of it says the same as the bytes.
///
/// # Panics
/// An extract was made that is larger than what it came from.
pub fn extract(data: &[u8]) {
    let Ok(mut file) = temporary() else { return };
    if file.write_all(data).is_err() {
        return;
    }
    for compress in [false, true] {
        let Ok(copy) = file.try_clone() else { return };
        let options = Options {
            strip: true,
            compress,
        };
        let Ok(chosen) = choose(copy, None) else {
            return;
        };
        let most = chosen.most_bytes();
        if let Ok(prepared) = chosen.prepare(options, temporary) {
            assert!(prepared.size <= most, "larger than what it came from");
        }
    }
}
