//! Owns the ELF headers of a file: segments, sections, build ID, and the way between ELF addresses and file offsets.
//! It reads headers only; what the sections hold is read by whoever needs it.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use gimli::{EndianSlice, LittleEndian, Reader};

use crate::build_id::BuildId;
use crate::file_bytes::FileBytes;
use crate::reason::Reason;

/// Program headers that are read; linkers make about ten.
const MAX_PROGRAM_HEADERS: u64 = 4096;
/// Section headers that are read; linked files have about forty.
const MAX_SECTION_HEADERS: u64 = 1 << 16;
/// Bytes of section names that are read.
const MAX_SECTION_NAMES: u64 = 4 << 20;
/// Bytes of one note section or segment that are read.
const MAX_NOTES: u64 = 64 << 10;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const SHT_NOTE: u32 = 7;
/// `SHT_NOBITS`: the section takes no bytes of the file.
pub const SHT_NOBITS: u32 = 8;
/// `SHF_EXECINSTR`.
pub const SHF_EXECINSTR: u64 = 4;
/// `SHF_COMPRESSED`.
pub const SHF_COMPRESSED: u64 = 1 << 11;
/// `e_phnum` of a file with so many program headers that section 0 says how many; none of ours has.
const PN_XNUM: u16 = 0xffff;
/// `e_shstrndx` of a file with so many sections that section 0 says which one has the names.
const SHN_XINDEX: u16 = 0xffff;

/// Width of addresses in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// ELFCLASS32.
    Elf32,
    /// ELFCLASS64.
    Elf64,
}

/// A PT_LOAD segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// ELF address of its first byte.
    pub address: u64,
    /// Its place in the file.
    pub file_offset: u64,
    /// Bytes of it that the file has.
    pub file_size: u64,
    /// Bytes of it in memory.
    pub memory_size: u64,
    /// Whether it is mapped executable.
    pub executable: bool,
}

impl Segment {
    /// Whether an ELF address is inside.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        address
            .checked_sub(self.address)
            .is_some_and(|distance| distance < self.memory_size)
    }
}

/// A section header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionHeader {
    name: u32,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// ELF address, 0 when it is not loaded.
    pub address: u64,
    /// Place in the file.
    pub offset: u64,
    /// Bytes (in the file, compressed or not).
    pub size: u64,
    /// `sh_link`: index of the section that belongs to this one.
    pub link: u32,
    /// `sh_info`.
    info: u32,
}

/// The headers of an ELF file.
#[derive(Debug)]
pub struct Elf {
    class: Class,
    /// `e_machine`.
    pub machine: u16,
    segments: Vec<Segment>,
    sections: Vec<SectionHeader>,
    section_names: Vec<u8>,
    build_id: Option<BuildId>,
}

type Fields<'a> = EndianSlice<'a, LittleEndian>;

/// Reads a field of 4 bytes in 32-bit files and of 8 bytes in 64-bit ones.
fn word(fields: &mut Fields<'_>, class: Class) -> gimli::Result<u64> {
    match class {
        Class::Elf32 => fields.read_u32().map(u64::from),
        Class::Elf64 => fields.read_u64(),
    }
}

/// Where the header tables are (the end of `Elf32_Ehdr`/`Elf64_Ehdr`).
struct Tables {
    machine: u16,
    program_offset: u64,
    section_offset: u64,
    program_size: u16,
    program_count: u16,
    section_size: u16,
    section_count: u16,
    names_index: u16,
}

impl Tables {
    fn read(fields: &mut Fields<'_>, class: Class) -> gimli::Result<Self> {
        let _kind = fields.read_u16()?;
        let machine = fields.read_u16()?;
        let _version = fields.read_u32()?;
        let _entry = word(fields, class)?;
        let program_offset = word(fields, class)?;
        let section_offset = word(fields, class)?;
        let _flags = fields.read_u32()?;
        let _header_size = fields.read_u16()?;
        Ok(Self {
            machine,
            program_offset,
            section_offset,
            program_size: fields.read_u16()?,
            program_count: fields.read_u16()?,
            section_size: fields.read_u16()?,
            section_count: fields.read_u16()?,
            names_index: fields.read_u16()?,
        })
    }
}

/// A program header as far as it is used.
struct ProgramHeader {
    kind: u32,
    segment: Segment,
}

impl ProgramHeader {
    fn read(fields: &mut Fields<'_>, class: Class) -> gimli::Result<Self> {
        let kind = fields.read_u32()?;
        let mut flags = 0;
        if class == Class::Elf64 {
            flags = fields.read_u32()?;
        }
        let file_offset = word(fields, class)?;
        let address = word(fields, class)?;
        let _physical = word(fields, class)?;
        let file_size = word(fields, class)?;
        let memory_size = word(fields, class)?;
        if class == Class::Elf32 {
            flags = fields.read_u32()?;
        }
        Ok(Self {
            kind,
            segment: Segment {
                address,
                file_offset,
                file_size,
                memory_size,
                executable: flags & PF_X != 0,
            },
        })
    }
}

impl SectionHeader {
    fn read(fields: &mut Fields<'_>, class: Class) -> gimli::Result<Self> {
        Ok(Self {
            name: fields.read_u32()?,
            kind: fields.read_u32()?,
            flags: word(fields, class)?,
            address: word(fields, class)?,
            offset: word(fields, class)?,
            size: word(fields, class)?,
            link: fields.read_u32()?,
            info: fields.read_u32()?,
        })
    }
}

/// Reads a table of headers of `size` bytes each.
fn table<T>(
    file: &FileBytes,
    (offset, size, count): (u64, u16, u64),
    smallest: u16,
    read: impl Fn(&mut Fields<'_>) -> gimli::Result<T>,
) -> Result<Vec<T>, Reason> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if size < smallest {
        return Err(Reason::Malformed);
    }
    let bytes = file.read(
        offset,
        count
            .checked_mul(u64::from(size))
            .ok_or(Reason::Malformed)?,
    )?;
    bytes
        .chunks_exact(usize::from(size))
        .map(|header| {
            read(&mut EndianSlice::new(header, LittleEndian)).map_err(|_eof| Reason::Malformed)
        })
        .collect()
}

impl Elf {
    /// Reads the headers. A file without readable section headers is still an ELF file: it has segments.
    pub fn read(file: &FileBytes) -> Result<Self, Reason> {
        let header = file.read_up_to(0, 64)?;
        if !header.starts_with(b"\x7fELF") {
            return Err(Reason::NotElf);
        }
        let class = match header.get(4) {
            Some(1) => Class::Elf32,
            Some(2) => Class::Elf64,
            Some(_) => return Err(Reason::UnsupportedElf),
            None => return Err(Reason::Truncated),
        };
        // EI_DATA 1 is little endian, EI_VERSION has been 1 ever since.
        match header.get(5..7) {
            Some([1, 1]) => {}
            Some(_) => return Err(Reason::UnsupportedElf),
            None => return Err(Reason::Truncated),
        }
        let rest = header.get(16..).ok_or(Reason::Truncated)?;
        let tables = Tables::read(&mut EndianSlice::new(rest, LittleEndian), class)
            .map_err(|_eof| Reason::Truncated)?;

        let (program_smallest, section_smallest) = match class {
            Class::Elf32 => (32, 40),
            Class::Elf64 => (56, 64),
        };
        if tables.program_count == PN_XNUM || u64::from(tables.program_count) > MAX_PROGRAM_HEADERS
        {
            return Err(Reason::TooLarge);
        }
        let program_headers = table(
            file,
            (
                tables.program_offset,
                tables.program_size,
                tables.program_count.into(),
            ),
            program_smallest,
            |fields| ProgramHeader::read(fields, class),
        )?;
        let sections = Self::read_sections(file, class, &tables, section_smallest);
        let (sections, section_names) = match sections {
            Ok(sections) => sections,
            // Loaders need no sections: without them there are no names, and nothing else is lost.
            Err(Reason::Truncated | Reason::Malformed) if !program_headers.is_empty() => {
                (Vec::new(), Vec::new())
            }
            Err(reason) => return Err(reason),
        };
        let mut segments: Vec<_> = program_headers
            .iter()
            .filter(|header| header.kind == PT_LOAD)
            .map(|header| header.segment)
            .collect();
        segments.sort_by_key(|segment| segment.address);
        let mut elf = Self {
            class,
            machine: tables.machine,
            segments,
            sections,
            section_names,
            build_id: None,
        };
        elf.build_id = elf.find_build_id(file, &program_headers);
        Ok(elf)
    }

    fn read_sections(
        file: &FileBytes,
        class: Class,
        tables: &Tables,
        smallest: u16,
    ) -> Result<(Vec<SectionHeader>, Vec<u8>), Reason> {
        if tables.section_offset == 0 {
            return Ok((Vec::new(), Vec::new()));
        }
        let read = |count| {
            table(
                file,
                (tables.section_offset, tables.section_size, count),
                smallest,
                |fields| SectionHeader::read(fields, class),
            )
        };
        // A count of zero with a table: section 0's size is the count (ELF gABI, "Section header").
        let count = match tables.section_count {
            0 => read(1)?.first().map_or(0, |first| first.size),
            count => count.into(),
        };
        if count > MAX_SECTION_HEADERS {
            return Err(Reason::TooLarge);
        }
        let sections = read(count)?;
        let names_index = match tables.names_index {
            SHN_XINDEX => sections.first().map_or(0, |first| first.link),
            index => index.into(),
        };
        let names = match sections.get(names_index as usize) {
            Some(header) if header.kind != SHT_NOBITS => file
                .read(header.offset, header.size.min(MAX_SECTION_NAMES))?
                .into_owned(),
            _ => Vec::new(),
        };
        Ok((sections, names))
    }

    fn find_build_id(
        &self,
        file: &FileBytes,
        program_headers: &[ProgramHeader],
    ) -> Option<BuildId> {
        let segments = program_headers
            .iter()
            .filter(|header| header.kind == PT_NOTE)
            .map(|header| (header.segment.file_offset, header.segment.file_size));
        let sections = self
            .sections
            .iter()
            .filter(|header| header.kind == SHT_NOTE)
            .map(|header| (header.offset, header.size));
        // A debug file's program headers are those of the stripped file, its sections are its own: sections first.
        sections
            .chain(segments)
            .take(64)
            .find_map(|(offset, size)| {
                let notes = file.read(offset, size.min(MAX_NOTES)).ok()?;
                BuildId::of_notes(&notes)
            })
    }

    /// Width of addresses.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// The build ID, when there is one.
    #[must_use]
    pub fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// PT_LOAD segments, ascending by address.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The first section of that name that has bytes in the file.
    #[must_use]
    pub fn section(&self, name: &[u8]) -> Option<&SectionHeader> {
        self.sections
            .iter()
            .find(|header| header.kind != SHT_NOBITS && self.section_name(header) == Some(name))
    }

    /// The section with that index.
    #[must_use]
    pub fn section_at(&self, index: u32) -> Option<&SectionHeader> {
        self.sections.get(usize::try_from(index).ok()?)
    }

    fn section_name(&self, header: &SectionHeader) -> Option<&[u8]> {
        self.section_names
            .get(usize::try_from(header.name).ok()?..)?
            .split(|byte| *byte == 0)
            .next()
    }

    /// Whether an address may be code. Without segments (a debug file made by some tools) every address may.
    #[must_use]
    pub fn is_text(&self, address: u64) -> bool {
        self.segments.is_empty()
            || self
                .segments
                .iter()
                .any(|segment| segment.executable && segment.contains(address))
    }

    /// The ELF address of a place in the file; the executable segment wins where two show the same bytes.
    #[must_use]
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        let address = |segment: &&Segment| {
            let distance = file_offset.checked_sub(segment.file_offset)?;
            (distance < segment.file_size)
                .then_some(distance)
                .and_then(|distance| segment.address.checked_add(distance))
        };
        let mut loaded = self.segments.iter().filter(|segment| segment.executable);
        let mut others = self.segments.iter().filter(|segment| !segment.executable);
        loaded
            .find_map(|segment| address(&segment))
            .or_else(|| others.find_map(|segment| address(&segment)))
    }

    /// The place in the file of an ELF address.
    #[must_use]
    pub fn file_offset_of(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let distance = address.checked_sub(segment.address)?;
            (distance < segment.file_size)
                .then_some(distance)
                .and_then(|distance| segment.file_offset.checked_add(distance))
        })
    }

    /// Bytes of memory this holds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of_val(self.segments.as_slice())
            .saturating_add(size_of_val(self.sections.as_slice()))
            .saturating_add(self.section_names.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> FileBytes {
        let file = std::fs::File::open("/proc/self/exe").expect("own executable");
        FileBytes::of_file(file).expect("regular file")
    }

    #[test]
    fn addresses_and_file_offsets_are_inverse_in_our_own_text() {
        let elf = Elf::read(&own()).expect("ELF");
        let text = elf.section(b".text").expect(".text");
        assert!(elf.is_text(text.address));
        assert_eq!(elf.file_offset_of(text.address), Some(text.offset));
        assert_eq!(elf.address_of(text.offset), Some(text.address));
        assert_eq!(elf.file_offset_of(u64::MAX), None);
        assert!(!elf.is_text(u64::MAX));
        assert!(elf.section(b".no such section").is_none());
    }

    #[test]
    fn every_cut_of_the_headers_is_an_answer() {
        let bytes = own().read(0, 4096).expect("4 KiB").into_owned();
        assert_eq!(
            Elf::read(&FileBytes::of_memory(&b"\x7fEL"[..])).err(),
            Some(Reason::NotElf)
        );
        for end in 4..64 {
            let cut = FileBytes::of_memory(bytes.get(..end).expect("shorter"));
            assert_eq!(Elf::read(&cut).err(), Some(Reason::Truncated), "{end}");
        }
        let mut big_endian = bytes;
        *big_endian.get_mut(5).expect("EI_DATA") = 2;
        assert_eq!(
            Elf::read(&FileBytes::of_memory(big_endian)).err(),
            Some(Reason::UnsupportedElf)
        );
    }
}
