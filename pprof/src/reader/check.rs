//! The rules that a decoded profile must keep so that everything else can rely on them. Changes nothing.

use std::collections::HashSet;

use super::ReadError;
use crate::proto::{Profile, ValueType};

pub(super) fn check(profile: &Profile) -> Result<(), ReadError> {
    if profile
        .string_table
        .first()
        .is_none_or(|first| !first.is_empty())
    {
        return Err(ReadError::StringTable);
    }
    strings(profile)?;
    unique("mapping", profile.mapping.iter().map(|mapping| mapping.id))?;
    unique(
        "function",
        profile.function.iter().map(|function| function.id),
    )?;
    let locations = unique(
        "location",
        profile.location.iter().map(|location| location.id),
    )?;
    let types = profile.sample_type.len();
    for (index, sample) in profile.sample.iter().enumerate() {
        if sample.value.len() != types || types == 0 {
            return Err(ReadError::Values {
                sample: index,
                values: sample.value.len(),
                types,
            });
        }
        if let Some(id) = sample.location_id.iter().find(|id| !locations.contains(id)) {
            return Err(ReadError::MissingLocation {
                sample: index,
                id: *id,
            });
        }
    }
    Ok(())
}

/// The ids, if each is there once.
fn unique(
    table: &'static str,
    ids: impl ExactSizeIterator<Item = u64>,
) -> Result<HashSet<u64>, ReadError> {
    let mut seen = HashSet::with_capacity(ids.len());
    for id in ids {
        if id == 0 {
            return Err(ReadError::ZeroId { table });
        }
        if !seen.insert(id) {
            return Err(ReadError::DuplicateId { table, id });
        }
    }
    Ok(seen)
}

fn strings(profile: &Profile) -> Result<(), ReadError> {
    let count = profile.string_table.len();
    let known = |what, index: i64| match usize::try_from(index) {
        Ok(index) if index < count => Ok(()),
        _ => Err(ReadError::StringIndex {
            what,
            index,
            strings: count,
        }),
    };
    let value_type = |value_type: &ValueType| {
        known("name of a value type", value_type.r#type)?;
        known("unit of a value type", value_type.unit)
    };
    profile.sample_type.iter().try_for_each(value_type)?;
    profile.period_type.iter().try_for_each(value_type)?;
    for label in profile.sample.iter().flat_map(|sample| &sample.label) {
        known("key of a label", label.key)?;
        known("text of a label", label.str)?;
        known("unit of a label", label.num_unit)?;
    }
    for mapping in &profile.mapping {
        known("file name of a mapping", mapping.filename)?;
        known("build ID of a mapping", mapping.build_id)?;
    }
    for function in &profile.function {
        known("name of a function", function.name)?;
        known("system name of a function", function.system_name)?;
        known("file name of a function", function.filename)?;
    }
    for comment in &profile.comment {
        known("text of a comment", *comment)?;
    }
    known("default sample type", profile.default_sample_type)?;
    known("pattern of frames to drop", profile.drop_frames)?;
    known("pattern of frames to keep", profile.keep_frames)?;
    known("documentation address", profile.doc_url)
}
