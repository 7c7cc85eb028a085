//! Owns the entries of `.eh_frame` and `.debug_frame` (DWARF 5, 6.4.1; LSB Core, 10.6): one pass over a section finds
//! its functions (FDEs), each CIE is read once. A bad entry costs itself; work is linear in the section's bytes.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::collections::HashMap;

use leadsman_ebpf::registers::number;

use super::cfa::{Interpreter, Program, RowSink};
use super::cursor::{Cursor, PointerBases, encoding};
use super::eh_frame_hdr::SearchTable;
use super::frame::{Frame, GoFrame};
use super::go::GoTable;
use super::omission::{Omission, Omissions};
use super::plt::Plt;
use super::segments::Segments;
use super::start_code::StartCode;

/// FDEs kept of one file: 24 MB of them. The largest browsers have about 800,000.
pub(super) const MAX_FUNCTIONS: usize = 1 << 20;
/// Distinct CIEs kept of one file. Linkers merge those of `.eh_frame`; `.debug_frame` has one per compilation unit.
const MAX_CIES: usize = 1 << 16;
/// Times that the walk goes on behind a broken entry with the help of `.eh_frame_hdr`.
const MAX_RESUMPTIONS: u32 = 16;

/// Which of the two formats a section is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    EhFrame,
    DebugFrame,
}

/// A section with call frame information.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    pub format: Format,
    pub bytes: &'a [u8],
    /// ELF address of the first byte; zero for `.debug_frame`.
    pub address: u64,
    pub bases: PointerBases,
}

/// One FDE: a function, or a part of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    /// ELF address of its first byte.
    pub start: u64,
    pub length: u32,
    cie: u32,
    /// The instructions' place in the section.
    instructions: u32,
    instructions_length: u32,
}

impl Function {
    /// ELF address behind its last byte.
    #[inline(always)]
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(u64::from(self.length))
    }
}

/// What Go's linker writes for x86-64 (cmd/link/internal/ld/dwarf.go: `dataAlignmentFactor`); others write -8.
const GO_DATA_ALIGNMENT: i64 = -4;
/// [`Function::cie`] of functions known from Go's own tables.
const GO_TABLE: u32 = u32::MAX;
/// [`Function::cie`] of procedure linkage tables; `instructions` is the index of one.
const PLT: u32 = u32::MAX - 1;
/// [`Function::cie`] of start code; `instructions` is the index of one.
const START_CODE: u32 = u32::MAX - 2;

/// What is known of code that neither section describes.
#[derive(Debug, Default)]
pub(super) struct Undescribed<'a> {
    pub go: Option<GoTable<'a>>,
    pub plts: &'a [Plt],
}

#[derive(Clone, Copy, Debug)]
struct Cie {
    format: Format,
    initial: Frame,
    code_alignment: u64,
    data_alignment: i64,
    pointer_encoding: u8,
    /// FDEs have a length of augmentation data ("z").
    augmented: bool,
}

/// All functions of a file, ascending, none starting where another does.
#[derive(Debug)]
pub(super) struct Functions<'a> {
    eh_frame: Option<Section<'a>>,
    debug_frame: Option<Section<'a>>,
    undescribed: Undescribed<'a>,
    start_code: Vec<StartCode>,
    cies: Vec<Cie>,
    functions: Vec<Function>,
}

impl<'a> Functions<'a> {
    /// Finds the functions of both sections that lie in the executable segments; where both describe a byte,
    /// `.eh_frame` is believed. Go's own tables add what neither has.
    pub(super) fn find(
        eh_frame: Option<Section<'a>>,
        debug_frame: Option<Section<'a>>,
        search_table: Option<&SearchTable<'_>>,
        undescribed: Undescribed<'a>,
        segments: &Segments,
        omissions: &mut Omissions,
    ) -> Self {
        let mut cies = Vec::new();
        let mut functions = Vec::new();
        if let Some(section) = &eh_frame {
            functions = Walk::new(section, segments, &mut cies, omissions).run(search_table);
            order(&mut functions, omissions);
        }
        if let Some(section) = &debug_frame {
            let mut more = Walk::new(section, segments, &mut cies, omissions).run(None);
            order(&mut more, omissions);
            more.retain(|function| !overlaps(&functions, function));
            if !more.is_empty() {
                functions.append(&mut more);
                order(&mut functions, omissions);
            }
        }
        let go = undescribed.go.iter().flat_map(|go| go.functions());
        let go = go.map(|function| Function {
            start: function.start,
            length: function.length,
            cie: GO_TABLE,
            instructions: function.distances,
            instructions_length: 0,
        });
        let plts = (0..).zip(undescribed.plts).map(|(index, plt)| Function {
            start: plt.start,
            length: plt.length,
            cie: PLT,
            instructions: index,
            instructions_length: 0,
        });
        let more: Vec<_> = go
            .chain(plts)
            .filter(|function| segments.containing(function.start).is_some())
            .filter(|function| !overlaps(&functions, function))
            .collect();
        if !more.is_empty() {
            functions.extend(more);
            order(&mut functions, omissions);
        }
        Self {
            eh_frame,
            debug_frame,
            undescribed,
            start_code: Vec::new(),
            cies,
            functions,
        }
    }

    /// Adds code that was found where no function is.
    pub(super) fn add_start_code(&mut self, start_code: Vec<StartCode>, omissions: &mut Omissions) {
        if start_code.is_empty() {
            return;
        }
        let more = (0..).zip(&start_code).map(|(index, code)| Function {
            start: code.start,
            length: code.length,
            cie: START_CODE,
            instructions: index,
            instructions_length: 0,
        });
        self.functions.extend(more);
        order(&mut self.functions, omissions);
        self.start_code = start_code;
    }

    /// The functions, ascending.
    pub(super) fn all(&self) -> &[Function] {
        &self.functions
    }

    /// Gives the rows of one function up to `end` to `sink`.
    #[inline(always)]
    pub(super) fn rows(
        &self,
        function: &Function,
        end: u64,
        interpreter: &mut Interpreter,
        sink: &mut impl RowSink,
    ) {
        if let Some(go) = &self.undescribed.go {
            return self.go_rows(go, function, end, interpreter, sink);
        }
        self.described_rows(function, end, interpreter, sink);
    }

    #[inline(always)]
    fn described_rows(
        &self,
        function: &Function,
        end: u64,
        interpreter: &mut Interpreter,
        sink: &mut impl RowSink,
    ) {
        let index = function.instructions as usize;
        if let (PLT, Some(plt)) = (function.cie, self.undescribed.plts.get(index)) {
            return plt.rows(end, sink);
        }
        if let (START_CODE, Some(code)) = (function.cie, self.start_code.get(index)) {
            return code.rows(end, sink);
        }
        let program = self
            .cies
            .get(function.cie as usize)
            .and_then(|cie| self.program(function, cie));
        match program {
            // The error has gone to the sink already.
            Some(program) => drop(interpreter.run(&program, function.start, end, sink)),
            None => sink.unreadable(function.start, end, Omission::BadCie),
        }
    }

    /// The same for a Go program, where some functions are special.
    fn go_rows(
        &self,
        go: &GoTable<'_>,
        function: &Function,
        end: u64,
        interpreter: &mut Interpreter,
        sink: &mut impl RowSink,
    ) {
        if function.cie == GO_TABLE {
            return go.rows(function.instructions, function.start, end, sink);
        }
        let special = go.special(function.start);
        let cie = self.cies.get(function.cie as usize);
        let (Some(special), Some(cie)) = (special, cie) else {
            return self.described_rows(function, end, interpreter, sink);
        };
        let mut initial = cie.initial;
        initial.go = special;
        match self.program(function, cie) {
            Some(mut program) => {
                program.initial = &initial;
                // An error has gone to the sink already.
                let _state = interpreter.run(&program, function.start, end, sink);
            }
            None => sink.unreadable(function.start, end, Omission::BadCie),
        }
    }

    #[inline(always)]
    fn program<'b>(&'b self, function: &Function, cie: &'b Cie) -> Option<Program<'b>> {
        let section = match cie.format {
            Format::EhFrame => self.eh_frame.as_ref()?,
            Format::DebugFrame => self.debug_frame.as_ref()?,
        };
        let first = function.instructions as usize;
        let last = first.checked_add(function.instructions_length as usize)?;
        Some(Program {
            instructions: section.bytes.get(first..last)?,
            address: section.address.wrapping_add(first as u64),
            code_alignment: cie.code_alignment,
            data_alignment: cie.data_alignment,
            pointer_encoding: cie.pointer_encoding,
            bases: section.bases,
            initial: &cie.initial,
        })
    }
}

/// Sorts functions and leaves one for each start. Linkers write runs of ascending functions, so that the stable
/// sort, which merges runs, is near linear.
fn order(functions: &mut Vec<Function>, omissions: &mut Omissions) {
    if !functions.is_sorted_by_key(|function| function.start) {
        functions.sort_by_key(|function| function.start);
    }
    functions.dedup_by(|next, kept| {
        let duplicate = next.start == kept.start;
        if duplicate {
            omissions.add(Omission::DuplicateFunction);
        }
        duplicate
    });
}

/// Whether a byte of `function` belongs to one of the ascending `functions`.
fn overlaps(functions: &[Function], function: &Function) -> bool {
    let behind = functions.partition_point(|other| other.start < function.end());
    behind
        .checked_sub(1)
        .and_then(|last| functions.get(last))
        .is_some_and(|other| other.end() > function.start)
}

/// The state of the walk over one section's entries.
struct Walk<'a, 'b> {
    section: &'b Section<'a>,
    segments: &'b Segments,
    cies: &'b mut Vec<Cie>,
    omissions: &'b mut Omissions,
    /// CIEs that were read, by their place in the section.
    seen: HashMap<usize, Result<u32, Omission>>,
    /// The one that the previous FDE used.
    latest: Option<(usize, Result<u32, Omission>)>,
    /// Bytes of CIEs that may still be read. Sound CIEs do not overlap, so all of them fit the section's size.
    cie_budget: usize,
    functions: Vec<Function>,
}

/// One entry, CIE or FDE.
struct Entry<'a> {
    id: Id,
    /// What follows.
    body: &'a [u8],
    /// Where that stands.
    body_position: usize,
    /// Where the next entry begins.
    next: usize,
}

enum Id {
    Cie,
    /// Belongs to the CIE at this place.
    Fde(Option<usize>),
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(
        section: &'b Section<'a>,
        segments: &'b Segments,
        cies: &'b mut Vec<Cie>,
        omissions: &'b mut Omissions,
    ) -> Self {
        Self {
            section,
            segments,
            cies,
            omissions,
            seen: HashMap::new(),
            latest: None,
            cie_budget: section.bytes.len(),
            functions: Vec::new(),
        }
    }

    fn run(mut self, search_table: Option<&SearchTable<'_>>) -> Vec<Function> {
        let mut position = 0_usize;
        let mut resumptions = 0_u32;
        while position < self.section.bytes.len() {
            match self.section.entry(position) {
                Ok(None) => position = position.saturating_add(4),
                Ok(Some(entry)) => {
                    position = entry.next;
                    let Id::Fde(cie) = entry.id else { continue };
                    if self.functions.len() >= MAX_FUNCTIONS {
                        self.omissions.add(Omission::TooManyEntries);
                        break;
                    }
                    match self.function(&entry, cie) {
                        Ok(function) => self.functions.push(function),
                        Err(omission) => self.omissions.add(omission),
                    }
                }
                Err(omission) => {
                    self.omissions.add(omission);
                    let behind = search_table.filter(|_| resumptions < MAX_RESUMPTIONS);
                    match behind.and_then(|table| table.next_entry(self.section, position)) {
                        Some(next) => position = next,
                        None => break,
                    }
                    resumptions = resumptions.saturating_add(1);
                }
            }
        }
        self.functions
    }

    #[inline(always)]
    fn function(&mut self, entry: &Entry<'a>, cie: Option<usize>) -> Result<Function, Omission> {
        let index = match self.latest {
            Some((position, index)) if Some(position) == cie => index,
            _ => self.cie(cie.ok_or(Omission::BadCie)?),
        }?;
        let cie = self.cies.get(index as usize).ok_or(Omission::BadCie)?;
        let mut cursor = Cursor::new(entry.body);
        let address = self
            .section
            .address
            .wrapping_add(entry.body_position as u64);
        let start = cursor
            .pointer(cie.pointer_encoding, address, &self.section.bases)
            .ok_or(Omission::BadPointer)?;
        let length = cursor
            .value(cie.pointer_encoding)
            .ok_or(Omission::BadPointer)?;
        if cie.augmented {
            let augmentation = cursor.uleb128().ok_or(Omission::BadPointer)?;
            cursor.bytes(augmentation).ok_or(Omission::BadPointer)?;
        }
        if start == 0 || length == 0 {
            return Err(Omission::EmptyFunction);
        }
        let length = u32::try_from(length).map_err(|_error| Omission::FunctionTooLong)?;
        let segment = self
            .segments
            .containing(start)
            .ok_or(Omission::OutsideText)?;
        let room = segment.end().saturating_sub(start);
        let length = u64::from(length).min(room) as u32;
        let instructions = entry
            .next
            .checked_sub(cursor.rest().len())
            .and_then(|place| u32::try_from(place).ok())
            .ok_or(Omission::SectionTooLarge)?;
        Ok(Function {
            start,
            length,
            cie: index,
            instructions,
            instructions_length: cursor.rest().len() as u32,
        })
    }

    /// The index of the CIE at a place.
    fn cie(&mut self, position: usize) -> Result<u32, Omission> {
        let index = match self.seen.get(&position) {
            Some(index) => *index,
            None => {
                if self.seen.len() >= MAX_CIES {
                    return Err(Omission::TooManyEntries);
                }
                let index = self.section.cie(position, &mut self.cie_budget).map(|cie| {
                    self.cies.push(cie);
                    self.cies.len().saturating_sub(1) as u32
                });
                self.seen.insert(position, index);
                index
            }
        };
        self.latest = Some((position, index));
        index
    }
}

impl<'a> Section<'a> {
    /// The entry at a place; `None` for a terminator, four zero bytes, behind which linkers may have put more.
    #[inline(always)]
    fn entry(&self, position: usize) -> Result<Option<Entry<'a>>, Omission> {
        const TRUNCATED: Omission = Omission::EntryTruncated;
        let bytes = self.bytes.get(position..).ok_or(TRUNCATED)?;
        let mut cursor = Cursor::new(bytes);
        let short = cursor.u32().ok_or(TRUNCATED)?;
        if short == 0 {
            return Ok(None);
        }
        let wide = short == u32::MAX;
        let length = if wide {
            cursor.u64().ok_or(TRUNCATED)?
        } else {
            u64::from(short)
        };
        let id_position = self.bytes.len().saturating_sub(cursor.rest().len());
        let mut cursor = Cursor::new(cursor.bytes(length).ok_or(TRUNCATED)?);
        let next = id_position.saturating_add(cursor.rest().len());
        let id = match self.format {
            // Four bytes also in a 64-bit entry, back from here.
            Format::EhFrame => match cursor.u32().ok_or(TRUNCATED)? {
                0 => Id::Cie,
                back => Id::Fde(id_position.checked_sub(back as usize)),
            },
            Format::DebugFrame if wide => match cursor.u64().ok_or(TRUNCATED)? {
                u64::MAX => Id::Cie,
                place => Id::Fde(usize::try_from(place).ok()),
            },
            Format::DebugFrame => match cursor.u32().ok_or(TRUNCATED)? {
                u32::MAX => Id::Cie,
                place => Id::Fde(Some(place as usize)),
            },
        };
        Ok(Some(Entry {
            id,
            body: cursor.rest(),
            body_position: next.saturating_sub(cursor.rest().len()),
            next,
        }))
    }

    /// Reads the CIE at a place; its bytes are taken from `budget`.
    fn cie(&self, position: usize, budget: &mut usize) -> Result<Cie, Omission> {
        const BAD: Omission = Omission::BadCie;
        let entry = self.entry(position).ok().flatten().ok_or(BAD)?;
        *budget = budget
            .checked_sub(entry.next.saturating_sub(position))
            .ok_or(Omission::TooManyEntries)?;
        if !matches!(entry.id, Id::Cie) {
            return Err(BAD);
        }
        let mut cursor = Cursor::new(entry.body);
        let version = cursor.u8().ok_or(BAD)?;
        if !matches!(version, 1 | 3 | 4) {
            return Err(BAD);
        }
        let augmentation = cursor.string().ok_or(BAD)?;
        if version == 4 {
            let (address_size, segment_size) = (cursor.u8().ok_or(BAD)?, cursor.u8().ok_or(BAD)?);
            if address_size != 8 || segment_size != 0 {
                return Err(BAD);
            }
        }
        if augmentation == b"eh" {
            // Ancient gcc: a pointer to an exception table.
            cursor.u64().ok_or(BAD)?;
        }
        let code_alignment = cursor.uleb128().ok_or(BAD)?;
        let data_alignment = cursor.sleb128().ok_or(BAD)?;
        let return_address = if version == 1 {
            u64::from(cursor.u8().ok_or(BAD)?)
        } else {
            cursor.uleb128().ok_or(BAD)?
        };
        if return_address != u64::from(number::RA) {
            return Err(Omission::ReturnAddressColumn);
        }
        let mut cie = Cie {
            format: self.format,
            initial: Frame::EMPTY,
            code_alignment,
            data_alignment,
            pointer_encoding: encoding::ABSOLUTE,
            augmented: false,
        };
        if let Some(letters) = augmentation.strip_prefix(b"z") {
            let length = cursor.uleb128().ok_or(BAD)?;
            let position = entry.next.saturating_sub(cursor.rest().len());
            let data = cursor.bytes(length).ok_or(BAD)?;
            cie.augmented = true;
            self.augmentation(letters, data, position, &mut cie)?;
        } else if !matches!(augmentation, b"" | b"eh") {
            return Err(Omission::UnknownAugmentation);
        }
        let place = entry.next.saturating_sub(cursor.rest().len());
        let program = Program {
            instructions: cursor.rest(),
            address: self.address.wrapping_add(place as u64),
            code_alignment,
            data_alignment,
            pointer_encoding: cie.pointer_encoding,
            bases: self.bases,
            initial: &cie.initial,
        };
        cie.initial = Interpreter::default().run(&program, 0, u64::MAX, &mut NoRows)?;
        if self.format == Format::DebugFrame && data_alignment == GO_DATA_ALIGNMENT {
            cie.initial.go = GoFrame::Plain;
        }
        Ok(cie)
    }

    /// Reads the augmentation data of a CIE by the letters of its augmentation string.
    fn augmentation(
        &self,
        letters: &[u8],
        data: &[u8],
        position: usize,
        cie: &mut Cie,
    ) -> Result<(), Omission> {
        const BAD: Omission = Omission::BadCie;
        let mut cursor = Cursor::new(data);
        for letter in letters {
            match letter {
                b'R' => cie.pointer_encoding = cursor.u8().ok_or(BAD)?,
                b'L' => drop(cursor.u8().ok_or(BAD)?),
                b'P' => {
                    let encoding = cursor.u8().ok_or(BAD)?;
                    if encoding != encoding::OMIT {
                        let consumed = data.len().saturating_sub(cursor.rest().len());
                        let address = self
                            .address
                            .wrapping_add(position as u64)
                            .wrapping_add(consumed as u64);
                        // The personality routine itself is of no interest, only the bytes it takes.
                        let pointer = if encoding & encoding::APPLICATION == encoding::ALIGNED {
                            cursor.pointer(encoding::ALIGNED, address, &self.bases)
                        } else {
                            cursor.value(encoding)
                        };
                        pointer.ok_or(BAD)?;
                    }
                }
                b'S' => cie.initial.mark_signal(),
                // AArch64's pointer authentication; says nothing here.
                b'B' => {}
                _ => return Err(Omission::UnknownAugmentation),
            }
        }
        Ok(())
    }
}

/// A CIE's instructions make no rows.
struct NoRows;

impl RowSink for NoRows {
    fn row(&mut self, _: u64, _: u64, _: &Frame) {}
    fn unreadable(&mut self, _: u64, _: u64, _: Omission) {}
}
