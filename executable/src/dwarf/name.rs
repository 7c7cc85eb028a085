//! Owns the way from an entry to its function's name, through the entries it refers to (DWARF 5, 3.3.8.2, 3.3.9).

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::sync::Arc;

use gimli::{AttributeValue, DwLang, constants};

use super::unit::{Unit, Value};
use super::{Dwarf, DwarfName};
use crate::reason::Reason;
use crate::work::Work;

/// Entries on the way to a name; compilers need three (inlined call, abstract instance, declaration).
const MAX_HOPS: usize = 16;

/// An entry that another one refers to.
enum Reference {
    /// Of the same unit.
    Here(u64),
    /// At this offset of `.debug_info`.
    Anywhere(u64),
}

impl Reference {
    fn of(value: &Value<'_>) -> Option<Self> {
        match value {
            AttributeValue::UnitRef(offset) => Some(Self::Here(offset.0 as u64)),
            AttributeValue::DebugInfoRef(offset) => Some(Self::Anywhere(offset.0 as u64)),
            _ => None,
        }
    }
}

impl Dwarf {
    /// The name of the function at an entry; `None` when debuginfo has none.
    pub(super) fn name(
        &mut self,
        unit: &Arc<Unit>,
        entry: u32,
        work: &Work,
    ) -> Result<Option<DwarfName>, Reason> {
        let mut unit = Arc::clone(unit);
        let mut entry = u64::from(entry);
        let mut plain = None;
        for _ in 0..MAX_HOPS {
            let mut linkage = None;
            let mut next = None;
            let read = unit.entry(&self.sections, entry, work, |name, value| match name {
                constants::DW_AT_linkage_name | constants::DW_AT_MIPS_linkage_name => {
                    linkage = unit.string(&self.sections, &value);
                }
                constants::DW_AT_name if plain.is_none() => {
                    let linkage = unit.language.is_some_and(is_unmangled);
                    plain = unit
                        .string(&self.sections, &value)
                        .map(|bytes| to_name(&bytes, linkage));
                }
                constants::DW_AT_abstract_origin | constants::DW_AT_specification => {
                    next = Reference::of(&value);
                }
                _ => {}
            });
            match read {
                Ok(_) => {}
                Err(Reason::WorkLimit) => return Err(Reason::WorkLimit),
                Err(_damage) => break,
            }
            if let Some(linkage) = linkage {
                return Ok(Some(to_name(&linkage, true)));
            }
            match next {
                None => break,
                Some(Reference::Here(offset)) => entry = offset,
                Some(Reference::Anywhere(offset)) => {
                    let Some(number) = self.units.of_entry(offset) else {
                        break;
                    };
                    unit = self.unit(number, work)?;
                    entry = offset.saturating_sub(unit.place.offset);
                }
            }
        }
        Ok(plain)
    }
}

fn to_name(bytes: &[u8], linkage: bool) -> DwarfName {
    DwarfName {
        text: String::from_utf8_lossy(bytes).into_owned(),
        linkage,
    }
}

/// Languages whose names reach the linker as they are written.
fn is_unmangled(language: DwLang) -> bool {
    matches!(
        language,
        constants::DW_LANG_C
            | constants::DW_LANG_C89
            | constants::DW_LANG_C99
            | constants::DW_LANG_C11
            | constants::DW_LANG_C17
            | constants::DW_LANG_Go
            | constants::DW_LANG_Fortran77
            | constants::DW_LANG_Fortran90
            | constants::DW_LANG_Fortran95
            | constants::DW_LANG_Fortran03
            | constants::DW_LANG_Fortran08
            | constants::DW_LANG_Pascal83
            | constants::DW_LANG_Modula2
            | constants::DW_LANG_Cobol74
            | constants::DW_LANG_Cobol85
            | constants::DW_LANG_UPC
            | constants::DW_LANG_Zig
    )
}
