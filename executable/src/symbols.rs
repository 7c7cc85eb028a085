//! Owns a file's symbol table in compact form: functions by ascending address, their names left in the file until
//! somebody asks. It knows nothing of lines or inlined frames.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use gimli::{EndianSlice, LittleEndian, Reader};

use crate::elf::{Class, Elf, SHF_EXECINSTR, SectionHeader};
use crate::file_bytes::FileBytes;
use crate::reason::Reason;
use crate::section::Section;
use crate::work::Work;

/// Symbols that are kept of one table: 128 MB of them. The largest browsers have about two million.
const MAX_SYMBOLS: usize = 8 << 20;
/// Symbols that are read at a time.
const CHUNK: u64 = 4096;
/// String tables up to this size are read at once.
const LOAD_NAMES_BELOW: u64 = 256 << 10;
/// Symbols before an address that are asked whether they cover it: functions nest one or two deep.
const MAX_NESTED: usize = 64;

/// Bytes between functions are padding if they are fewer: functions are aligned to a cache line at most.
const MAX_PADDING: u64 = 64;

const STT_NOTYPE: u8 = 0;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;
const STB_GLOBAL: u8 = 1;
const STB_WEAK: u8 = 2;
const SHN_UNDEF: u16 = 0;
/// `SHN_LORESERVE`: from here on an index is none (absolute, common, ...).
const SHN_LORESERVE: u16 = 0xff00;
const SHN_XINDEX: u16 = 0xffff;

#[derive(Clone, Copy, Debug)]
struct Row {
    start: u64,
    /// 0: unknown, up to the next symbol.
    size: u32,
    name: u32,
}

/// The functions of one symbol table.
#[derive(Debug)]
pub struct SymbolTable {
    rows: Vec<Row>,
    names: Section,
}

/// A function that covers an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// ELF address of its first byte.
    pub start: u64,
    name: u32,
}

/// A symbol as the file has it.
struct RawSymbol {
    name: u32,
    info: u8,
    section: u16,
    value: u64,
    size: u64,
}

impl RawSymbol {
    const fn size_in_file(class: Class) -> u64 {
        match class {
            Class::Elf32 => 16,
            Class::Elf64 => 24,
        }
    }

    fn read(fields: &mut EndianSlice<'_, LittleEndian>, class: Class) -> gimli::Result<Self> {
        let name = fields.read_u32()?;
        Ok(match class {
            Class::Elf32 => {
                let value = fields.read_u32()?.into();
                let size = fields.read_u32()?.into();
                let info = fields.read_u8()?;
                let _other = fields.read_u8()?;
                Self {
                    name,
                    info,
                    section: fields.read_u16()?,
                    value,
                    size,
                }
            }
            Class::Elf64 => {
                let info = fields.read_u8()?;
                let _other = fields.read_u8()?;
                Self {
                    name,
                    info,
                    section: fields.read_u16()?,
                    value: fields.read_u64()?,
                    size: fields.read_u64()?,
                }
            }
        })
    }

    /// Whether this names code that the file itself has.
    fn is_function(&self, elf: &Elf) -> bool {
        if self.name == 0 || self.section == SHN_UNDEF {
            return false;
        }
        let in_code = match self.section {
            SHN_XINDEX => true,
            SHN_LORESERVE.. => false,
            index => elf
                .section_at(index.into())
                .is_none_or(|header| header.flags & SHF_EXECINSTR != 0),
        };
        in_code
            && matches!(self.info & 15, STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE)
            && elf.is_text(self.value)
    }

    /// Which of several symbols at one address is shown: the greatest.
    fn rank(&self) -> u8 {
        let typed = u8::from(self.info & 15 != STT_NOTYPE);
        let sized = u8::from(self.size != 0);
        let binding = match self.info >> 4 {
            STB_GLOBAL => 2,
            STB_WEAK => 1,
            _ => 0,
        };
        typed << 3 | sized << 2 | binding
    }
}

impl SymbolTable {
    /// Reads `.symtab` or `.dynsym`; nothing when the file has none.
    pub fn read(
        file: &Arc<FileBytes>,
        elf: &Elf,
        name: &[u8],
        work: &Work,
    ) -> Result<Option<Self>, Reason> {
        let Some(header) = elf.section(name) else {
            return Ok(None);
        };
        let names = elf.section_at(header.link).ok_or(Reason::Malformed)?;
        let names = Section::open(file, elf.class(), names, LOAD_NAMES_BELOW)?;
        let rows = Self::read_rows(file, elf, header, work)?;
        Ok(Some(Self { rows, names }))
    }

    fn read_rows(
        file: &Arc<FileBytes>,
        elf: &Elf,
        header: &SectionHeader,
        work: &Work,
    ) -> Result<Vec<Row>, Reason> {
        let class = elf.class();
        let size = RawSymbol::size_in_file(class);
        let table = Section::open(file, class, header, 0)?;
        work.spend(table.len())?;
        let mut found: Vec<(Row, u8)> = Vec::new();
        let mut offset = 0_u64;
        while offset < table.len() {
            let bytes = table.read_up_to(offset, CHUNK.saturating_mul(size))?;
            for symbol in bytes.chunks_exact(usize::try_from(size).unwrap_or(24)) {
                let mut fields = EndianSlice::new(symbol, LittleEndian);
                let symbol =
                    RawSymbol::read(&mut fields, class).map_err(|_eof| Reason::Truncated)?;
                if !symbol.is_function(elf) {
                    continue;
                }
                if found.len() >= MAX_SYMBOLS {
                    return Err(Reason::TooLarge);
                }
                let row = Row {
                    start: symbol.value,
                    size: u32::try_from(symbol.size).unwrap_or(u32::MAX),
                    name: symbol.name,
                };
                found.push((row, symbol.rank()));
            }
            offset = offset.saturating_add(bytes.len() as u64);
        }
        found.sort_by_key(|(row, rank)| (row.start, Reverse(*rank)));
        found.dedup_by_key(|(row, _)| row.start);
        Ok(found.into_iter().map(|(row, _)| row).collect())
    }

    /// The function that covers an address: the innermost one whose size says so, else one right before it that is of
    /// unknown size or whose padding this is.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<Symbol> {
        let end = self.rows.partition_point(|row| row.start <= address);
        let before = self.rows.get(..end)?;
        let symbol = |row: &Row| Symbol {
            start: row.start,
            name: row.name,
        };
        let covering = before.iter().rev().take(MAX_NESTED).find(|row| {
            address
                .checked_sub(row.start)
                .is_some_and(|distance| distance < u64::from(row.size))
        });
        if let Some(row) = covering {
            return Some(symbol(row));
        }
        let nearest = before.last()?;
        if nearest.size == 0 {
            return Some(symbol(nearest));
        }
        let end_of = |row: &Row| row.start.saturating_add(row.size.into());
        let last = before
            .iter()
            .rev()
            .take(MAX_NESTED)
            .max_by_key(|row| end_of(row))?;
        let padding = self.rows.get(end)?.start.saturating_sub(end_of(last));
        (padding < MAX_PADDING).then(|| symbol(last))
    }

    /// The symbol's name as the file has it.
    pub fn name(&self, symbol: Symbol) -> Result<Cow<'_, [u8]>, Reason> {
        self.names.string(symbol.name.into())
    }

    /// How many functions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of memory this holds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of_val(self.rows.as_slice()).saturating_add(self.names.heap_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(u64, u32)]) -> SymbolTable {
        let rows: Vec<_> = rows
            .iter()
            .zip(1..)
            .map(|(&(start, size), name)| Row { start, size, name })
            .collect();
        SymbolTable {
            rows,
            names: Section::of_memory(b"\0".to_vec()),
        }
    }

    #[test]
    fn sizes_decide_what_covers_an_address() {
        let table = table(&[
            (100, 50),
            (120, 10),
            (200, 0),
            (300, 10),
            (320, 8),
            (900, 1),
        ]);
        let found = |address| table.find(address).map(|symbol| symbol.start);
        assert_eq!(found(99), None);
        assert_eq!(found(119), Some(100));
        assert_eq!(found(120), Some(120));
        assert_eq!(found(130), Some(100), "behind the nested one");
        assert_eq!(found(150), Some(100), "padding");
        assert_eq!(found(250), Some(200), "of unknown size");
        assert_eq!(found(309), Some(300));
        assert_eq!(found(310), Some(300), "padding");
        assert_eq!(found(328), None, "too far from the next one for padding");
    }

    #[test]
    fn finds_a_function_of_our_own() {
        let file = std::fs::File::open("/proc/self/exe").expect("own executable");
        let file = Arc::new(FileBytes::of_file(file).expect("regular file"));
        let elf = Elf::read(&file).expect("ELF");
        let table = SymbolTable::read(&file, &elf, b".symtab", &Work::default())
            .expect("readable")
            .expect("not stripped");
        let row = table
            .rows
            .iter()
            .find(|row| {
                let symbol = Symbol {
                    start: row.start,
                    name: row.name,
                };
                table.name(symbol).is_ok_and(|name| &*name == b"main")
            })
            .expect("main");
        let found = table.find(row.start + 1).expect("covered");
        assert_eq!(table.name(found).as_deref(), Ok(&b"main"[..]));
    }
}
