//! Owns the bytes of one section: read piece by piece from the file, or expanded in memory when it is compressed
//! (SHF_COMPRESSED with zlib or zstd, `.zdebug`). What it expands is bounded before it is allocated.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::borrow::Cow;
use std::io::Read as _;
use std::sync::Arc;

use gimli::{EndianSlice, LittleEndian, Reader};

use crate::elf::{Class, Elf, SHF_COMPRESSED, SectionHeader};
use crate::file_bytes::FileBytes;
use crate::reason::Reason;

/// Bytes of one section after it was expanded.
pub const MAX_EXPANDED: u64 = 256 << 20;
/// Expanded bytes for one compressed byte. Debuginfo reaches about 10, constant bytes reach 1032.
const MAX_RATIO: u64 = 200;
/// Below this size every ratio is harmless.
const ALWAYS_ALLOWED: u64 = 1 << 20;
/// Bytes of a zero-terminated string.
pub const MAX_STRING: usize = 64 << 10;

const ELFCOMPRESS_ZLIB: u32 = 1;
const ELFCOMPRESS_ZSTD: u32 = 2;

/// The bytes of a section, in their expanded form.
#[derive(Clone, Debug)]
pub struct Section {
    bytes: Arc<FileBytes>,
    offset: u64,
    len: u64,
}

impl Section {
    /// A section without bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::of_memory(Vec::new())
    }

    /// A section whose bytes are in memory.
    #[must_use]
    pub fn of_memory(bytes: Vec<u8>) -> Self {
        Self {
            offset: 0,
            len: bytes.len() as u64,
            bytes: Arc::new(FileBytes::of_memory(bytes)),
        }
    }

    /// Opens a section; a compressed one is expanded now, one of at most `load_below` bytes is read now.
    pub fn open(
        file: &Arc<FileBytes>,
        class: Class,
        header: &SectionHeader,
        load_below: u64,
    ) -> Result<Self, Reason> {
        let end = header
            .offset
            .checked_add(header.size)
            .ok_or(Reason::Malformed)?;
        if end > file.len() {
            return Err(Reason::Truncated);
        }
        if header.flags & SHF_COMPRESSED != 0 {
            return expand(&file.read(header.offset, header.size)?, class).map(Self::of_memory);
        }
        let section = Self {
            bytes: Arc::clone(file),
            offset: header.offset,
            len: header.size,
        };
        if header.size <= load_below {
            return Ok(Self::of_memory(section.read(0, header.size)?.into_owned()));
        }
        Ok(section)
    }

    /// Opens `.debug_NAME`, or `.zdebug_NAME` as GNU tools of before 2015 compressed it; nothing when there is neither.
    pub fn open_debug(
        file: &Arc<FileBytes>,
        elf: &Elf,
        name: &str,
        load_below: u64,
    ) -> Result<Option<Self>, Reason> {
        if let Some(header) = elf.section(format!(".debug_{name}").as_bytes()) {
            return Self::open(file, elf.class(), header, load_below).map(Some);
        }
        let Some(header) = elf.section(format!(".zdebug_{name}").as_bytes()) else {
            return Ok(None);
        };
        let bytes = file.read(header.offset, header.size)?;
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(Reason::Truncated)?;
        let (size, rest) = rest.split_first_chunk::<8>().ok_or(Reason::Truncated)?;
        if magic != b"ZLIB" {
            return Err(Reason::UnsupportedCompression);
        }
        inflate(rest, u64::from_be_bytes(*size)).map(|bytes| Some(Self::of_memory(bytes)))
    }

    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether reading it costs no system call.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.bytes.heap_bytes() > 0
    }

    /// Bytes of memory this holds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.bytes.heap_bytes()
    }

    /// Exactly `len` bytes from `offset` on.
    pub fn read(&self, offset: u64, len: u64) -> Result<Cow<'_, [u8]>, Reason> {
        let end = offset.checked_add(len).ok_or(Reason::Malformed)?;
        if end > self.len {
            return Err(Reason::Truncated);
        }
        let start = self.offset.checked_add(offset).ok_or(Reason::Malformed)?;
        self.bytes.read(start, len)
    }

    /// Up to `len` bytes from `offset` on, at least one.
    pub fn read_up_to(&self, offset: u64, len: u64) -> Result<Cow<'_, [u8]>, Reason> {
        match self.len.checked_sub(offset) {
            None | Some(0) => Err(Reason::Truncated),
            Some(left) => self.read(offset, len.min(left)),
        }
    }

    /// Lets `parse` look at the bytes from `offset` on; with more of them when it ran out of them.
    pub fn parse<T>(
        &self,
        offset: u64,
        first: u64,
        mut parse: impl FnMut(EndianSlice<'_, LittleEndian>) -> gimli::Result<T>,
    ) -> Result<T, Reason> {
        let left = self.len.checked_sub(offset).ok_or(Reason::Malformed)?;
        let mut len = first.min(left);
        loop {
            let bytes = self.read(offset, len)?;
            match parse(EndianSlice::new(&bytes, LittleEndian)) {
                Ok(value) => return Ok(value),
                Err(gimli::Error::UnexpectedEof(_)) if len < left => {
                    len = len.saturating_mul(8).max(4096).min(left);
                }
                Err(_error) => return Err(Reason::DebuginfoDamaged),
            }
        }
    }

    /// The zero-terminated string at `offset`, without its zero.
    pub fn string(&self, offset: u64) -> Result<Cow<'_, [u8]>, Reason> {
        let mut len = 128;
        loop {
            let bytes = self.read_up_to(offset, len)?;
            if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
                return Ok(match bytes {
                    Cow::Borrowed(bytes) => {
                        Cow::Borrowed(bytes.get(..end).ok_or(Reason::Malformed)?)
                    }
                    Cow::Owned(mut bytes) => {
                        bytes.truncate(end);
                        Cow::Owned(bytes)
                    }
                });
            }
            if len >= MAX_STRING as u64 || (bytes.len() as u64) < len {
                return Err(Reason::Malformed);
            }
            len = len.saturating_mul(8).min(MAX_STRING as u64);
        }
    }
}

/// Expands an SHF_COMPRESSED section (`Elf32_Chdr`, `Elf64_Chdr`).
fn expand(bytes: &[u8], class: Class) -> Result<Vec<u8>, Reason> {
    let mut fields = EndianSlice::new(bytes, LittleEndian);
    let header = |fields: &mut EndianSlice<'_, LittleEndian>| -> gimli::Result<(u32, u64)> {
        let kind = fields.read_u32()?;
        let size = match class {
            Class::Elf32 => {
                let size = fields.read_u32()?;
                fields.skip(4)?;
                u64::from(size)
            }
            Class::Elf64 => {
                fields.skip(4)?;
                let size = fields.read_u64()?;
                fields.skip(8)?;
                size
            }
        };
        Ok((kind, size))
    };
    let (kind, size) = header(&mut fields).map_err(|_eof| Reason::Truncated)?;
    match kind {
        ELFCOMPRESS_ZLIB => inflate(fields.slice(), size),
        ELFCOMPRESS_ZSTD => expand_zstd(fields.slice(), size),
        _ => Err(Reason::UnsupportedCompression),
    }
}

fn check_size(compressed: &[u8], size: u64) -> Result<(), Reason> {
    if size > MAX_EXPANDED {
        return Err(Reason::DebuginfoTooLarge);
    }
    if size > ALWAYS_ALLOWED && size > (compressed.len() as u64).saturating_mul(MAX_RATIO) {
        return Err(Reason::UnsupportedCompression);
    }
    Ok(())
}

fn take_exactly(reader: impl std::io::Read, size: u64) -> Result<Vec<u8>, Reason> {
    let capacity = usize::try_from(size).map_err(|_error| Reason::DebuginfoTooLarge)?;
    let mut bytes = Vec::with_capacity(capacity);
    reader
        .take(size)
        .read_to_end(&mut bytes)
        .map_err(|_error| Reason::UnsupportedCompression)?;
    if bytes.len() != capacity {
        return Err(Reason::Truncated);
    }
    Ok(bytes)
}

fn inflate(compressed: &[u8], size: u64) -> Result<Vec<u8>, Reason> {
    check_size(compressed, size)?;
    take_exactly(flate2::read::ZlibDecoder::new(compressed), size)
}

fn expand_zstd(compressed: &[u8], size: u64) -> Result<Vec<u8>, Reason> {
    check_size(compressed, size)?;
    let decoder = ruzstd::decoding::StreamingDecoder::new(compressed)
        .map_err(|_error| Reason::UnsupportedCompression)?;
    take_exactly(decoder, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn chdr(kind: u32, size: u64, data: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(size.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
        bytes.extend(data);
        bytes
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).expect("write");
        encoder.finish().expect("finish")
    }

    #[test]
    fn expands_what_it_says_and_nothing_else() {
        let data: Vec<u8> = (0..40_000_u32).flat_map(u32::to_le_bytes).collect();
        let packed = zlib(&data);
        let size = data.len() as u64;
        assert_eq!(expand(&chdr(1, size, &packed), Class::Elf64), Ok(data));
        assert_eq!(
            expand(&chdr(1, size + 1, &packed), Class::Elf64),
            Err(Reason::Truncated)
        );
        assert_eq!(
            expand(&chdr(9, size, &packed), Class::Elf64),
            Err(Reason::UnsupportedCompression)
        );
        assert_eq!(
            expand(
                &chdr(1, size, packed.get(..40).expect("longer")),
                Class::Elf64
            ),
            Err(Reason::UnsupportedCompression)
        );
    }

    #[test]
    fn bombs_are_refused_before_they_expand() {
        let packed = zlib(&vec![0; 8 << 20]);
        assert_eq!(
            expand(&chdr(1, 8 << 20, &packed), Class::Elf64),
            Err(Reason::UnsupportedCompression)
        );
        assert_eq!(
            expand(&chdr(1, u64::MAX, &packed), Class::Elf64),
            Err(Reason::DebuginfoTooLarge)
        );
    }

    #[test]
    fn strings_end_at_their_zero_or_are_malformed() {
        let mut bytes = b"one\0two\0".to_vec();
        bytes.extend([b'x'; 1000]);
        let section = Section::of_memory(bytes);
        assert_eq!(section.string(4).as_deref(), Ok(&b"two"[..]));
        assert_eq!(section.string(9), Err(Reason::Malformed));
        assert_eq!(section.string(5000), Err(Reason::Truncated));
    }
}
