//! Owns the header tables of an ELF file as they are written again: every field is kept, a few can be changed. It reads
//! tables only, never what the sections hold.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use leadsman_executable::file_bytes::FileBytes;

use crate::fault::Fault;

/// Program headers that are read; linkers make about ten.
const MAX_PROGRAM_HEADERS: u16 = 4096;
/// Section headers that are read; linked files have about forty.
const MAX_SECTION_HEADERS: u64 = 1 << 16;
/// Bytes of section names that are read.
const MAX_SECTION_NAMES: u64 = 4 << 20;

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
/// `e_shstrndx` of a file with so many sections that section 0 says which one has the names.
const SHN_XINDEX: u16 = 0xffff;

pub(crate) const PT_LOAD: u32 = 1;
pub(crate) const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
pub(crate) const SHT_NULL: u32 = 0;
pub(crate) const SHT_PROGBITS: u32 = 1;
pub(crate) const SHT_SYMTAB: u32 = 2;
pub(crate) const SHT_STRTAB: u32 = 3;
pub(crate) const SHT_NOTE: u32 = 7;
pub(crate) const SHT_NOBITS: u32 = 8;
pub(crate) const SHT_DYNSYM: u32 = 11;
pub(crate) const SHT_SYMTAB_SHNDX: u32 = 18;
pub(crate) const SHF_ALLOC: u64 = 2;
pub(crate) const SHF_COMPRESSED: u64 = 1 << 11;

/// Width of addresses in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// ELFCLASS32.
    Elf32,
    /// ELFCLASS64.
    Elf64,
}

impl Class {
    /// Bytes of `Elf32_Ehdr` or `Elf64_Ehdr`.
    pub(crate) const fn file_header(self) -> usize {
        match self {
            Self::Elf32 => 52,
            Self::Elf64 => 64,
        }
    }

    const fn program_header(self) -> usize {
        match self {
            Self::Elf32 => 32,
            Self::Elf64 => 56,
        }
    }

    pub(crate) const fn section_header(self) -> usize {
        match self {
            Self::Elf32 => 40,
            Self::Elf64 => 64,
        }
    }

    /// Bytes of a symbol.
    pub(crate) const fn symbol(self) -> u64 {
        match self {
            Self::Elf32 => 16,
            Self::Elf64 => 24,
        }
    }
}

/// A section header with all its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SectionHeader {
    pub(crate) name: u32,
    pub(crate) kind: u32,
    pub(crate) flags: u64,
    pub(crate) address: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) link: u32,
    pub(crate) info: u32,
    pub(crate) align: u64,
    pub(crate) entry_size: u64,
}

/// A program header, as far as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) kind: u32,
    pub(crate) executable: bool,
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) file_size: u64,
}

/// The header tables.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    pub(crate) class: Class,
    /// The file header as it is.
    file: Vec<u8>,
    /// The program headers as they are, `program_size` bytes each.
    programs: Vec<u8>,
    program_size: usize,
    /// All of them, in order: symbols and other headers refer to them by number.
    pub(crate) sections: Vec<SectionHeader>,
    names: Vec<u8>,
    /// Number of the section that has the names.
    pub(crate) names_index: u32,
}

/// Little-endian fields at fixed places.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8], Class);

impl Fields<'_> {
    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    /// A field as wide as addresses are.
    fn word(&self, at32: usize, at64: usize) -> Option<u64> {
        match self.1 {
            Class::Elf32 => self.u32(at32).map(u64::from),
            Class::Elf64 => Some(u64::from_le_bytes(*self.0.get(at64..)?.first_chunk()?)),
        }
    }

    fn half(&self, at32: usize, at64: usize) -> Option<u16> {
        self.u16(match self.1 {
            Class::Elf32 => at32,
            Class::Elf64 => at64,
        })
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Option<()> {
    bytes
        .get_mut(at..at.checked_add(value.len())?)?
        .copy_from_slice(value);
    Some(())
}

fn put_word(
    bytes: &mut [u8],
    class: Class,
    (at32, at64): (usize, usize),
    value: u64,
) -> Option<()> {
    match class {
        Class::Elf32 => put(bytes, at32, &u32::try_from(value).ok()?.to_le_bytes()),
        Class::Elf64 => put(bytes, at64, &value.to_le_bytes()),
    }
}

const CUT: Fault = Fault::Malformed("it ends inside its headers");

impl SectionHeader {
    fn read(bytes: &[u8], class: Class) -> Option<Self> {
        let fields = Fields(bytes, class);
        let (link, info) = match class {
            Class::Elf32 => (24, 28),
            Class::Elf64 => (40, 44),
        };
        Some(Self {
            name: fields.u32(0)?,
            kind: fields.u32(4)?,
            flags: fields.word(8, 8)?,
            address: fields.word(12, 16)?,
            offset: fields.word(16, 24)?,
            size: fields.word(20, 32)?,
            link: fields.u32(link)?,
            info: fields.u32(info)?,
            align: fields.word(32, 48)?,
            entry_size: fields.word(36, 56)?,
        })
    }

    /// Its bytes; `None`: a number does not fit a 32-bit file.
    pub(crate) fn encode(&self, class: Class) -> Option<Vec<u8>> {
        let mut bytes = vec![0; class.section_header()];
        let (link, info) = match class {
            Class::Elf32 => (24, 28),
            Class::Elf64 => (40, 44),
        };
        put(&mut bytes, 0, &self.name.to_le_bytes())?;
        put(&mut bytes, 4, &self.kind.to_le_bytes())?;
        put_word(&mut bytes, class, (8, 8), self.flags)?;
        put_word(&mut bytes, class, (12, 16), self.address)?;
        put_word(&mut bytes, class, (16, 24), self.offset)?;
        put_word(&mut bytes, class, (20, 32), self.size)?;
        put(&mut bytes, link, &self.link.to_le_bytes())?;
        put(&mut bytes, info, &self.info.to_le_bytes())?;
        put_word(&mut bytes, class, (32, 48), self.align)?;
        put_word(&mut bytes, class, (36, 56), self.entry_size)?;
        Some(bytes)
    }

    /// Whether the section takes bytes of the file.
    pub(crate) fn has_bytes(&self) -> bool {
        self.kind != SHT_NOBITS && self.kind != SHT_NULL && self.size > 0
    }
}

impl Headers {
    /// Reads the tables of an executable or shared library.
    pub(crate) fn read(file: &FileBytes) -> Result<Self, Fault> {
        let start = file.read_up_to(0, 64)?;
        let class = match start.get(..7) {
            Some([0x7f, b'E', b'L', b'F', 1, 1, 1]) => Class::Elf32,
            Some([0x7f, b'E', b'L', b'F', 2, 1, 1]) => Class::Elf64,
            _ => return Err(Fault::Format),
        };
        let header = start.get(..class.file_header()).ok_or(CUT)?.to_vec();
        let fields = Fields(&header, class);
        let kind = fields.u16(16).ok_or(CUT)?;
        if kind != ET_EXEC && kind != ET_DYN {
            return Err(Fault::Format);
        }
        let program_offset = fields.word(28, 32).ok_or(CUT)?;
        let program_size = usize::from(fields.half(42, 54).ok_or(CUT)?);
        let program_count = fields.half(44, 56).ok_or(CUT)?;
        if program_count > MAX_PROGRAM_HEADERS {
            return Err(Fault::Malformed("too many program headers"));
        }
        if program_count > 0 && program_size < class.program_header() {
            return Err(Fault::Malformed("its program headers are too short"));
        }
        let bytes = u64::from(program_count).saturating_mul(program_size as u64);
        let programs = file.read(program_offset, bytes)?.into_owned();
        let (sections, names_index) = Self::read_sections(file, fields)?;
        let names = match sections.get(names_index as usize) {
            Some(names) if names.has_bytes() => file
                .read(names.offset, names.size.min(MAX_SECTION_NAMES))?
                .into_owned(),
            _ => Vec::new(),
        };
        Ok(Self {
            class,
            file: header,
            programs,
            program_size,
            sections,
            names,
            names_index,
        })
    }

    fn read_sections(
        file: &FileBytes,
        fields: Fields<'_>,
    ) -> Result<(Vec<SectionHeader>, u32), Fault> {
        let class = fields.1;
        let offset = fields.word(32, 40).ok_or(CUT)?;
        let size = usize::from(fields.half(46, 58).ok_or(CUT)?);
        let count = fields.half(48, 60).ok_or(CUT)?;
        let names_index = fields.half(50, 62).ok_or(CUT)?;
        if offset == 0 {
            return Ok((Vec::new(), 0));
        }
        if size < class.section_header() {
            return Err(Fault::Malformed("its section headers are too short"));
        }
        let read = |count: u64| -> Result<Vec<SectionHeader>, Fault> {
            let bytes = file.read(offset, count.saturating_mul(size as u64))?;
            let headers = bytes.chunks_exact(size);
            headers
                .map(|header| SectionHeader::read(header, class).ok_or(CUT))
                .collect()
        };
        // A count of zero with a table: section 0's size is the count (ELF gABI, "Section header").
        let count = match count {
            0 => read(1)?.first().map_or(0, |first| first.size),
            count => count.into(),
        };
        if count > MAX_SECTION_HEADERS {
            return Err(Fault::Malformed("too many section headers"));
        }
        let sections = read(count)?;
        let names_index = match names_index {
            SHN_XINDEX => sections.first().map_or(0, |first| first.link),
            index => index.into(),
        };
        Ok((sections, names_index))
    }

    /// A section's name; empty when it has none.
    pub(crate) fn name(&self, section: &SectionHeader) -> &[u8] {
        usize::try_from(section.name)
            .ok()
            .and_then(|at| self.names.get(at..)?.split(|byte| *byte == 0).next())
            .unwrap_or_default()
    }

    /// The first section of that name that takes bytes of the file.
    pub(crate) fn section(&self, name: &[u8]) -> Option<&SectionHeader> {
        self.sections
            .iter()
            .find(|section| section.has_bytes() && self.name(section) == name)
    }

    /// The program headers, in order.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        let flags = match self.class {
            Class::Elf32 => 24,
            Class::Elf64 => 4,
        };
        let read = |bytes: &[u8]| {
            let fields = Fields(bytes, self.class);
            Some(Segment {
                kind: fields.u32(0)?,
                executable: fields.u32(flags)? & PF_X != 0,
                offset: fields.word(4, 8)?,
                address: fields.word(8, 16)?,
                file_size: fields.word(16, 32)?,
            })
        };
        let headers = self.programs.chunks_exact(self.program_size.max(1));
        headers.filter_map(read).collect()
    }

    /// Bytes that the file header and the program headers take at the start of the extract.
    pub(crate) fn front(&self) -> u64 {
        (self.class.file_header() as u64).saturating_add(self.programs.len() as u64)
    }

    /// Says that the nth segment's bytes lie elsewhere.
    pub(crate) fn move_segment(&mut self, nth: usize, offset: u64) -> Option<()> {
        let start = nth.checked_mul(self.program_size)?;
        let bytes = self.programs.get_mut(start..)?;
        put_word(bytes, self.class, (4, 8), offset)
    }

    /// The file header and the program headers as they are written: program headers follow at once, section headers
    /// stand at `sections`. Everything else stays; the counts do, as no header is added or removed.
    pub(crate) fn encode_front(&self, sections: u64) -> Option<Vec<u8>> {
        let class = self.class;
        let mut bytes = self.file.clone();
        let programs = if self.programs.is_empty() {
            0
        } else {
            class.file_header() as u64
        };
        put_word(&mut bytes, class, (28, 32), programs)?;
        put_word(&mut bytes, class, (32, 40), sections)?;
        let section_size = u16::try_from(class.section_header()).ok()?;
        let at = match class {
            Class::Elf32 => 46,
            Class::Elf64 => 58,
        };
        put(&mut bytes, at, &section_size.to_le_bytes())?;
        bytes.extend(&self.programs);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_headers_come_back_as_they_were() {
        let header = SectionHeader {
            name: 1,
            kind: 2,
            flags: 3,
            address: 4,
            offset: 5,
            size: 6,
            link: 7,
            info: 8,
            align: 9,
            entry_size: 10,
        };
        for class in [Class::Elf32, Class::Elf64] {
            let bytes = header.encode(class).expect("small numbers");
            assert_eq!(SectionHeader::read(&bytes, class), Some(header));
        }
        let large = SectionHeader {
            offset: 1 << 32,
            ..header
        };
        assert_eq!(large.encode(Class::Elf32), None);
    }
}
