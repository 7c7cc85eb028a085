//! The profile's locations, each once: an address of a mapping with the functions found there.

use foldhash::fast::RandomState;
use indexmap::IndexSet;

use super::function::FunctionId;
use super::mapping::MappingId;
use crate::proto;

/// A location of one builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocationId(pub(super) u64);

/// A function at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The function.
    pub function: FunctionId,
    /// Source line; 0 when unknown.
    pub line: i64,
}

#[derive(Debug, Default)]
pub(super) struct LocationTable {
    // Their ids are 0 until the end.
    locations: IndexSet<proto::Location, RandomState>,
}

impl LocationTable {
    pub(super) fn intern(
        &mut self,
        mapping: Option<MappingId>,
        address: u64,
        lines: &[Line],
    ) -> LocationId {
        let location = proto::Location {
            id: 0,
            mapping_id: mapping.map_or(0, |mapping| mapping.0),
            address,
            line: lines
                .iter()
                .map(|line| proto::Line {
                    function_id: line.function.0,
                    line: line.line,
                    column: 0,
                })
                .collect(),
            is_folded: false,
        };
        LocationId(self.locations.insert_full(location).0 as u64 + 1)
    }

    pub(super) fn finish(self) -> Vec<proto::Location> {
        (1..)
            .zip(self.locations)
            .map(|(id, location)| proto::Location { id, ..location })
            .collect()
    }
}
