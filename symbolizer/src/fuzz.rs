//! Owns the entry points of the fuzz targets: each takes any bytes and must come back, without a panic, in bounded
//! time and memory.

use ipc_proto::table_file::{MAX_TABLE_BYTES, TableFile};

use crate::executable::Executable;
use crate::file_bytes::FileBytes;
use crate::kernel::KernelSymbols;
use crate::perf_map::PerfMap;
use crate::unwind_table;

/// Addresses that are asked of each file.
const ADDRESSES: u64 = 64;

/// Reads the bytes as an ELF file and asks for addresses across its executable segments. Each answer has frames or a
/// reason, never both, and never neither.
pub fn elf(data: &[u8]) {
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
pub fn kallsyms(data: &[u8]) {
    if let Ok(symbols) = KernelSymbols::read(data) {
        let _function = symbols.find(symbols.start());
    }
}

/// Reads the bytes as a perf map.
pub fn perf_map(data: &[u8]) {
    let map = PerfMap::read(data);
    let _name = map.find(0x1000);
}

/// Reads the bytes as a symbol's name.
pub fn demangle(data: &[u8]) {
    let raw = String::from_utf8_lossy(data);
    let name = crate::demangle::demangle(&raw);
    assert!(name.len() <= raw.len().max(crate::names::MAX_NAME + 3));
}

/// Reads the bytes as an ELF file and builds its unwind table, which the sampler's checks then let through.
pub fn unwind_table(data: &[u8]) {
    let Ok(table) = unwind_table::build(data) else {
        return;
    };
    let bytes = table.encode();
    assert!(bytes.len() <= MAX_TABLE_BYTES);
    let checked = TableFile::open(&bytes).and_then(|table| table.check_chunks());
    assert_eq!(checked, Ok(()));
}

/// The same for the bytes of `.eh_frame` in a file that is sound otherwise.
pub fn call_frames(data: &[u8]) {
    unwind_table(&elf_with_call_frames(data, &[]));
}

/// Address of the code of [`elf_with_call_frames`].
pub const TEXT: u64 = 0x40_1000;
/// Its place in the file.
pub const TEXT_OFFSET: u64 = 0x1000;
/// Its length, bytes.
pub const TEXT_BYTES: u64 = 0x30_0000;
/// Address of `.eh_frame_hdr`, which `.eh_frame` follows.
const FRAMES_ADDRESS: u64 = 0x80_0000;

/// An ELF file without section headers: code, `.eh_frame_hdr`, `.eh_frame`. `searched` are places of entries in
/// `.eh_frame` that the search table names, all as functions at address 0.
#[must_use]
pub fn elf_with_call_frames(eh_frame: &[u8], searched: &[usize]) -> Vec<u8> {
    // DWARF's pointer encodings: .eh_frame's address and the table's entries as i32 relative to here, u32 count.
    let mut header = vec![1, 0x1b, 0x03, 0x3b];
    let header_bytes = 12 + 8 * searched.len() as u32;
    header.extend((header_bytes - 4).to_le_bytes());
    header.extend((searched.len() as u32).to_le_bytes());
    for place in searched {
        header.extend(0_u32.to_le_bytes());
        header.extend((header_bytes + *place as u32).to_le_bytes());
    }
    let frames_offset = TEXT_OFFSET + TEXT_BYTES;
    let frames_bytes = (header.len() + eh_frame.len()) as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_DYN for x86-64, three program headers behind this one.
    file.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    for field in [0_u64, 64, 0] {
        file.extend(field.to_le_bytes());
    }
    for field in [0_u16, 0, 64, 56, 3, 64, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    let header_length = header.len() as u64;
    // PT_LOAD of the code, PT_LOAD of the call frame information, PT_GNU_EH_FRAME.
    for (kind, flags, offset, address, bytes) in [
        (1_u32, 5_u32, TEXT_OFFSET, TEXT, TEXT_BYTES),
        (1, 4, frames_offset, FRAMES_ADDRESS, frames_bytes),
        (0x6474_e550, 4, frames_offset, FRAMES_ADDRESS, header_length),
    ] {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for field in [offset, address, address, bytes, bytes, 8] {
            file.extend(field.to_le_bytes());
        }
    }
    file.resize(frames_offset as usize, 0xcc);
    file.extend(header);
    file.extend(eh_frame);
    file
}
