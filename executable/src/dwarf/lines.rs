//! Owns the line table of one unit (DWARF 5, 6.2) in compact form, and the paths of its files.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::cmp::Reverse;

use gimli::{AttributeValue, DebugLine, DebugLineOffset, EndianSlice, LittleEndian, Reader};

use super::sections::Sections;
use super::unit::{Unit, Value};
use crate::reason::Reason;
use crate::work::Work;

/// Bytes of the largest line program that is run.
const MAX_PROGRAM: u64 = 64 << 20;
/// Rows of one unit: 64 MB of them.
const MAX_ROWS: usize = 4 << 20;
/// Files and directories of one unit.
const MAX_FILES: usize = 1 << 16;
/// Sequences around an address that are asked whether they cover it.
const MAX_OVERLAPPING: usize = 64;

/// From this address on, up to the next row: this place in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    address: u64,
    /// A file's number in the line program.
    pub file: u32,
    /// 0: none.
    pub line: u32,
}

/// Rows without a gap.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    begin: u64,
    end: u64,
    first: u32,
    last: u32,
}

/// A file or directory name, still in its section where it is in one.
#[derive(Clone, Debug)]
enum PathPart {
    Inline(Box<[u8]>),
    Str(u64),
    LineStr(u64),
    /// An index into `.debug_str_offsets`.
    Index(usize),
    Missing,
}

impl PathPart {
    fn of(value: &Value<'_>) -> Self {
        match value {
            AttributeValue::String(bytes) => Self::Inline(bytes.slice().into()),
            AttributeValue::DebugStrRef(offset) => Self::Str(offset.0 as u64),
            AttributeValue::DebugLineStrRef(offset) => Self::LineStr(offset.0 as u64),
            AttributeValue::DebugStrOffsetsIndex(index) => Self::Index(index.0),
            _ => Self::Missing,
        }
    }

    fn read(&self, sections: &Sections, unit: &Unit) -> Option<Vec<u8>> {
        match self {
            Self::Inline(bytes) => Some(bytes.to_vec()),
            Self::Str(offset) => Some(sections.str.string(*offset).ok()?.into_owned()),
            Self::LineStr(offset) => Some(sections.line_str.string(*offset).ok()?.into_owned()),
            Self::Index(index) => unit.string(
                sections,
                &AttributeValue::DebugStrOffsetsIndex(gimli::DebugStrOffsetsIndex(*index)),
            ),
            Self::Missing => None,
        }
    }
}

/// The lines of a unit.
#[derive(Debug)]
pub(super) struct Lines {
    version: u16,
    rows: Vec<Place>,
    sequences: Vec<Sequence>,
    directories: Vec<PathPart>,
    files: Vec<(PathPart, u64)>,
}

impl Lines {
    /// Runs the line program at `offset` of `.debug_line`. Rows before a damaged instruction are kept.
    pub(super) fn read(
        sections: &Sections,
        unit: &Unit,
        offset: u64,
        work: &Work,
    ) -> Result<Self, Reason> {
        let (length, header) = sections.line.parse(offset, 12, |mut bytes| {
            let before = bytes.len();
            let (length, _format) = bytes.read_initial_length()?;
            Ok((length as u64, before.saturating_sub(bytes.len()) as u64))
        })?;
        let size = length.checked_add(header).ok_or(Reason::DebuginfoDamaged)?;
        if size > MAX_PROGRAM {
            return Err(Reason::DebuginfoTooLarge);
        }
        // Running a program costs more than reading its bytes.
        work.spend(size.saturating_mul(4))?;
        let bytes = sections.line.read(offset, size)?;
        let directory = unit.directory.as_deref();
        let name = unit.name.as_deref();
        let program = DebugLine::new(&bytes, LittleEndian)
            .program(
                DebugLineOffset(0),
                unit.encoding.address_size,
                directory.map(|bytes| EndianSlice::new(bytes, LittleEndian)),
                name.map(|bytes| EndianSlice::new(bytes, LittleEndian)),
            )
            .map_err(|_error| Reason::DebuginfoDamaged)?;
        let header = program.header();
        let mut lines = Self {
            version: header.version(),
            rows: Vec::new(),
            sequences: Vec::new(),
            directories: header
                .include_directories()
                .iter()
                .take(MAX_FILES)
                .map(PathPart::of)
                .collect(),
            files: header
                .file_names()
                .iter()
                .take(MAX_FILES)
                .map(|file| (PathPart::of(&file.path_name()), file.directory_index()))
                .collect(),
        };
        let mut rows = program.rows();
        let mut first = 0;
        let mut sorted = true;
        // A damaged instruction ends the table: what was before stands.
        while let Ok(Some((_, row))) = rows.next_row() {
            if row.end_sequence() {
                lines.end_sequence(first, row.address(), sorted);
                first = lines.rows.len();
                sorted = true;
                continue;
            }
            let place = Place {
                address: row.address(),
                file: u32::try_from(row.file_index()).unwrap_or(u32::MAX),
                line: row
                    .line()
                    .and_then(|line| u32::try_from(line.get()).ok())
                    .unwrap_or(0),
            };
            match lines.rows.get_mut(first..).and_then(<[_]>::last_mut) {
                // Of several rows at one address, the last one counts.
                Some(last) if last.address == place.address => *last = place,
                last => {
                    sorted &= last.is_none_or(|last| last.address < place.address);
                    if lines.rows.len() >= MAX_ROWS {
                        return Err(Reason::DebuginfoTooLarge);
                    }
                    lines.rows.push(place);
                }
            }
        }
        lines.rows.truncate(first);
        lines.rows.shrink_to_fit();
        lines
            .sequences
            .sort_unstable_by_key(|sequence| (sequence.begin, Reverse(sequence.end)));
        Ok(lines)
    }

    fn end_sequence(&mut self, first: usize, end: u64, sorted: bool) {
        let rows = self.rows.get_mut(first..).unwrap_or_default();
        if !sorted {
            rows.sort_by_key(|row| row.address);
        }
        let last = self.rows.len();
        let begin = self.rows.get(first).map(|row| row.address);
        match (begin, u32::try_from(first), u32::try_from(last)) {
            // Code that the linker discarded stands at address 0.
            (Some(begin), Ok(first), Ok(last)) if begin != 0 && begin < end => {
                self.sequences.push(Sequence {
                    begin,
                    end,
                    first,
                    last,
                });
            }
            _ => self.rows.truncate(first),
        }
    }

    /// The place in the source of an address.
    pub(super) fn find(&self, address: u64) -> Option<Place> {
        let end = self
            .sequences
            .partition_point(|sequence| sequence.begin <= address);
        let sequence = self
            .sequences
            .get(..end)?
            .iter()
            .rev()
            .take(MAX_OVERLAPPING)
            .find(|sequence| address < sequence.end)?;
        let rows = self
            .rows
            .get(sequence.first as usize..sequence.last as usize)?;
        let behind = rows.partition_point(|row| row.address <= address);
        rows.get(behind.checked_sub(1)?).copied()
    }

    /// The path of a file: its name below its directory below the unit's directory, as far as they are relative.
    pub(super) fn path(&self, number: u64, sections: &Sections, unit: &Unit) -> Option<String> {
        // Until version 4, files and directories count from 1, and directory 0 is the unit's own.
        let index = |number: u64| {
            let number = usize::try_from(number).ok()?;
            match self.version {
                ..=4 => number.checked_sub(1),
                _ => Some(number),
            }
        };
        let (name, directory) = self.files.get(index(number)?)?;
        let mut path = name.read(sections, unit)?;
        let directory = index(*directory)
            .and_then(|index| self.directories.get(index))
            .and_then(|directory| directory.read(sections, unit));
        for above in [directory, unit.directory.clone()].into_iter().flatten() {
            if path.starts_with(b"/") {
                break;
            }
            // Go's linker names files that are nowhere, and says that they are here.
            if above == b"." {
                continue;
            }
            let mut joined = above;
            if !joined.is_empty() && !joined.ends_with(b"/") {
                joined.push(b'/');
            }
            joined.extend_from_slice(&path);
            path = joined;
        }
        Some(String::from_utf8_lossy(&path).into_owned())
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let inline = |part: &PathPart| match part {
            PathPart::Inline(bytes) => bytes.len(),
            _ => 0,
        };
        let names = self
            .directories
            .iter()
            .map(inline)
            .chain(self.files.iter().map(|(part, _)| inline(part)))
            .fold(0, usize::saturating_add);
        size_of_val(self.rows.as_slice())
            .saturating_add(size_of_val(self.sequences.as_slice()))
            .saturating_add(size_of_val(self.directories.as_slice()))
            .saturating_add(size_of_val(self.files.as_slice()))
            .saturating_add(names)
    }
}
