//! Compresses one section on its way into the extract, as `SHF_COMPRESSED` wants it (ELF gABI, "Section Compression").

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use leadsman_executable::file_bytes::FileBytes;

use super::BUFFER;
use crate::fault::Fault;
use crate::headers::{Class, SectionHeader};

const ELFCOMPRESS_ZLIB: u32 = 1;

/// Writes on at a place of a file.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.offset)?;
        self.offset = self.offset.saturating_add(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the compressed section to `offset`; returns its size, or nothing when that would be no smaller: what was
/// written is then to be overwritten.
pub(super) fn deflate(
    source: &FileBytes,
    class: Class,
    section: &SectionHeader,
    target: &File,
    offset: u64,
) -> Result<Option<u64>, Fault> {
    let Some(header) = header(class, section) else {
        return Ok(None);
    };
    let mut start = At {
        file: target,
        offset,
    };
    start.write_all(&header).map_err(Fault::Write)?;
    let mut encoder = ZlibEncoder::new(start, Compression::default());
    let mut done = 0;
    while done < section.size {
        let length = BUFFER.min(section.size.saturating_sub(done));
        let bytes = source.read(section.offset.saturating_add(done), length)?;
        encoder.write_all(&bytes).map_err(Fault::Write)?;
        done = done.saturating_add(length);
    }
    let end = encoder.finish().map_err(Fault::Write)?.offset;
    let size = end.saturating_sub(offset);
    Ok((size < section.size).then_some(size))
}

/// `Elf32_Chdr` or `Elf64_Chdr`.
fn header(class: Class, section: &SectionHeader) -> Option<Vec<u8>> {
    let mut bytes = ELFCOMPRESS_ZLIB.to_le_bytes().to_vec();
    match class {
        Class::Elf32 => {
            bytes.extend(u32::try_from(section.size).ok()?.to_le_bytes());
            bytes.extend(u32::try_from(section.align).ok()?.to_le_bytes());
        }
        Class::Elf64 => {
            bytes.extend([0; 4]);
            bytes.extend(section.size.to_le_bytes());
            bytes.extend(section.align.to_le_bytes());
        }
    }
    Some(bytes)
}

/// Bytes of the header before the compressed ones.
pub(super) const fn header_size(class: Class) -> u64 {
    match class {
        Class::Elf32 => 12,
        Class::Elf64 => 24,
    }
}

/// Alignment of that header.
pub(super) const fn alignment(class: Class) -> u64 {
    match class {
        Class::Elf32 => 4,
        Class::Elf64 => 8,
    }
}
