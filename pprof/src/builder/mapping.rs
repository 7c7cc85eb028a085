//! The profile's mappings, each once, and what is known of the code in them.

use foldhash::fast::RandomState;
use indexmap::IndexSet;

use super::string_table::StringTable;
use crate::proto;

/// A mapping of one builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MappingId(pub(super) u64);

/// A range of addresses backed by part of an executable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub limit: u64,
    /// File offset of `start`.
    pub file_offset: u64,
    /// Path, or a name like `[vdso]`.
    pub filename: &'a str,
    /// Build ID in lower-case hexadecimal; "" when there is none.
    pub build_id: &'a str,
}

#[derive(Debug, Default)]
pub(super) struct MappingTable {
    // Their ids are 0 and their has_* flags unset until the end.
    mappings: IndexSet<proto::Mapping, RandomState>,
}

impl MappingTable {
    pub(super) fn intern(&mut self, mapping: &Mapping<'_>, strings: &mut StringTable) -> MappingId {
        let mapping = proto::Mapping {
            memory_start: mapping.start,
            memory_limit: mapping.limit,
            file_offset: mapping.file_offset,
            filename: strings.intern(mapping.filename),
            build_id: strings.intern(mapping.build_id),
            ..proto::Mapping::default()
        };
        MappingId(self.mappings.insert_full(mapping).0 as u64 + 1)
    }

    /// A reader symbolizes a mapping's addresses itself unless its flags say that this was done, so one named location
    /// sets them.
    pub(super) fn finish(
        self,
        locations: &[proto::Location],
        functions: &[proto::Function],
    ) -> Vec<proto::Mapping> {
        let mut mappings: Vec<proto::Mapping> = (1..)
            .zip(self.mappings)
            .map(|(id, mapping)| proto::Mapping { id, ..mapping })
            .collect();
        for location in locations {
            let Some(mapping) = by_id(location.mapping_id).and_then(|at| mappings.get_mut(at))
            else {
                continue;
            };
            mapping.has_functions |= !location.line.is_empty();
            mapping.has_inline_frames |= location.line.len() > 1;
            mapping.has_line_numbers |= location.line.iter().any(|line| line.line != 0);
            mapping.has_filenames |= location.line.iter().any(|line| {
                by_id(line.function_id)
                    .and_then(|at| functions.get(at))
                    .is_some_and(|function| function.filename != 0)
            });
        }
        mappings
    }
}

/// Where the entry with this id stands, ids being 1..n in order.
fn by_id(id: u64) -> Option<usize> {
    usize::try_from(id).ok()?.checked_sub(1)
}
