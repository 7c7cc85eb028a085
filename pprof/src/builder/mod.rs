//! Builds a profile table by table. What it gives out always keeps the format's rules: ids are 1..n in order, the first
//! string is "", every reference exists. Takes numbers and text; symbolizes nothing and has no clock.

mod function;
mod location;
mod mapping;
mod sample;
mod string_table;

pub use function::FunctionId;
pub use location::{Line, LocationId};
pub use mapping::{Mapping, MappingId};
pub use sample::Labels;

use function::FunctionTable;
use location::LocationTable;
use mapping::MappingTable;
use sample::SampleTable;
use string_table::StringTable;

use crate::proto::{Profile, ValueType};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// When and how the samples were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Start, nanoseconds since 1970 UTC.
    pub time_nanos: i64,
    /// Length, nanoseconds.
    pub duration_nanos: i64,
    /// Samples a second and CPU; 0 leaves the period unsaid.
    pub frequency: u32,
}

/// A profile in the making. It takes only ids that it gave out itself.
#[derive(Debug)]
pub struct Builder {
    meta: Meta,
    strings: StringTable,
    mappings: MappingTable,
    functions: FunctionTable,
    locations: LocationTable,
    samples: SampleTable,
    comments: Vec<i64>,
}

impl Builder {
    /// A profile without samples.
    #[must_use]
    pub fn new(meta: Meta) -> Self {
        Self {
            meta,
            strings: StringTable::default(),
            mappings: MappingTable::default(),
            functions: FunctionTable::default(),
            locations: LocationTable::default(),
            samples: SampleTable::default(),
            comments: Vec::new(),
        }
    }

    /// The mapping's id; equal mappings have one.
    pub fn mapping(&mut self, mapping: &Mapping<'_>) -> MappingId {
        self.mappings.intern(mapping, &mut self.strings)
    }

    /// The function's id; equal functions have one. `name` is for people, `system_name` as in the symbol table, `filename`
    /// the source file; each may be "".
    pub fn function(&mut self, name: &str, system_name: &str, filename: &str) -> FunctionId {
        self.functions
            .intern(name, system_name, filename, &mut self.strings)
    }

    /// The location's id; equal locations have one. `address` is 0 where there is none, `lines` are the functions there,
    /// innermost first, none when it has no name.
    pub fn location(
        &mut self,
        mapping: Option<MappingId>,
        address: u64,
        lines: &[Line],
    ) -> LocationId {
        self.locations.intern(mapping, address, lines)
    }

    /// Counts `count` samples of a stack (leaf first). Equal stacks under equal labels become one pprof sample.
    pub fn sample(&mut self, stack: &[LocationId], labels: &Labels<'_>, count: u64) {
        self.samples.count(stack, labels, count, &mut self.strings);
    }

    /// Adds a remark for people, like `dropped: ring_full: 3`.
    pub fn comment(&mut self, text: &str) {
        let index = self.strings.intern(text);
        self.comments.push(index);
    }

    /// How many pprof samples there are by now.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        self.samples.len()
    }

    /// The profile.
    #[must_use]
    pub fn finish(mut self) -> Profile {
        let mut value_type = |kind: &str, unit: &str| ValueType {
            r#type: self.strings.intern(kind),
            unit: self.strings.intern(unit),
        };
        let sample_type = value_type("samples", "count");
        let period_type = value_type("cpu", "nanoseconds");
        let period = NANOS_PER_SECOND
            .checked_div(self.meta.frequency.into())
            .unwrap_or(0);
        let function = self.functions.finish();
        let location = self.locations.finish();
        let mapping = self.mappings.finish(&location, &function);
        Profile {
            sample_type: vec![sample_type],
            sample: self.samples.finish(),
            mapping,
            location,
            function,
            string_table: self.strings.finish(),
            time_nanos: self.meta.time_nanos,
            duration_nanos: self.meta.duration_nanos,
            period_type: Some(period_type),
            period,
            comment: self.comments,
            ..Profile::default()
        }
    }
}

#[cfg(test)]
mod tests;
