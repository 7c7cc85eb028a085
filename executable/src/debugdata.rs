//! Owns the reading of `.gnu_debugdata`: an xz-compressed ELF file with the symbols that a distribution left in a
//! stripped one. The size it expands to is computed from its own chunk headers before anything is expanded.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use gimli::{BigEndian, EndianSlice, Reader};

use crate::elf::Elf;
use crate::file_bytes::FileBytes;
use crate::reason::Reason;

/// Bytes of the section.
const MAX_COMPRESSED: u64 = 16 << 20;
/// Bytes it may expand to; Fedora's largest are below 8 MB.
const MAX_EXPANDED: u64 = 64 << 20;

/// Expands the section; nothing when the file has none.
pub fn read(file: &FileBytes, elf: &Elf) -> Result<Option<FileBytes>, Reason> {
    let Some(header) = elf.section(b".gnu_debugdata") else {
        return Ok(None);
    };
    if header.size > MAX_COMPRESSED {
        return Err(Reason::TooLarge);
    }
    let compressed = file.read(header.offset, header.size)?;
    expand(&compressed).map(|bytes| Some(FileBytes::of_memory(bytes)))
}

fn expand(compressed: &[u8]) -> Result<Vec<u8>, Reason> {
    let size = expanded_size(compressed).ok_or(Reason::UnsupportedCompression)?;
    if size > MAX_EXPANDED {
        return Err(Reason::TooLarge);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(|_error| Reason::TooLarge)?);
    lzma_rs::xz_decompress(&mut &*compressed, &mut bytes)
        .map_err(|_error| Reason::UnsupportedCompression)?;
    Ok(bytes)
}

/// Adds up what the LZMA2 chunks of an xz stream say they expand to (The .xz File Format 1.1.0, sections 2 to 5.3.1).
/// The decoder expands exactly that or fails, so this is the bound.
fn expanded_size(stream: &[u8]) -> Option<u64> {
    let mut rest = EndianSlice::new(stream, BigEndian);
    let magic = rest.split(6).ok()?;
    if magic.slice() != b"\xfd7zXZ\0" {
        return None;
    }
    let [_reserved, check] = rest.read_u8_array::<[u8; 2]>().ok()?;
    // Section 2.1.1.2: sizes of the checks by their number.
    let check_size = match check & 15 {
        0 => 0,
        1..=3 => 4,
        4..=6 => 8,
        7..=9 => 16,
        10..=12 => 32,
        _ => 64,
    };
    let _crc = rest.read_u32().ok()?;
    let mut size = 0_u64;
    loop {
        let before = rest.len();
        let header_size = rest.read_u8().ok()?;
        if header_size == 0 {
            return Some(size);
        }
        // The stated size counts words and leaves the first out.
        let header_bytes = usize::from(header_size).checked_mul(4)?.checked_add(3)?;
        let mut header = rest.split(header_bytes).ok()?;
        let flags = header.read_u8().ok()?;
        if flags & 0x40 != 0 {
            let _compressed = header.read_uleb128().ok()?;
        }
        if flags & 0x80 != 0 {
            let _expanded = header.read_uleb128().ok()?;
        }
        // One filter only, and that one LZMA2: what every maker of this section uses.
        if flags & 3 != 0 || header.read_uleb128().ok()? != 0x21 {
            return None;
        }
        size = size.checked_add(chunks_size(&mut rest)?)?;
        let block = before.checked_sub(rest.len())?;
        let padding = block.checked_next_multiple_of(4)?.checked_sub(block)?;
        rest.skip(padding).ok()?;
        rest.skip(check_size).ok()?;
    }
}

/// Walks the chunks of one LZMA2 block.
fn chunks_size(rest: &mut EndianSlice<'_, BigEndian>) -> Option<u64> {
    let mut size = 0_u64;
    loop {
        let control = rest.read_u8().ok()?;
        match control {
            0 => return Some(size),
            1 | 2 => {
                let stored = u64::from(rest.read_u16().ok()?).checked_add(1)?;
                rest.skip(usize::try_from(stored).ok()?).ok()?;
                size = size.checked_add(stored)?;
            }
            0x80.. => {
                let high = u64::from(control & 0x1f) << 16;
                let low = u64::from(rest.read_u16().ok()?);
                let compressed = usize::from(rest.read_u16().ok()?).checked_add(1)?;
                if control >= 0xc0 {
                    let _properties = rest.read_u8().ok()?;
                }
                rest.skip(compressed).ok()?;
                size = size.checked_add(high | low)?.checked_add(1)?;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'hello hello hello hello\n' | xz --check=crc64`.
    fn packed() -> Vec<u8> {
        let mut packed = Vec::new();
        lzma_rs::xz_compress(&mut &b"hello hello hello hello\n"[..], &mut packed).expect("packed");
        packed
    }

    #[test]
    fn the_size_is_known_before() {
        let packed = packed();
        assert_eq!(expanded_size(&packed), Some(24));
        assert_eq!(
            expand(&packed).as_deref(),
            Ok(&b"hello hello hello hello\n"[..])
        );
    }

    #[test]
    fn every_cut_is_an_answer() {
        let packed = packed();
        for end in 0..packed.len() {
            assert_eq!(
                expand(packed.get(..end).expect("shorter")),
                Err(Reason::UnsupportedCompression),
                "{end}"
            );
        }
    }
}
