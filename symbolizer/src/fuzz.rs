//! Owns the entry points of the fuzz targets: each takes any bytes and must come back, without a panic, in bounded
//! time and memory.

use crate::demangle::demangle;
use crate::executable::Executable;
use crate::file_bytes::FileBytes;
use crate::kernel::KernelSymbols;
use crate::perf_map::PerfMap;

/// Addresses that are asked of each file.
const ADDRESSES: u64 = 64;

/// Reads the bytes as an ELF file and asks for addresses across its executable segments. Each answer has frames or a
/// reason, never both, and never neither.
pub fn fuzz_elf(data: &[u8]) {
    let Ok(mut executable) = Executable::read(FileBytes::of_memory(data)) else {
        return;
    };
    let _wanted = executable.debug_files_wanted();
    let segments = executable.elf().segments().to_vec();
    for segment in segments.iter().filter(|segment| segment.executable).take(4) {
        let step = (segment.memory_size / ADDRESSES).max(1);
        for index in 0..ADDRESSES {
            let address = segment.address.saturating_add(index.saturating_mul(step));
            let resolved = executable.frames(address);
            assert_eq!(resolved.frames.is_empty(), resolved.reason.is_some());
            if let Some(last) = resolved.frames.last() {
                assert!(!last.inlined, "the outermost frame is inlined nowhere");
            }
        }
    }
}

/// Reads the bytes as kallsyms.
pub fn fuzz_kallsyms(data: &[u8]) {
    if let Ok(symbols) = KernelSymbols::read(data) {
        let _function = symbols.find(symbols.start());
    }
}

/// Reads the bytes as a perf map.
pub fn fuzz_perf_map(data: &[u8]) {
    let map = PerfMap::read(data);
    let _name = map.find(0x1000);
}

/// Reads the bytes as a symbol's name.
pub fn fuzz_demangle(data: &[u8]) {
    let raw = String::from_utf8_lossy(data);
    let name = demangle(&raw);
    assert!(name.len() <= raw.len().max(crate::names::MAX_NAME + 3));
}
