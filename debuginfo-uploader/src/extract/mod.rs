//! Writes what naming an executable's addresses takes into a file of its own: a copy of the executable without the bytes
//! of its code and data. All headers stay, in their order, so that numbers of sections in symbols and the way from
//! memory to ELF addresses by the program headers (`address - (start - offset + p_offset - p_vaddr)`) hold as before.
//! Holds one buffer, whatever the file's size.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

mod compare;
mod compress;

use std::fs::File;
use std::os::unix::fs::FileExt;

use leadsman_executable::file_bytes::FileBytes;

use crate::contents;
use crate::fault::Fault;
use crate::headers::{
    Class, Headers, PT_NOTE, SHF_ALLOC, SHF_COMPRESSED, SHT_NOBITS, SHT_NOTE, SHT_NULL,
    SHT_PROGBITS, SectionHeader,
};

/// Bytes that are copied or compared at a time.
pub(crate) const BUFFER: u64 = 256 << 10;
/// A section stays at its place where that leaves a gap of at most so many bytes: the notes at the file's start do, so
/// that program headers go on leading to them.
const MAX_GAP: u64 = 4096;
/// Largest alignment that is kept.
const MAX_ALIGN: u64 = 4096;
/// Sections smaller than that are not worth compressing.
const MIN_COMPRESSED: u64 = 256;

/// A section in both files.
#[derive(Clone, Copy, Debug)]
struct Kept {
    number: usize,
    original: SectionHeader,
    written: SectionHeader,
    /// Compressed on the way.
    deflated: bool,
}

/// What was written.
#[derive(Debug)]
pub(crate) struct Extract {
    /// Bytes of the extract.
    pub(crate) size: u64,
    class: Class,
    kept: Vec<Kept>,
}

/// Writes the extract of `source` to `target`, an empty file.
///
/// # Errors
/// The file's headers contradict themselves, or a file could not be read or written.
pub(crate) fn write(
    source: &FileBytes,
    headers: &Headers,
    target: &File,
    compress: bool,
) -> Result<Extract, Fault> {
    let mut order: Vec<(usize, SectionHeader)> = contents::kept(headers)
        .into_iter()
        .filter_map(|number| Some((number, *headers.sections.get(number)?)))
        .collect();
    check_bounds(source, &order)?;
    order.sort_by_key(|(_, section)| section.offset);

    let mut kept = Vec::new();
    let mut end = headers.front();
    for (number, original) in order {
        let mut written = original;
        written.offset = place(&original, end);
        let wanted = compress && is_compressible(headers, &original);
        let deflated = if wanted {
            compress::deflate(source, headers.class, &original, target, written.offset)?
        } else {
            None
        };
        match deflated {
            Some(size) => {
                written.size = size;
                written.flags |= SHF_COMPRESSED;
                // What stands at the section's start now is `Elf32_Chdr` or `Elf64_Chdr`.
                written.align = compress::alignment(headers.class);
            }
            None => copy(source, &original, target, written.offset, wanted)?,
        }
        end = written
            .offset
            .checked_add(written.size)
            .ok_or(Fault::Malformed("a section ends nowhere"))?;
        kept.push(Kept {
            number,
            original,
            written,
            deflated: deflated.is_some(),
        });
    }
    let size = write_headers(headers, &kept, target, end)?;
    Ok(Extract {
        size,
        class: headers.class,
        kept,
    })
}

impl Extract {
    /// Compares every section that was kept, byte for byte, with the file that it came from.
    ///
    /// # Errors
    /// They differ, or can't be read.
    pub(crate) fn compare(&self, source: &FileBytes, extract: &FileBytes) -> Result<(), Fault> {
        for kept in &self.kept {
            if kept.deflated {
                compare::deflated(source, &kept.original, self.class, extract, &kept.written)?;
            } else {
                compare::copied(source, &kept.original, extract, &kept.written)?;
            }
        }
        Ok(())
    }
}

/// Each section ends inside the file, and all together are no more than the file: what overlaps would make much of
/// little.
fn check_bounds(source: &FileBytes, kept: &[(usize, SectionHeader)]) -> Result<(), Fault> {
    let mut total = 0_u64;
    for (_, section) in kept {
        let end = section.offset.checked_add(section.size);
        if end.is_none_or(|end| end > source.len()) {
            return Err(Fault::Malformed("a section ends behind the file"));
        }
        total = total.saturating_add(section.size);
    }
    if total > source.len() {
        return Err(Fault::Malformed("its sections overlap"));
    }
    Ok(())
}

fn place(section: &SectionHeader, end: u64) -> u64 {
    let gap = section.offset.checked_sub(end);
    if gap.is_some_and(|gap| gap <= MAX_GAP) {
        return section.offset;
    }
    let align = section.align;
    if !align.is_power_of_two() || align > MAX_ALIGN {
        return end;
    }
    end.checked_next_multiple_of(align).unwrap_or(end)
}

fn is_compressible(headers: &Headers, section: &SectionHeader) -> bool {
    headers.name(section).starts_with(b".debug_")
        && section.kind == SHT_PROGBITS
        && section.flags & (SHF_ALLOC | SHF_COMPRESSED) == 0
        && section.size >= MIN_COMPRESSED
}

/// Copies a section. Runs of zeros become holes, unless there was something before: the file was empty, and the headers
/// behind everything make it long enough.
fn copy(
    source: &FileBytes,
    section: &SectionHeader,
    target: &File,
    offset: u64,
    overwrites: bool,
) -> Result<(), Fault> {
    let mut done = 0;
    while done < section.size {
        let length = BUFFER.min(section.size.saturating_sub(done));
        let bytes = source.read(section.offset.saturating_add(done), length)?;
        if overwrites || bytes.iter().any(|byte| *byte != 0) {
            target
                .write_all_at(&bytes, offset.saturating_add(done))
                .map_err(Fault::Write)?;
        }
        done = done.saturating_add(length);
    }
    Ok(())
}

/// Writes all header tables; returns where the file ends.
fn write_headers(headers: &Headers, kept: &[Kept], target: &File, end: u64) -> Result<u64, Fault> {
    const WIDE: Fault = Fault::Malformed("its numbers do not fit its class");
    let table = end.checked_next_multiple_of(8).ok_or(WIDE)?;
    let mut bytes = Vec::new();
    for (number, section) in headers.sections.iter().enumerate() {
        let written = kept.iter().find(|kept| kept.number == number);
        let mut header = written.map_or(*section, |kept| kept.written);
        // As objcopy --only-keep-debug has it: of its size and address, without bytes.
        if written.is_none() && header.kind != SHT_NULL {
            header.kind = SHT_NOBITS;
        }
        bytes.extend(header.encode(headers.class).ok_or(WIDE)?);
    }
    let mut headers = headers.clone();
    for (nth, segment) in headers.segments().into_iter().enumerate() {
        if segment.kind == PT_NOTE
            && let Some(offset) = moved_notes(kept, segment.offset, segment.file_size)
        {
            headers.move_segment(nth, offset).ok_or(WIDE)?;
        }
    }
    let table = if headers.sections.is_empty() {
        0
    } else {
        table
    };
    let front = headers.encode_front(table).ok_or(WIDE)?;
    target.write_all_at(&bytes, table).map_err(Fault::Write)?;
    target.write_all_at(&front, 0).map_err(Fault::Write)?;
    let size = table.saturating_add(bytes.len() as u64);
    Ok(size.max(front.len() as u64))
}

/// Where the notes of a segment are now, if all of them moved by as much.
fn moved_notes(kept: &[Kept], offset: u64, size: u64) -> Option<u64> {
    let end = offset.checked_add(size)?;
    let notes = kept.iter().filter(|kept| {
        let section = &kept.original;
        section.kind == SHT_NOTE && (offset..end).contains(&section.offset)
    });
    let mut moved = None;
    for note in notes {
        let distance = note.original.offset.checked_sub(offset)?;
        let start = note.written.offset.checked_sub(distance)?;
        if *moved.get_or_insert(start) != start {
            return None;
        }
    }
    moved
}
