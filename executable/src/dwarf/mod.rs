//! Owns a file's DWARF: from an ELF address to its function, inlined frames, files and lines. A unit is read when the
//! first address in it is asked for, and shrunk at once to compact tables; the bytes are not kept.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

mod functions;
mod inlined;
mod lines;
mod name;
mod sections;
mod unit;
mod units;

use std::collections::HashMap;
use std::sync::Arc;

use crate::elf::Elf;
use crate::file_bytes::FileBytes;
use crate::reason::Reason;
use crate::work::Work;

use functions::Functions;
use inlined::InlinedCalls;
use lines::Lines;
use sections::Sections;
use unit::Unit;
use units::Units;

/// Bytes of unit tables that are kept of one file; behind that they are all read again as needed.
const MAX_TABLES: usize = 48 << 20;
/// Inlined frames at one address.
const MAX_INLINED: usize = 255;

/// A frame as debuginfo has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DwarfFrame {
    /// The function's name as the linker saw it, else its plain name; `None` when debuginfo has none.
    pub function: Option<DwarfName>,
    /// ELF address where the function (or the inlined call's range) starts; none where only a line is known.
    pub start: Option<u64>,
    /// Source file.
    pub file: Option<String>,
    /// Line, counted from 1.
    pub line: Option<u32>,
}

/// A function's name and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DwarfName {
    /// The text.
    pub text: String,
    /// Whether the text is what the linker saw: a linkage name, or a language whose names are not mangled.
    pub linkage: bool,
}

/// One file's debuginfo.
#[derive(Debug)]
pub struct Dwarf {
    sections: Sections,
    units: Units,
    tables: HashMap<u32, Tables>,
    tables_bytes: usize,
}

/// What was read of one unit.
#[derive(Debug)]
struct Tables {
    unit: Arc<Unit>,
    functions: Option<Functions>,
    lines: Option<Result<Arc<Lines>, Reason>>,
    /// The function that was asked for last: the next address is likely in it too.
    last: Option<(u32, Arc<InlinedCalls>)>,
}

impl Dwarf {
    /// Reads which units there are and what addresses they cover; nothing when the file has no debuginfo.
    pub fn read(file: &Arc<FileBytes>, elf: &Elf, work: &Work) -> Result<Option<Self>, Reason> {
        let Some(sections) = Sections::open(file, elf)? else {
            return Ok(None);
        };
        let units = Units::read(&sections, elf, work)?;
        Ok(Some(Self {
            sections,
            units,
            tables: HashMap::new(),
            tables_bytes: 0,
        }))
    }

    /// The frames at an ELF address, innermost first; none when debuginfo does not cover it.
    pub fn frames(&mut self, address: u64, work: &Work) -> Result<Vec<DwarfFrame>, Reason> {
        let mut failure = None;
        let mut lines_only = Vec::new();
        for unit in self.units.at(address) {
            match self.frames_in(unit, address, work) {
                Ok(frames) if frames.first().is_some_and(|frame| frame.start.is_some()) => {
                    return Ok(frames);
                }
                Ok(frames) if lines_only.is_empty() => lines_only = frames,
                Ok(_) => {}
                Err(Reason::WorkLimit) => return Err(Reason::WorkLimit),
                Err(reason) => failure = Some(reason),
            }
        }
        match failure {
            Some(reason) if lines_only.is_empty() => Err(reason),
            _ => Ok(lines_only),
        }
    }

    fn frames_in(
        &mut self,
        unit: u32,
        address: u64,
        work: &Work,
    ) -> Result<Vec<DwarfFrame>, Reason> {
        self.load(unit, work)?;
        let Some(tables) = self.tables.get_mut(&unit) else {
            return Ok(Vec::new());
        };
        let lines = tables.lines.as_ref().and_then(|lines| lines.as_ref().ok());
        let lines = lines.map(Arc::clone);
        let place = lines.as_ref().and_then(|lines| lines.find(address));
        let file = |number: u64| {
            let lines = lines.as_ref()?;
            lines.path(number, &self.sections, &tables.unit)
        };
        let mut file_name = place.and_then(|place| file(place.file.into()));
        let mut line = place.and_then(|place| (place.line != 0).then_some(place.line));

        let functions = tables.functions.as_ref();
        let Some(function) = functions.and_then(|functions| functions.find(address)) else {
            return Ok(match (file_name, line) {
                (None, None) => Vec::new(),
                (file, line) => vec![DwarfFrame {
                    function: None,
                    start: None,
                    file,
                    line,
                }],
            });
        };
        let inlined = match &tables.last {
            Some((entry, inlined)) if *entry == function.entry => Arc::clone(inlined),
            _ => {
                let inlined = Arc::new(InlinedCalls::read(
                    &self.sections,
                    &tables.unit,
                    function.entry,
                    function.entry_end,
                    work,
                )?);
                tables.last = Some((function.entry, Arc::clone(&inlined)));
                inlined
            }
        };
        let unit = Arc::clone(&tables.unit);
        let mut calls: Vec<_> = inlined.at(address).copied().collect();
        calls.sort_by_key(|call| call.depth);
        calls.truncate(MAX_INLINED);
        // A function's frame shows where it was when it called the frame before, the innermost where it is.
        let mut frames = Vec::with_capacity(calls.len().saturating_add(1));
        for call in calls.iter().rev() {
            let counts_from_0 = unit.encoding.version >= 5;
            let call_file = (call.file != 0 || counts_from_0)
                .then(|| file(call.file))
                .flatten();
            let call_line = (call.line != 0).then_some(call.line);
            frames.push((
                call.entry,
                call.begin,
                std::mem::replace(&mut file_name, call_file),
                std::mem::replace(&mut line, call_line),
            ));
        }
        frames.push((function.entry, function.start, file_name, line));
        frames
            .into_iter()
            .map(|(entry, start, file, line)| {
                Ok(DwarfFrame {
                    function: self.name(&unit, entry, work)?,
                    start: Some(start),
                    file,
                    line,
                })
            })
            .collect()
    }

    /// Reads a unit's tables if they are not there.
    fn load(&mut self, unit: u32, work: &Work) -> Result<(), Reason> {
        if self
            .tables
            .get(&unit)
            .is_some_and(|tables| tables.functions.is_some())
        {
            return Ok(());
        }
        if self.tables_bytes > MAX_TABLES {
            self.shed();
        }
        let read = self.unit(unit, work)?;
        let functions = match Functions::read(&self.sections, &read, work) {
            Ok(functions) => functions,
            Err(Reason::WorkLimit) => return Err(Reason::WorkLimit),
            // A unit that can't be walked may still have good lines; it is not walked again.
            Err(_reason) => Functions::default(),
        };
        let lines = read
            .line_program
            .map(|offset| Lines::read(&self.sections, &read, offset, work).map(Arc::new));
        let bytes = functions
            .heap_bytes()
            .saturating_add(lines.as_ref().map_or(0, |lines| {
                lines.as_ref().map_or(0, |lines| lines.heap_bytes())
            }));
        if let Some(tables) = self.tables.get_mut(&unit) {
            tables.functions = Some(functions);
            tables.lines = lines;
        }
        self.tables_bytes = self.tables_bytes.saturating_add(bytes);
        Ok(())
    }

    /// The head of a unit, which names in other units refer to.
    fn unit(&mut self, number: u32, work: &Work) -> Result<Arc<Unit>, Reason> {
        if let Some(tables) = self.tables.get(&number) {
            return Ok(Arc::clone(&tables.unit));
        }
        let place = self.units.place(number).ok_or(Reason::DebuginfoDamaged)?;
        let unit = Arc::new(Unit::read(&self.sections, place, None, work)?);
        self.tables_bytes = self.tables_bytes.saturating_add(unit.heap_bytes());
        self.tables.insert(
            number,
            Tables {
                unit: Arc::clone(&unit),
                functions: None,
                lines: None,
                last: None,
            },
        );
        Ok(unit)
    }

    /// Forgets what was read of units; it is read again as needed.
    pub fn shed(&mut self) {
        self.tables = HashMap::new();
        self.tables_bytes = 0;
    }

    /// Bytes of memory this holds, estimated.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.sections
            .heap_bytes()
            .saturating_add(self.units.heap_bytes())
            .saturating_add(self.tables_bytes)
    }
}
