//! Owns finding a file's call frame information and executable segments: all use of `object` by the unwind table. It
//! reads those sections only, each at most once and within [`MAX_SECTION_BYTES`].

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::borrow::Cow;
use std::io::Read as _;

use object::elf::{self, FileHeader64};
use object::read::elf::{
    CompressionHeader as _, FileHeader as _, ProgramHeader as _, SectionHeader as _,
};
use object::{LittleEndian, ReadRef};

use super::BuildError;
use super::cursor::PointerBases;
use super::eh_frame::{Format, Section};
use super::eh_frame_hdr::EhFrameHdr;
use super::go::GoTable;
use super::omission::{Omission, Omissions};
use super::plt::Plt;
use super::segments::{MAX_SEGMENTS, Segment, Segments};
use leadsman_executable::go_pclntab::MODULE_TEXT;

/// Bytes read of one section, also after decompression. The largest programs have 60 MB of `.eh_frame`.
const MAX_SECTION_BYTES: u64 = 64 << 20;
/// Program headers looked at.
const MAX_PROGRAM_HEADERS: u64 = 1 << 12;
/// Procedure linkage tables looked at; linkers write four at most.
const MAX_PLTS: usize = 8;
/// Section headers looked at.
const MAX_SECTION_HEADERS: u64 = 1 << 16;

const ENDIAN: LittleEndian = LittleEndian;
type Header = FileHeader64<LittleEndian>;

/// The parts of a file that an unwind table is made from.
#[derive(Debug, Default)]
pub(super) struct Sections<'a> {
    pub segments: Segments,
    /// Where the program or its loader begins (`e_entry`); 0 in most libraries.
    pub entry: u64,
    eh_frame: Option<Place<'a>>,
    eh_frame_hdr: Option<Place<'a>>,
    debug_frame: Option<Place<'a>>,
    go_table: Option<Place<'a>>,
    /// Where Go's code starts, by the program's module data.
    go_text: Option<u64>,
    /// Procedure linkage tables of known forms.
    plts: Vec<Plt>,
    text: Option<u64>,
    got: Option<u64>,
}

#[derive(Debug)]
struct Place<'a> {
    address: u64,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Sections<'a> {
    /// Reads the headers and the sections.
    pub(super) fn read<R: ReadRef<'a>>(
        data: R,
        omissions: &mut Omissions,
    ) -> Result<Self, BuildError> {
        let header = Header::parse(data).map_err(|_error| BuildError::NotElf)?;
        header.endian().map_err(|_error| BuildError::OtherMachine)?;
        if header.e_machine(ENDIAN) != elf::EM_X86_64 || !header.is_little_endian() {
            return Err(BuildError::OtherMachine);
        }
        let mut sections = Self {
            entry: header.e_entry(ENDIAN),
            ..Self::default()
        };
        let loads = program_headers(header, data)?;
        sections.segments = Segments::new(
            loads
                .iter()
                .filter(|load| load.p_type(ENDIAN) == elf::PT_LOAD)
                .filter(|load| load.p_flags(ENDIAN).contains(elf::PF_X))
                .map(|load| segment(load, data))
                .take(MAX_SEGMENTS),
        );
        if sections.segments.all().is_empty() {
            return Err(BuildError::NoText);
        }
        sections.read_sections(header, data, omissions);
        if sections.eh_frame.is_none() {
            sections.read_by_program_headers(loads, data, omissions);
        }
        Ok(sections)
    }

    fn read_sections<R: ReadRef<'a>>(
        &mut self,
        header: &Header,
        data: R,
        omissions: &mut Omissions,
    ) {
        if !header
            .shnum(ENDIAN, data)
            .is_ok_and(|count| u64::from(count) <= MAX_SECTION_HEADERS)
        {
            return;
        }
        let Ok(table) = header.sections(ENDIAN, data) else {
            return;
        };
        for section in table.iter() {
            let Ok(name) = table.section_name(ENDIAN, section) else {
                continue;
            };
            let place = match name {
                b".text" => {
                    self.text = Some(section.sh_addr(ENDIAN));
                    continue;
                }
                b".got" => {
                    self.got = Some(section.sh_addr(ENDIAN));
                    continue;
                }
                b".eh_frame" => &mut self.eh_frame,
                b".eh_frame_hdr" => &mut self.eh_frame_hdr,
                b".debug_frame" | b".zdebug_frame" => &mut self.debug_frame,
                b".gopclntab" | b".data.rel.ro.gopclntab" => &mut self.go_table,
                b".plt" | b".plt.sec" | b".plt.got" | b".iplt" => {
                    let bytes = contents(section, name, data, omissions).unwrap_or_default();
                    let found = Plt::recognize(name, section.sh_addr(ENDIAN), &bytes);
                    self.plts
                        .extend(found.filter(|_| self.plts.len() < MAX_PLTS));
                    continue;
                }
                b".go.module" => {
                    self.go_text = module_text(section.sh_offset(ENDIAN), data);
                    continue;
                }
                _ => continue,
            };
            // A file split from its debug information keeps headers of sections that it does not have.
            if section.sh_type(ENDIAN) == elf::SHT_NOBITS || place.is_some() {
                continue;
            }
            *place = contents(section, name, data, omissions).map(|bytes| Place {
                address: section.sh_addr(ENDIAN),
                bytes,
            });
        }
    }

    /// Finds `.eh_frame` as the C library does, without section headers.
    fn read_by_program_headers<R: ReadRef<'a>>(
        &mut self,
        loads: &[elf::ProgramHeader64<LittleEndian>],
        data: R,
        omissions: &mut Omissions,
    ) {
        let Some(header) = loads
            .iter()
            .find(|load| load.p_type(ENDIAN) == elf::PT_GNU_EH_FRAME)
        else {
            return;
        };
        let address = header.p_vaddr(ENDIAN);
        let Some(bytes) = bounded(
            data,
            header.p_offset(ENDIAN),
            header.p_filesz(ENDIAN),
            omissions,
        ) else {
            return;
        };
        let eh_frame = EhFrameHdr::read(bytes, address).and_then(|parts| parts.eh_frame);
        self.eh_frame_hdr = Some(Place {
            address,
            bytes: Cow::Borrowed(bytes),
        });
        self.eh_frame = eh_frame.and_then(|address| {
            // Its length is not written anywhere: it ends with a terminator, or with the segment.
            let load = loads.iter().find(|load| {
                load.p_type(ENDIAN) == elf::PT_LOAD
                    && address.wrapping_sub(load.p_vaddr(ENDIAN)) < load.p_filesz(ENDIAN)
            })?;
            let skipped = address.wrapping_sub(load.p_vaddr(ENDIAN));
            let offset = load.p_offset(ENDIAN).checked_add(skipped)?;
            let length = load.p_filesz(ENDIAN).checked_sub(skipped)?;
            Some(Place {
                address,
                bytes: Cow::Borrowed(bounded(data, offset, length, omissions)?),
            })
        });
    }

    /// `.eh_frame`, if the file has it.
    pub(super) fn eh_frame(&self) -> Option<Section<'_>> {
        let place = self.eh_frame.as_ref()?;
        Some(Section {
            format: Format::EhFrame,
            bytes: &place.bytes,
            address: place.address,
            bases: PointerBases {
                text: self.text,
                data: self.got,
            },
        })
    }

    /// `.debug_frame`, if the file has it.
    pub(super) fn debug_frame(&self) -> Option<Section<'_>> {
        let place = self.debug_frame.as_ref()?;
        Some(Section {
            format: Format::DebugFrame,
            bytes: &place.bytes,
            address: 0,
            bases: PointerBases::default(),
        })
    }

    /// Procedure linkage tables, whether they are described elsewhere or not.
    pub(super) fn plts(&self) -> &[Plt] {
        &self.plts
    }

    /// Go's own tables, if the file has them. Where its code starts is said by their head up to Go 1.25 (in a PIE by a
    /// relocation only), since then by the module data; without C code it is where `.text` starts.
    pub(super) fn go(&self, omissions: &mut Omissions) -> Option<GoTable<'_>> {
        let place = self.go_table.as_ref()?;
        let text = |stated| {
            [Some(stated), self.go_text, self.text]
                .into_iter()
                .flatten()
                .find(|&address| address != 0 && self.segments.containing(address).is_some())
        };
        GoTable::read(&place.bytes, text, &self.segments, omissions)
    }

    /// `.eh_frame_hdr`, if the file has it.
    pub(super) fn eh_frame_hdr(&self) -> Option<EhFrameHdr<'_>> {
        let place = self.eh_frame_hdr.as_ref()?;
        EhFrameHdr::read(&place.bytes, place.address)
    }
}

fn program_headers<'a, R: ReadRef<'a>>(
    header: &Header,
    data: R,
) -> Result<&'a [elf::ProgramHeader64<LittleEndian>], BuildError> {
    let count = header
        .phnum(ENDIAN, data)
        .map_err(|_error| BuildError::Truncated)?;
    if u64::from(count) > MAX_PROGRAM_HEADERS {
        return Err(BuildError::ProgramHeaders(u64::from(count)));
    }
    header
        .program_headers(ENDIAN, data)
        .map_err(|_error| BuildError::Truncated)
}

/// `text` of `runtime.moduledata`.
fn module_text<'a, R: ReadRef<'a>>(offset: u64, data: R) -> Option<u64> {
    let bytes = data
        .read_bytes_at(offset.checked_add(MODULE_TEXT)?, 8)
        .ok()?;
    Some(u64::from_le_bytes(*bytes.first_chunk::<8>()?))
}

/// The part of a segment that the file really has.
fn segment<'a, R: ReadRef<'a>>(load: &elf::ProgramHeader64<LittleEndian>, data: R) -> Segment {
    let file_offset = load.p_offset(ENDIAN);
    let room = data.len().unwrap_or(0).saturating_sub(file_offset);
    Segment {
        address: load.p_vaddr(ENDIAN),
        file_offset,
        length: load.p_filesz(ENDIAN).min(room),
    }
}

/// A section's bytes, decompressed.
fn contents<'a, R: ReadRef<'a>>(
    section: &elf::SectionHeader64<LittleEndian>,
    name: &[u8],
    data: R,
    omissions: &mut Omissions,
) -> Option<Cow<'a, [u8]>> {
    let (offset, size) = section.file_range(ENDIAN)?;
    if section.sh_flags(ENDIAN).contains(elf::SHF_COMPRESSED) {
        let (header, offset, size) = section.compression(ENDIAN, data).ok().flatten()?;
        let bytes = bounded(data, offset, size, omissions)?;
        return match header.ch_type(ENDIAN) {
            elf::ELFCOMPRESS_ZLIB => inflate(bytes, omissions),
            elf::ELFCOMPRESS_ZSTD => unzstd(bytes, omissions),
            _ => None,
        };
    }
    let bytes = bounded(data, offset, size, omissions)?;
    if name.starts_with(b".z") {
        // "ZLIB" and the size, eight bytes big endian.
        let compressed = bytes.strip_prefix(b"ZLIB")?.get(8..)?;
        return inflate(compressed, omissions);
    }
    Some(Cow::Borrowed(bytes))
}

fn bounded<'a, R: ReadRef<'a>>(
    data: R,
    offset: u64,
    size: u64,
    omissions: &mut Omissions,
) -> Option<&'a [u8]> {
    if size > MAX_SECTION_BYTES {
        omissions.add(Omission::SectionTooLarge);
    }
    data.read_bytes_at(offset, size.min(MAX_SECTION_BYTES)).ok()
}

fn inflate<'a>(bytes: &[u8], omissions: &mut Omissions) -> Option<Cow<'a, [u8]>> {
    read_bounded(flate2::read::ZlibDecoder::new(bytes), omissions)
}

fn unzstd<'a>(bytes: &[u8], omissions: &mut Omissions) -> Option<Cow<'a, [u8]>> {
    let decoder = ruzstd::decoding::StreamingDecoder::new(bytes).ok()?;
    read_bounded(decoder, omissions)
}

fn read_bounded<'a>(
    reader: impl std::io::Read,
    omissions: &mut Omissions,
) -> Option<Cow<'a, [u8]>> {
    let mut bytes = Vec::new();
    // What came before a fault in the stream is sound as far as it goes.
    let read = reader.take(MAX_SECTION_BYTES).read_to_end(&mut bytes);
    if read.is_err() || bytes.len() as u64 == MAX_SECTION_BYTES {
        omissions.add(Omission::SectionTooLarge);
    }
    (!bytes.is_empty()).then_some(Cow::Owned(bytes))
}
