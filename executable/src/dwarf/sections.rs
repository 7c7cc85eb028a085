//! Owns the DWARF sections of one file. Those that are read piece by piece stay in the file.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::sync::Arc;

use crate::elf::Elf;
use crate::file_bytes::FileBytes;
use crate::reason::Reason;
use crate::section::Section;

/// Sections up to this size are read at once: one read costs less than many small ones.
const LOAD_BELOW: u64 = 256 << 10;
/// `.debug_addr` up to this size is read at once: every range list needs all of it.
const LOAD_ADDRESSES_BELOW: u64 = 64 << 20;
/// Bytes of all sections of a file that had to be expanded in memory.
const MAX_EXPANDED: usize = 384 << 20;

/// The sections.
#[derive(Debug)]
pub(super) struct Sections {
    pub info: Section,
    pub abbrev: Section,
    pub line: Section,
    pub line_str: Section,
    pub str: Section,
    pub str_offsets: Section,
    pub addr: Section,
    pub ranges: Section,
    pub rnglists: Section,
    pub aranges: Section,
}

impl Sections {
    /// Opens them; nothing when the file has no `.debug_info`.
    pub(super) fn open(file: &Arc<FileBytes>, elf: &Elf) -> Result<Option<Self>, Reason> {
        let Some(info) = Section::open_debug(file, elf, "info", LOAD_BELOW)? else {
            return Ok(None);
        };
        let mut expanded = info.heap_bytes();
        let mut open = |name| {
            let load_below = match name {
                "addr" => LOAD_ADDRESSES_BELOW,
                _ => LOAD_BELOW,
            };
            let section = Section::open_debug(file, elf, name, load_below)?;
            let section = section.unwrap_or_else(Section::empty);
            expanded = expanded.saturating_add(section.heap_bytes());
            if expanded > MAX_EXPANDED {
                return Err(Reason::DebuginfoTooLarge);
            }
            Ok(section)
        };
        Ok(Some(Self {
            abbrev: open("abbrev")?,
            line: open("line")?,
            line_str: open("line_str")?,
            str: open("str")?,
            str_offsets: open("str_offsets")?,
            addr: open("addr")?,
            ranges: open("ranges")?,
            rnglists: open("rnglists")?,
            aranges: open("aranges")?,
            info,
        }))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        [
            &self.info,
            &self.abbrev,
            &self.line,
            &self.line_str,
            &self.str,
            &self.str_offsets,
            &self.addr,
            &self.ranges,
            &self.rnglists,
            &self.aranges,
        ]
        .into_iter()
        .fold(0, |sum: usize, section| {
            sum.saturating_add(section.heap_bytes())
        })
    }
}
