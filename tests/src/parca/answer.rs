//! A pprof answer in the making: equal stacks are one sample, strings and locations stand once.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;

use super::executable::Line;
use super::ingest::Place;
use super::selector::ProfileType;
use crate::generated::pprof::{
    self, Function, Label, Location, Mapping, Profile, Sample, ValueType,
};

/// Builds the profile.
#[derive(Debug)]
pub struct Answer {
    profile: Profile,
    is_time: bool,
    strings: HashMap<String, i64>,
    locations: BTreeMap<Arc<Place>, u64>,
    mappings: HashMap<super::ingest::Mapping, u64>,
    functions: HashMap<(String, String), u64>,
    samples: HashMap<Vec<u64>, usize>,
}

impl Answer {
    /// `merged` counts of samples come back as time.
    #[must_use]
    pub fn new(profile_type: &ProfileType, merged: bool, time_nanos: i64) -> Self {
        let is_time =
            merged && profile_type.sample_type == "samples" && profile_type.sample_unit == "count";
        let mut answer = Self {
            profile: Profile {
                string_table: vec![String::new()],
                time_nanos,
                ..Profile::default()
            },
            is_time,
            strings: HashMap::from([(String::new(), 0)]),
            locations: BTreeMap::new(),
            mappings: HashMap::new(),
            functions: HashMap::new(),
            samples: HashMap::new(),
        };
        let period_type = ValueType {
            r#type: answer.text(&profile_type.period_type),
            unit: answer.text(&profile_type.period_unit),
        };
        let sample_type = if is_time {
            period_type
        } else {
            ValueType {
                r#type: answer.text(&profile_type.sample_type),
                unit: answer.text(&profile_type.sample_unit),
            }
        };
        answer.profile.period_type = Some(period_type);
        answer.profile.sample_type = vec![sample_type];
        answer
    }

    /// Whether counts are to be multiplied by their period.
    #[must_use]
    pub fn is_time(&self) -> bool {
        self.is_time
    }

    /// Adds a value; a stack without places is left out, as in every answer of the real server.
    pub fn add(
        &mut self,
        stack: &[Arc<Place>],
        names: &BTreeMap<Arc<Place>, Vec<Line>>,
        value: i64,
    ) {
        if stack.is_empty() {
            return;
        }
        let ids: Vec<u64> = stack
            .iter()
            .map(|place| self.location(place, names))
            .collect();
        if let Some(&index) = self.samples.get(&ids) {
            self.profile.sample[index].value[0] += value;
            return;
        }
        self.samples.insert(ids.clone(), self.profile.sample.len());
        self.profile.sample.push(Sample {
            location_id: ids,
            value: vec![value],
            label: Vec::<Label>::new(),
        });
    }

    /// The gzip pprof.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing into memory cannot fail.
        let _ = encoder.write_all(&self.profile.encode_to_vec());
        encoder.finish().unwrap_or_default()
    }

    fn text(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.strings.get(text) {
            return index;
        }
        let index = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    fn location(&mut self, place: &Arc<Place>, names: &BTreeMap<Arc<Place>, Vec<Line>>) -> u64 {
        if let Some(&id) = self.locations.get(place) {
            return id;
        }
        let mapping_id = place
            .mapping
            .as_ref()
            .map_or(0, |mapping| self.mapping(mapping));
        let lines = match names.get(place) {
            Some(lines) => lines,
            None => &place.lines,
        };
        let line = lines
            .iter()
            .map(|line| pprof::Line {
                function_id: self.function(line),
                line: line.line,
            })
            .collect();
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location {
            id,
            mapping_id,
            address: place.address,
            line,
            is_folded: false,
        });
        self.locations.insert(Arc::clone(place), id);
        id
    }

    fn mapping(&mut self, mapping: &super::ingest::Mapping) -> u64 {
        if let Some(&id) = self.mappings.get(mapping) {
            return id;
        }
        let id = self.profile.mapping.len() as u64 + 1;
        let entry = Mapping {
            id,
            memory_start: mapping.recipe.start,
            memory_limit: mapping.recipe.limit,
            file_offset: mapping.recipe.offset,
            filename: self.text(&mapping.file),
            build_id: self.text(&mapping.build_id),
            has_functions: true,
            ..Mapping::default()
        };
        self.profile.mapping.push(entry);
        self.mappings.insert(mapping.clone(), id);
        id
    }

    fn function(&mut self, line: &Line) -> u64 {
        let key = (line.function.clone(), line.file.clone());
        if let Some(&id) = self.functions.get(&key) {
            return id;
        }
        let id = self.profile.function.len() as u64 + 1;
        let name = self.text(&line.function);
        let function = Function {
            id,
            name,
            system_name: name,
            filename: self.text(&line.file),
            start_line: 0,
        };
        self.profile.function.push(function);
        self.functions.insert(key, id);
        id
    }
}
