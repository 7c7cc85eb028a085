//! Owns the reading of Go's `.gopclntab` (Go 1.18 and later; src/internal/abi/symtab.go, src/runtime/symtab.go): every
//! Go program has it, also a stripped one. Functions, files and lines; calls that were inlined show as their caller.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::sync::Arc;

use gimli::{EndianSlice, LittleEndian, Reader};

use crate::elf::Elf;
use crate::file_bytes::FileBytes;
use crate::reason::Reason;
use crate::section::Section;
use crate::work::Work;

/// `internal/abi.Go118PCLnTabMagic`.
const MAGIC_1_18: u32 = 0xffff_fff0;
/// `internal/abi.Go120PCLnTabMagic`, in use up to Go 1.26.
const MAGIC_1_20: u32 = 0xffff_fff1;
/// Bytes of the header: eight bytes of numbers, then eight words.
pub const HEADER_BYTES: usize = 72;
/// Functions of one program; the largest have about 300,000.
const MAX_FUNCTIONS: u64 = 2 << 20;
/// Bytes of a function's table of lines or files that are read.
const MAX_TABLE: u64 = 64 << 10;
/// Place of `text` among the words of `runtime.moduledata`.
pub const MODULE_TEXT: u64 = 22 * 8;

/// A frame as the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoFrame {
    /// The function with its package path.
    pub function: String,
    /// Source file.
    pub file: Option<String>,
    /// Line, 0 when unknown.
    pub line: u32,
    /// Whether it was inlined into the next frame's function.
    pub inlined: bool,
}

/// A program's Go functions.
#[derive(Debug)]
pub struct GoFunctions {
    table: Section,
    /// ELF address that entries count from.
    text: u64,
    /// Bytes of the shortest instruction.
    quantum: u64,
    names: u64,
    compilation_units: u64,
    files: u64,
    values: u64,
    functions: u64,
    /// Entry and place of its record, ascending; the last one ends the others and has no record.
    entries: Vec<(u32, u32)>,
}

/// The head of the table: places in it, and what its numbers count from.
#[derive(Debug)]
pub struct Header {
    pub quantum: u8,
    pub count: u64,
    pub text: u64,
    pub names: u64,
    compilation_units: u64,
    files: u64,
    pub values: u64,
    pub functions: u64,
}

impl Header {
    /// Nothing for formats of other versions.
    pub fn parse(mut bytes: EndianSlice<'_, LittleEndian>) -> gimli::Result<Option<Self>> {
        let magic = bytes.read_u32()?;
        let _zeros = bytes.read_u16()?;
        let quantum = bytes.read_u8()?;
        let pointer = bytes.read_u8()?;
        if !matches!(magic, MAGIC_1_18 | MAGIC_1_20) || pointer != 8 {
            return Ok(None);
        }
        let count = bytes.read_u64()?;
        let _files = bytes.read_u64()?;
        Ok(Some(Self {
            quantum,
            count,
            text: bytes.read_u64()?,
            names: bytes.read_u64()?,
            compilation_units: bytes.read_u64()?,
            files: bytes.read_u64()?,
            values: bytes.read_u64()?,
            functions: bytes.read_u64()?,
        }))
    }
}

impl GoFunctions {
    /// Reads the table of functions; nothing for programs that are not Go, or of a Go older than 1.18.
    pub fn read(file: &Arc<FileBytes>, elf: &Elf, work: &Work) -> Result<Option<Self>, Reason> {
        let section = elf
            .section(b".gopclntab")
            .or_else(|| elf.section(b".data.rel.ro.gopclntab"));
        let Some(section) = section else {
            return Ok(None);
        };
        let table = Section::open(file, elf.class(), section, 0)?;
        let Some(header) = table.parse(0, HEADER_BYTES as u64, Header::parse)? else {
            return Ok(None);
        };
        if header.count > MAX_FUNCTIONS {
            return Err(Reason::TooLarge);
        }
        // The last entry has an address only.
        let size = header.count.saturating_mul(8).saturating_add(4);
        work.spend(size)?;
        let bytes = table.read(header.functions, size)?;
        let (pairs, end) = bytes.as_chunks::<8>();
        let mut entries: Vec<_> = pairs
            .iter()
            .map(|pair| {
                let both = u64::from_le_bytes(*pair);
                (both as u32, (both >> 32) as u32)
            })
            .collect();
        if let Some(end) = end.first_chunk::<4>() {
            entries.push((u32::from_le_bytes(*end), u32::MAX));
        }
        if !entries.is_sorted_by_key(|(entry, _)| *entry) {
            return Err(Reason::Malformed);
        }
        Ok(Some(Self {
            text: text_start(file, elf, header.text).ok_or(Reason::Malformed)?,
            quantum: header.quantum.into(),
            names: header.names,
            compilation_units: header.compilation_units,
            files: header.files,
            values: header.values,
            functions: header.functions,
            entries,
            table,
        }))
    }

    /// The frame at an ELF address; none outside of Go code.
    pub fn frames(&self, address: u64, work: &Work) -> Result<Vec<GoFrame>, Reason> {
        let Some(target) = address
            .checked_sub(self.text)
            .and_then(|distance| u32::try_from(distance).ok())
        else {
            return Ok(Vec::new());
        };
        let behind = self.entries.partition_point(|(entry, _)| *entry <= target);
        let entry = behind.checked_sub(1).and_then(|at| self.entries.get(at));
        let Some(&(entry, place)) = entry.filter(|(_, place)| *place != u32::MAX) else {
            return Ok(Vec::new());
        };
        let record = self.at(self.functions, place.into())?;
        // The start of `runtime._func`: entryOff, nameOff, args, deferreturn, pcsp, pcfile, pcln, npcdata, cuOffset.
        let words = self.table.parse(record, 36, |mut bytes| {
            let mut words = [0; 9];
            for word in &mut words {
                *word = bytes.read_u32()?;
            }
            Ok(words)
        })?;
        let [_, name, _, _, _, file_table, line_table, _, unit] = words;
        let name = self.table.string(self.at(self.names, name.into())?)?;
        if name.is_empty() {
            return Ok(Vec::new());
        }
        let distance = u64::from(target.saturating_sub(entry));
        let line = self.value(line_table, distance, work)?;
        let file = self
            .value(file_table, distance, work)?
            .and_then(|number| self.file(unit, number));
        Ok(vec![GoFrame {
            function: String::from_utf8_lossy(&name).into_owned(),
            file,
            line: line.and_then(|line| u32::try_from(line).ok()).unwrap_or(0),
            inlined: false,
        }])
    }

    fn at(&self, base: u64, offset: u64) -> Result<u64, Reason> {
        base.checked_add(offset).ok_or(Reason::Malformed)
    }

    /// Looks up a table of values by distance from the function's entry: pairs of varints, the change of the value
    /// (zigzag, from -1 on) and the number of instruction quanta it then holds (`runtime.step`).
    fn value(&self, table: u32, distance: u64, work: &Work) -> Result<Option<i64>, Reason> {
        if table == 0 {
            return Ok(None);
        }
        let start = self.at(self.values, table.into())?;
        let quantum = self.quantum;
        let mut read = 0;
        let value = self.table.parse(start, 256, |mut bytes| {
            read = bytes.len() as u64;
            if read > MAX_TABLE {
                return Ok(None);
            }
            let (mut value, mut end, mut first) = (-1_i64, 0_u64, true);
            loop {
                let change = bytes.read_uleb128()?;
                if change == 0 && !first {
                    return Ok(None);
                }
                first = false;
                let change = (change >> 1) as i64 ^ (change & 1).wrapping_neg() as i64;
                value = value.wrapping_add(change);
                end = end.saturating_add(bytes.read_uleb128()?.saturating_mul(quantum));
                if distance < end {
                    return Ok(Some(value));
                }
            }
        })?;
        work.spend(read)?;
        Ok(value.filter(|value| *value >= 0))
    }

    fn file(&self, unit: u32, number: i64) -> Option<String> {
        // The unit's first file among all units' files: places of names, four bytes each.
        let index = u64::from(unit).checked_add(u64::try_from(number).ok()?)?;
        let place = self.compilation_units.checked_add(index.checked_mul(4)?)?;
        let bytes = self.table.read(place, 4).ok()?;
        let offset = u32::from_le_bytes(*bytes.first_chunk::<4>()?);
        if offset == u32::MAX {
            return None;
        }
        let name = self
            .table
            .string(self.files.checked_add(offset.into())?)
            .ok()?;
        (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into_owned())
    }

    /// Bytes of memory this holds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of_val(self.entries.as_slice()).saturating_add(self.table.heap_bytes())
    }
}

/// Where Go's code starts. The header says so until Go 1.25 (in a PIE by a relocation only); since Go 1.26 the module
/// data say so, which have a section of their own. Without C code, it is where `.text` starts.
fn text_start(file: &FileBytes, elf: &Elf, stated: u64) -> Option<u64> {
    let is_start = |address: &u64| *address != 0 && elf.is_text(*address);
    let module = || {
        let header = elf.section(b".go.module")?;
        let bytes = file.read(header.offset.checked_add(MODULE_TEXT)?, 8).ok()?;
        Some(u64::from_le_bytes(*bytes.first_chunk::<8>()?))
    };
    Some(stated)
        .filter(is_start)
        .or_else(|| module().filter(is_start))
        .or_else(|| elf.section(b".text").map(|header| header.address))
}
