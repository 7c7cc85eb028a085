//! The tables of an OTLP request: each entry once, entry 0 of each is the empty one.

use std::collections::HashMap;
use std::hash::Hash;

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development::{
    Function, KeyValueAndUnit, Line, Link, Location, Mapping, ProfilesDictionary, Stack, ValueType,
};

/// Entries with their places.
#[derive(Debug)]
struct Table<K, V> {
    places: HashMap<K, i32>,
    entries: Vec<V>,
}

impl<K, V: Default> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            entries: vec![V::default()],
        }
    }
}

impl<K: Hash + Eq, V> Table<K, V> {
    fn intern(&mut self, key: K, value: impl FnOnce() -> V) -> i32 {
        let entries = &mut self.entries;
        *self.places.entry(key).or_insert_with(|| {
            entries.push(value());
            i32::try_from(entries.len() - 1).unwrap_or(0)
        })
    }
}

/// Lines of a location as a key: function and line.
type Lines = Vec<(i32, i64)>;

/// The tables in the making.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    strings: Table<String, String>,
    attributes: Table<(i32, String), KeyValueAndUnit>,
    mappings: Table<(i32, Vec<i32>), Mapping>,
    functions: Table<(i32, i32, i32), Function>,
    locations: Table<(i32, u64, Lines, i32), Location>,
    stacks: Table<Vec<i32>, Stack>,
}

impl Dictionary {
    fn string(&mut self, text: &str) -> i32 {
        if text.is_empty() {
            return 0;
        }
        self.strings.intern(text.to_owned(), || text.to_owned())
    }

    pub(super) fn value_type(&mut self, kind: &str, unit: &str) -> ValueType {
        ValueType {
            type_strindex: self.string(kind),
            unit_strindex: self.string(unit),
        }
    }

    pub(super) fn attribute(&mut self, key: &str, value: Value) -> i32 {
        let key_strindex = self.string(key);
        let known = (key_strindex, format!("{value:?}"));
        self.attributes.intern(known, || KeyValueAndUnit {
            key_strindex,
            value: Some(AnyValue { value: Some(value) }),
            unit_strindex: 0,
        })
    }

    pub(super) fn stack(&mut self, location_indices: Vec<i32>) -> i32 {
        if location_indices.is_empty() {
            return 0;
        }
        let key = location_indices.clone();
        self.stacks.intern(key, || Stack { location_indices })
    }

    pub(super) fn finish(self) -> ProfilesDictionary {
        ProfilesDictionary {
            mapping_table: self.mappings.entries,
            location_table: self.locations.entries,
            function_table: self.functions.entries,
            link_table: vec![Link::default()],
            string_table: self.strings.entries,
            attribute_table: self.attributes.entries,
            stack_table: self.stacks.entries,
        }
    }
}

/// Where one profile's locations stand in the tables, by id - 1.
#[derive(Debug)]
pub(super) struct Ids {
    locations: Vec<i32>,
}

impl Ids {
    /// Adds a profile's tables. What refers to nothing becomes the empty entry.
    pub(super) fn of(profile: &pprof::Profile, dictionary: &mut Dictionary) -> Self {
        let text = |index: i64| {
            let index = usize::try_from(index).ok();
            let found = index.and_then(|index| profile.string_table.get(index));
            found.map_or("", String::as_str)
        };
        let mappings: Vec<(i32, bool)> = profile
            .mapping
            .iter()
            .map(|mapping| {
                let file = text(mapping.filename);
                let filename_strindex = dictionary.string(file);
                let attribute_indices = match text(mapping.build_id) {
                    "" => Vec::new(),
                    id => {
                        let value = Value::StringValue(id.to_owned());
                        vec![dictionary.attribute("process.executable.build_id.gnu", value)]
                    }
                };
                let key = (filename_strindex, attribute_indices.clone());
                let place = dictionary.mappings.intern(key, || Mapping {
                    filename_strindex,
                    attribute_indices,
                    ..Mapping::default()
                });
                (place, file == "[kernel.kallsyms]")
            })
            .collect();
        let functions: Vec<i32> = profile
            .function
            .iter()
            .map(|function| {
                let key = (
                    dictionary.string(text(function.name)),
                    dictionary.string(text(function.system_name)),
                    dictionary.string(text(function.filename)),
                );
                dictionary.functions.intern(key, || Function {
                    name_strindex: key.0,
                    system_name_strindex: key.1,
                    filename_strindex: key.2,
                    start_line: function.start_line,
                })
            })
            .collect();
        let locations = profile.location.iter().map(|location| {
            let found = by_id(location.mapping_id).and_then(|at| mappings.get(at));
            let (mapping, kernel) = found.copied().unwrap_or_default();
            let kind = if kernel { "kernel" } else { "native" };
            let kind = Value::StringValue(kind.to_owned());
            let kind = dictionary.attribute("profile.frame.type", kind);
            let lines: Lines = location
                .line
                .iter()
                .map(|line| {
                    let function = by_id(line.function_id).and_then(|at| functions.get(at));
                    (function.copied().unwrap_or(0), line.line)
                })
                .collect();
            let key = (mapping, location.address, lines.clone(), kind);
            dictionary.locations.intern(key, || Location {
                mapping_index: mapping,
                address: location.address,
                lines: lines
                    .iter()
                    .map(|&(function_index, line)| Line {
                        function_index,
                        line,
                        column: 0,
                    })
                    .collect(),
                attribute_indices: vec![kind],
            })
        });
        Self {
            locations: locations.collect(),
        }
    }

    /// A stack in the tables' terms.
    pub(super) fn stack(&self, location_ids: &[u64]) -> Vec<i32> {
        let places = location_ids
            .iter()
            .map(|id| by_id(*id).and_then(|at| self.locations.get(at)));
        places.map(|place| place.copied().unwrap_or(0)).collect()
    }
}

fn by_id(id: u64) -> Option<usize> {
    usize::try_from(id).ok()?.checked_sub(1)
}
