//! Speedscope's JSON: one sampled profile for each process, or for each thread when there is only one process.
//! Format: <https://www.speedscope.app/file-format-schema.json>.

use std::collections::HashSet;
use std::io::{self, Write};

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use crate::frames::{Frames, FunctionIndex, Owner, Sample};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'s> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    shared: Shared<'s>,
    profiles: Vec<SampledProfile>,
    name: &'s str,
    active_profile_index: usize,
    exporter: &'static str,
}

#[derive(Serialize)]
struct Shared<'s> {
    frames: Vec<SharedFrame<'s>>,
}

#[derive(Serialize)]
struct SharedFrame<'s> {
    name: &'s str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SampledProfile {
    r#type: &'static str,
    name: String,
    unit: &'static str,
    start_value: i64,
    end_value: i64,
    samples: Vec<Vec<usize>>,
    weights: Vec<i64>,
}

/// Writes the profile under a name for people. Samples of CPU time are weighed in nanoseconds, others in their own unit;
/// samples without a positive weight are left out. The heaviest profile comes first.
///
/// # Errors
/// Those of `output`.
pub fn write<W: Write>(frames: &Frames<'_>, name: &str, mut output: W) -> io::Result<()> {
    let weight = Weight::of(frames);
    let mut shared: IndexSet<(FunctionIndex, &str, i64)> = IndexSet::new();
    let owners: HashSet<Owner<'_>> = frames.samples().map(|sample| sample.owner()).collect();
    let by_thread = owners.len() == 1;
    let mut profiles: IndexMap<(Owner<'_>, Option<i64>), SampledProfile> = IndexMap::new();
    for sample in frames.samples() {
        let value = sample.value().saturating_mul(weight.factor);
        if value <= 0 {
            continue;
        }
        let thread = sample.number("thread_id").filter(|_| by_thread);
        let profile = profiles
            .entry((sample.owner(), thread))
            .or_insert_with(|| SampledProfile {
                r#type: "sampled",
                name: profile_name(&sample, thread, name),
                unit: weight.unit,
                start_value: 0,
                end_value: 0,
                samples: Vec::new(),
                weights: Vec::new(),
            });
        profile.end_value = profile.end_value.saturating_add(value);
        profile.weights.push(value);
        profile.samples.push(
            sample
                .stack()
                .rev()
                .map(|frame| {
                    shared
                        .insert_full((frame.function, frame.file, frame.line))
                        .0
                })
                .collect(),
        );
    }
    let mut profiles: Vec<SampledProfile> = profiles.into_values().collect();
    profiles.sort_by_key(|profile| std::cmp::Reverse(profile.end_value));
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        shared: Shared {
            frames: shared
                .iter()
                .map(|(function, file, line)| SharedFrame {
                    name: frames
                        .function(*function)
                        .map_or("", |function| function.name.as_ref()),
                    file: Some(*file).filter(|file| !file.is_empty()),
                    line: Some(*line).filter(|line| *line > 0),
                })
                .collect(),
        },
        profiles,
        name,
        active_profile_index: 0,
        exporter: concat!("leadsman ", env!("CARGO_PKG_VERSION")),
    };
    serde_json::to_writer(&mut output, &file)?;
    output.flush()
}

/// What a value is in the units that the schema knows.
struct Weight {
    unit: &'static str,
    factor: i64,
}

impl Weight {
    fn of(frames: &Frames<'_>) -> Self {
        let value = frames.value();
        let (unit, factor) = match (value.kind, value.unit, frames.cpu_period()) {
            ("samples", "count", Some(period)) => ("nanoseconds", period),
            (_, "nanoseconds", _) => ("nanoseconds", 1),
            (_, "microseconds", _) => ("microseconds", 1),
            (_, "milliseconds", _) => ("milliseconds", 1),
            (_, "seconds", _) => ("seconds", 1),
            (_, "bytes", _) => ("bytes", 1),
            _ => ("none", 1),
        };
        Self { unit, factor }
    }
}

fn profile_name(sample: &Sample<'_, '_>, thread: Option<i64>, file: &str) -> String {
    let owner = sample.owner();
    let process = match (owner.comm, owner.pid) {
        ("", None) => file.to_owned(),
        ("", Some(pid)) => format!("process {pid}"),
        (comm, None) => comm.to_owned(),
        (comm, Some(pid)) => format!("{comm} ({pid})"),
    };
    match (thread, sample.label("thread_name")) {
        (None, _) => process,
        (Some(thread), None) => format!("{process}: thread {thread}"),
        (Some(thread), Some(name)) => format!("{process}: {name} ({thread})"),
    }
}

#[cfg(test)]
mod tests;
