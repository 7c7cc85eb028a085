//! Says what a file's addresses can be named by, and which of its sections that takes.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::collections::BTreeSet;

use leadsman_executable::file_bytes::FileBytes;

use crate::fault::Fault;
use crate::headers::{
    Class, Headers, SHT_DYNSYM, SHT_NOTE, SHT_STRTAB, SHT_SYMTAB, SHT_SYMTAB_SHNDX, SectionHeader,
};

/// Bytes of a symbol table that are read at a time; a multiple of both symbols' sizes.
const CHUNK: u64 = 48 << 10;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;
/// What old linkers export from everything.
const START_AND_END: [&[u8]; 2] = [b"_init", b"_fini"];

/// Sections beside DWARF, symbol tables and notes that naming an address takes. Go's function table is whole in
/// `.gopclntab`; where its code starts stands in the module data since Go 1.26. The links to further debug files and the
/// compiler's name cost nothing. `.rela.plt` says which function a PLT entry calls: Parca (pkg/symbol/addr2line/symtab.go)
/// names nothing at all from a symbol table where that section is there without its bytes.
const NAMED: [&[u8]; 12] = [
    b".gopclntab",
    b".data.rel.ro.gopclntab",
    b".gosymtab",
    b".data.rel.ro.gosymtab",
    b".go.buildinfo",
    b".go.module",
    b".gnu_debuglink",
    b".gnu_debugaltlink",
    b".gnu_debugdata",
    b".comment",
    b".note.go.buildid",
    b".rela.plt",
];
/// A compiler plugin's log of every function: notes by type, megabytes by size, and no name in them.
const ANNOTATIONS: &[u8] = b".gnu.build.attributes";

/// What names a file's addresses, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Symbols {
    /// Nothing.
    None,
    /// Exported functions only.
    Exported,
    /// All functions: a symbol table, or Go's table.
    Functions,
    /// Functions, files and lines.
    Dwarf,
}

impl Symbols {
    /// Looks for the best that the file has.
    ///
    /// # Errors
    /// Its tables lead nowhere.
    pub(crate) fn of(file: &FileBytes, headers: &Headers) -> Result<Self, Fault> {
        let dwarf: [&[u8]; 2] = [b".debug_info", b".zdebug_info"];
        if dwarf.iter().any(|name| headers.section(name).is_some()) {
            return Ok(Self::Dwarf);
        }
        let go = NAMED.iter().take(2);
        let mut go = go.filter_map(|name| headers.section(name));
        if go.next().is_some() || has_functions(file, headers, SHT_SYMTAB)? {
            return Ok(Self::Functions);
        }
        if has_functions(file, headers, SHT_DYNSYM)? {
            return Ok(Self::Exported);
        }
        Ok(Self::None)
    }
}

/// Whether a symbol table of that kind names a function that the file itself has.
fn has_functions(file: &FileBytes, headers: &Headers, kind: u32) -> Result<bool, Fault> {
    let tables = headers.sections.iter().filter(|table| table.kind == kind);
    for table in tables.filter(|table| table.has_bytes()) {
        let names = headers.sections.get(table.link as usize);
        let mut at = 0;
        while at < table.size {
            let start = table.offset.saturating_add(at);
            let bytes = file.read(start, CHUNK.min(table.size.saturating_sub(at)))?;
            let symbols = bytes.chunks_exact(headers.class.symbol() as usize);
            for symbol in symbols {
                if let Some(name) = defined_function(symbol, headers.class)
                    && !is_start_or_end(file, names, name)
                {
                    return Ok(true);
                }
            }
            at = at.saturating_add(CHUNK);
        }
    }
    Ok(false)
}

/// The place of a defined function's name (`Elf32_Sym`, `Elf64_Sym`).
pub(crate) fn defined_function(symbol: &[u8], class: Class) -> Option<u32> {
    let (info, section) = match class {
        Class::Elf32 => (12, 14),
        Class::Elf64 => (4, 6),
    };
    let kind = symbol.get(info)? & 15;
    let section = u16::from_le_bytes(*symbol.get(section..)?.first_chunk()?);
    let name = u32::from_le_bytes(*symbol.first_chunk()?);
    let is_function = kind == STT_FUNC || kind == STT_GNU_IFUNC;
    (is_function && section != 0 && name != 0).then_some(name)
}

/// A symbol's value.
pub(crate) fn value(symbol: &[u8], class: Class) -> Option<u64> {
    match class {
        Class::Elf32 => Some(u32::from_le_bytes(*symbol.get(4..)?.first_chunk()?).into()),
        Class::Elf64 => Some(u64::from_le_bytes(*symbol.get(8..)?.first_chunk()?)),
    }
}

fn is_start_or_end(file: &FileBytes, names: Option<&SectionHeader>, name: u32) -> bool {
    let start = names.map(|names| names.offset.saturating_add(name.into()));
    let bytes = start.and_then(|start| file.read_up_to(start, 6).ok());
    bytes.is_some_and(|bytes| {
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        START_AND_END.contains(&name)
    })
}

/// Whether a section's name says that it holds DWARF.
pub(crate) fn is_dwarf(name: &[u8]) -> bool {
    name.starts_with(b".debug_") || name.starts_with(b".zdebug_")
}

/// The numbers of the sections whose bytes are kept.
pub(crate) fn kept(headers: &Headers) -> BTreeSet<usize> {
    let mut kept = BTreeSet::new();
    for (number, section) in headers.sections.iter().enumerate() {
        let name = headers.name(section);
        let symbols = matches!(section.kind, SHT_SYMTAB | SHT_DYNSYM);
        let note = section.kind == SHT_NOTE && !name.starts_with(ANNOTATIONS);
        if symbols
            || note
            || section.kind == SHT_SYMTAB_SHNDX
            || is_dwarf(name)
            || NAMED.contains(&name)
        {
            kept.insert(number);
        }
        let strings = section.link as usize;
        let is_strings = |strings: &SectionHeader| strings.kind == SHT_STRTAB;
        if symbols && headers.sections.get(strings).is_some_and(is_strings) {
            kept.insert(strings);
        }
    }
    kept.insert(headers.names_index as usize);
    kept.retain(|number| {
        let section = headers.sections.get(*number);
        section.is_some_and(SectionHeader::has_bytes)
    });
    kept
}
