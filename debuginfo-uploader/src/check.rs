//! Asks the original and the extract for the names of the same addresses, and compares the answers: functions, files,
//! lines and inlined calls.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::collections::BTreeSet;

use leadsman_executable::executable::Executable;
use leadsman_executable::file_bytes::FileBytes;
use leadsman_executable::reason::Reason;

use crate::contents::is_dwarf;
use crate::fault::Fault;
use crate::headers::{Headers, PT_LOAD, SHF_COMPRESSED, SHT_DYNSYM, SHT_SYMTAB};

/// Addresses that are asked for: spread over the code, and at functions' starts.
const SPREAD: u64 = 24;
const STARTS: u64 = 24;
/// Bytes of tables and compressed sections that a file may have to be asked: reading names holds that much in memory.
/// Larger files are compared byte for byte only.
const MAX_HELD: u64 = 24 << 20;
/// Bytes that a byte of a compressed section may become; debuginfo reaches about 10.
const RATIO: u64 = 8;

/// A frame's text.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    function: String,
    system_name: String,
    file: Option<String>,
    line: u32,
    inlined: bool,
}

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// So many addresses have the same names; those that neither file names are not counted.
    Names(u64),
    /// The file is too large to be asked for names.
    BytesOnly,
}

/// Compares the names that two files give.
///
/// # Errors
/// They differ.
pub(crate) fn names(
    source: &FileBytes,
    headers: &Headers,
    open: impl Fn() -> std::io::Result<(std::fs::File, std::fs::File)>,
) -> Result<Checked, Fault> {
    if held(headers) > MAX_HELD {
        return Ok(Checked::BytesOnly);
    }
    let (original, extract) = open().map_err(Fault::Read)?;
    let addresses = sample(source, headers);
    // One after the other: only one file's tables are in memory.
    let wanted = ask(original, &addresses)?;
    let found = ask(extract, &addresses)?;
    let mut named = 0_u64;
    for ((address, wanted), found) in addresses.iter().zip(wanted).zip(found) {
        let (Some(wanted), Some(found)) = (wanted, found) else {
            continue;
        };
        if wanted != found {
            let one = |lines: &[Line]| {
                let line = lines.first().map(|line| line.function.clone());
                line.unwrap_or_else(|| "no name".to_owned())
            };
            return Err(Fault::Differs(format!(
                "{} at {address:#x}, {} in the file",
                one(&found),
                one(&wanted)
            )));
        }
        named = named.saturating_add(u64::from(!wanted.is_empty()));
    }
    Ok(Checked::Names(named))
}

/// Bytes that reading names would hold.
fn held(headers: &Headers) -> u64 {
    let bytes = headers.sections.iter().map(|section| {
        let name = headers.name(section);
        if !section.has_bytes() {
            0
        } else if matches!(section.kind, SHT_SYMTAB | SHT_DYNSYM) || name.ends_with(b"gopclntab") {
            section.size
        } else if is_dwarf(name) && section.flags & SHF_COMPRESSED != 0 || name.starts_with(b".z") {
            section.size.saturating_mul(RATIO)
        } else {
            0
        }
    });
    bytes.fold(0, u64::saturating_add)
}

/// The addresses to ask for, ascending.
fn sample(source: &FileBytes, headers: &Headers) -> BTreeSet<u64> {
    let mut addresses = BTreeSet::new();
    let segments = headers.segments().into_iter();
    for code in segments
        .filter(|segment| segment.kind == PT_LOAD && segment.executable)
        .take(4)
    {
        let step = code.file_size.checked_div(SPREAD).unwrap_or(0).max(1);
        addresses.extend((0..SPREAD).map(|nth| {
            let distance = nth.saturating_mul(step);
            code.address.saturating_add(distance)
        }));
    }
    let is_table = |kind| move |table: &&crate::headers::SectionHeader| table.kind == kind;
    let tables = &headers.sections;
    let table = tables
        .iter()
        .find(is_table(SHT_SYMTAB))
        .or_else(|| tables.iter().find(is_table(SHT_DYNSYM)));
    if let Some(table) = table.filter(|table| table.has_bytes()) {
        let size = headers.class.symbol();
        let count = table.size.checked_div(size).unwrap_or(0);
        let step = count.checked_div(STARTS).unwrap_or(0).max(1);
        for nth in (0..STARTS).map(|nth| nth.saturating_mul(step)) {
            let at = table.offset.saturating_add(nth.saturating_mul(size));
            if let Ok(symbol) = source.read(at, size)
                && crate::contents::defined_function(&symbol, headers.class).is_some()
            {
                addresses.extend(crate::contents::value(&symbol, headers.class));
            }
        }
    }
    addresses
}

/// Each address's frames, innermost first; `None`: finding them took more work than one question may.
fn ask(file: std::fs::File, addresses: &BTreeSet<u64>) -> Result<Vec<Option<Vec<Line>>>, Fault> {
    let mut executable = Executable::read(FileBytes::of_file(file)?)?;
    let mut answers = Vec::new();
    for address in addresses {
        let resolved = executable.frames(*address);
        if resolved.reason == Some(Reason::WorkLimit) {
            answers.push(None);
            continue;
        }
        let text = |id| resolved.names.get(id).to_owned();
        let lines = resolved.frames.iter().map(|frame| Line {
            function: text(frame.function),
            system_name: text(frame.system_name),
            file: frame.file.map(text),
            line: frame.line,
            inlined: frame.inlined,
        });
        answers.push(Some(lines.collect()));
    }
    Ok(answers)
}
