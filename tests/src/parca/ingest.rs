//! What the server checks before it keeps profiles (`WriteRaw`), rule by rule, and what it keeps of them. Knows no
//! transport.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use prost::Message as _;
use tonic::Code;

use super::executable::{Line, Recipe};
use super::refusal::Refusal;
use super::selector::ProfileType;
use crate::generated::pprof::{Location, Profile, ValueType};
use crate::generated::profilestore::{RawProfileSeries, RawSample};

/// A stack entry as it was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub address: u64,
    pub mapping: Option<Mapping>,
    /// Names that came along, the innermost first as in every pprof profile.
    pub lines: Vec<Line>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mapping {
    pub recipe: Recipe,
    pub file: String,
    pub build_id: String,
}

/// One value of one stack.
#[derive(Debug, Clone)]
pub struct StoredSample {
    /// Leaf first.
    pub stack: Vec<Arc<Place>>,
    pub value: i64,
}

/// What is kept of one pprof profile, for one of its sample types.
#[derive(Debug, Clone)]
pub struct StoredProfile {
    pub profile_type: ProfileType,
    /// Without `__name__`.
    pub labels: Arc<BTreeMap<String, String>>,
    pub time_nanos: i64,
    pub duration_nanos: i64,
    pub period: i64,
    pub samples: Vec<StoredSample>,
}

impl StoredProfile {
    /// The sum of its values.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.samples.iter().map(|sample| sample.value).sum()
    }
}

/// Checks a series and takes its profiles apart.
pub fn profiles(series: &RawProfileSeries) -> Result<Vec<StoredProfile>, Refusal> {
    let (name, labels) = labels(series)?;
    let labels = Arc::new(labels);
    let mut stored = Vec::new();
    for sample in &series.samples {
        let profile = decoded(sample)?;
        validate(&profile, sample.executable_info.len())
            .map_err(|text| Refusal::invalid(format!("invalid profile: {text}")))?;
        stored.extend(kept(&name, &labels, &profile)?);
    }
    Ok(stored)
}

fn labels(series: &RawProfileSeries) -> Result<(String, BTreeMap<String, String>), Refusal> {
    let Some(set) = &series.labels else {
        // The real server dereferences it and dies.
        return Err(Refusal::new(Code::Internal, "a series without a label set"));
    };
    let mut name = String::new();
    let mut labels = BTreeMap::new();
    for label in &set.labels {
        if label.name == "__name__" {
            name.clone_from(&label.value);
            continue;
        }
        // The newest servers take names that PromQL has no way to write, as long as they are not empty; nobody finds
        // them by a selector, and older servers refuse them. So does this one.
        if !is_label_name(&label.name) {
            return Err(Refusal::invalid(format!(
                "invalid label name: {}",
                label.name
            )));
        }
        if labels
            .insert(label.name.clone(), label.value.clone())
            .is_some()
        {
            return Err(Refusal::invalid(format!(
                "duplicate label name: {}",
                label.name
            )));
        }
    }
    if name.is_empty() {
        return Err(Refusal::invalid("missing __name__ label"));
    }
    Ok((name, labels))
}

fn is_label_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|other| other.is_ascii_alphanumeric() || other == '_')
}

/// The profile's plain bytes: gzip is told by its magic.
pub fn plain(raw: &[u8]) -> std::io::Result<Vec<u8>> {
    if !raw.starts_with(&[0x1f, 0x8b]) {
        return Ok(raw.to_vec());
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(raw).read_to_end(&mut plain)?;
    Ok(plain)
}

fn decoded(sample: &RawSample) -> Result<Profile, Refusal> {
    let plain = plain(&sample.raw_profile)
        .map_err(|error| Refusal::new(Code::Unknown, format!("decompressing profile: {error}")))?;
    Profile::decode(plain.as_slice())
        .map_err(|error| Refusal::invalid(format!("failed to parse profile: {error}")))
}

fn validate(profile: &Profile, executable_infos: usize) -> Result<(), String> {
    let strings = profile.string_table.len();
    if profile
        .string_table
        .first()
        .is_some_and(|first| !first.is_empty())
    {
        return Err("the first string is not empty".to_owned());
    }
    let text = |what: &str, index: i64| {
        if usize::try_from(index).is_ok_and(|index| index == 0 || index < strings) {
            Ok(())
        } else {
            Err(format!("{what} has the invalid string index {index}"))
        }
    };
    let sequential = |what: &str, position: usize, id: u64| {
        if id == position as u64 + 1 {
            Ok(())
        } else {
            Err(format!("{what} id {id} is not sequential"))
        }
    };
    for (position, mapping) in profile.mapping.iter().enumerate() {
        sequential("mapping", position, mapping.id)?;
        text("mapping", mapping.filename)?;
        text("mapping", mapping.build_id)?;
    }
    if executable_infos != 0 && executable_infos != profile.mapping.len() {
        return Err(format!(
            "{} mappings but {executable_infos} executable infos",
            profile.mapping.len()
        ));
    }
    for (position, function) in profile.function.iter().enumerate() {
        sequential("function", position, function.id)?;
        text("function", function.name)?;
        text("function", function.system_name)?;
        text("function", function.filename)?;
    }
    for (position, location) in profile.location.iter().enumerate() {
        sequential("location", position, location.id)?;
        if location.mapping_id > profile.mapping.len() as u64 {
            return Err(format!("location {} has no mapping", location.id));
        }
        for line in &location.line {
            if line.function_id > profile.function.len() as u64 {
                return Err(format!("location {} has no function", location.id));
            }
        }
    }
    let value_type = |what: &str, value: &ValueType| {
        text(what, value.r#type)?;
        text(what, value.unit)
    };
    if profile.sample_type.is_empty() && !profile.sample.is_empty() {
        return Err("no sample type".to_owned());
    }
    for value in &profile.sample_type {
        value_type("sample type", value)?;
    }
    if let Some(period) = &profile.period_type {
        value_type("period type", period)?;
    }
    for sample in &profile.sample {
        if sample.value.len() != profile.sample_type.len() {
            return Err(format!(
                "a sample has {} values for {} types",
                sample.value.len(),
                profile.sample_type.len()
            ));
        }
        for &id in &sample.location_id {
            if id == 0 || id > profile.location.len() as u64 {
                return Err(format!("a sample has no location {id}"));
            }
        }
        for label in &sample.label {
            if label.key == 0 {
                return Err("a sample label has no key".to_owned());
            }
            text("sample label", label.key)?;
            text("sample label", label.str)?;
        }
    }
    Ok(())
}

/// One stored profile for each sample type; string and number labels of samples are not kept.
fn kept(
    name: &str,
    labels: &Arc<BTreeMap<String, String>>,
    profile: &Profile,
) -> Result<Vec<StoredProfile>, Refusal> {
    let text = |index: i64| text(profile, index);
    let Some(period_type) = &profile.period_type else {
        // The real server dereferences it and dies.
        return Err(Refusal::new(
            Code::Internal,
            "a profile without a period type",
        ));
    };
    let mut stored = Vec::new();
    for (index, sample_type) in profile.sample_type.iter().enumerate() {
        let profile_type = ProfileType {
            name: name.to_owned(),
            sample_type: text(sample_type.r#type),
            sample_unit: text(sample_type.unit),
            period_type: text(period_type.r#type),
            period_unit: text(period_type.unit),
            delta: profile.duration_nanos != 0,
        };
        if !profile_type.can_be_asked_for() {
            return Err(Refusal::new(
                Code::Unknown,
                format!("invalid profile type {profile_type:?}"),
            ));
        }
        stored.push(StoredProfile {
            profile_type,
            labels: Arc::clone(labels),
            time_nanos: profile.time_nanos,
            duration_nanos: profile.duration_nanos,
            period: profile.period,
            samples: samples(profile, index),
        });
    }
    Ok(stored)
}

fn text(profile: &Profile, index: i64) -> String {
    usize::try_from(index)
        .ok()
        .and_then(|index| profile.string_table.get(index))
        .cloned()
        .unwrap_or_default()
}

fn place(profile: &Profile, location: &Location) -> Place {
    let mapping = location.mapping_id.checked_sub(1);
    let mapping = mapping.and_then(|index| profile.mapping.get(index as usize));
    Place {
        address: location.address,
        mapping: mapping.map(|mapping| Mapping {
            recipe: Recipe {
                start: mapping.memory_start,
                limit: mapping.memory_limit,
                offset: mapping.file_offset,
            },
            file: text(profile, mapping.filename),
            build_id: text(profile, mapping.build_id),
        }),
        lines: location
            .line
            .iter()
            .filter_map(|line| {
                let index = line.function_id.checked_sub(1)?;
                let function = profile.function.get(index as usize)?;
                Some(Line {
                    function: text(profile, function.name),
                    file: text(profile, function.filename),
                    line: line.line,
                })
            })
            .collect(),
    }
}

/// The samples of one sample type. References that lead nowhere are skipped: [`validate`] has refused them.
#[must_use]
pub fn samples(profile: &Profile, index: usize) -> Vec<StoredSample> {
    let places: Vec<Arc<Place>> = profile
        .location
        .iter()
        .map(|location| Arc::new(place(profile, location)))
        .collect();
    let place_of = |id: &u64| places.get(id.checked_sub(1)? as usize).map(Arc::clone);
    profile
        .sample
        .iter()
        .filter_map(|sample| {
            let value = *sample.value.get(index)?;
            (value != 0).then(|| StoredSample {
                stack: sample.location_id.iter().filter_map(place_of).collect(),
                value,
            })
        })
        .collect()
}

/// What the real server accepts although it harms: unnamed stacks, samples that no answer shows, times that no query
/// finds.
#[must_use]
pub fn violations(profile: &StoredProfile, now_nanos: i64) -> Vec<String> {
    let mut found = Vec::new();
    let who = profile.labels.get("comm").map_or("", String::as_str);
    if profile.duration_nanos <= 0 || profile.period <= 0 {
        found.push(format!(
            "{who}: duration {} ns, period {} ns",
            profile.duration_nanos, profile.period
        ));
    }
    let minute = 60_000_000_000;
    if profile.time_nanos <= 0 || profile.time_nanos > now_nanos + minute {
        found.push(format!("{who}: time {} at {now_nanos}", profile.time_nanos));
    }
    for sample in &profile.samples {
        if sample.value < 0 {
            found.push(format!("{who}: a sample of {}", sample.value));
        }
        if sample.stack.is_empty() {
            found.push(format!("{who}: a sample without a stack: no answer has it"));
        }
        for place in &sample.stack {
            if place.lines.is_empty() && place.mapping.is_none() {
                found.push(format!(
                    "{who}: {:#x} has neither a name nor a mapping: it merges with others",
                    place.address
                ));
            }
            if place.lines.is_empty() && place.address == 0 {
                found.push(format!("{who}: a place with neither a name nor an address"));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}
