//! A summary as JSON for programs; docs/REPORT-JSON.md describes it. Fields are added, never renamed, removed or given
//! another meaning without a new `version`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::frames::{Frames, values};
use crate::proto::ValueType;
use crate::summary::Summary;

/// Of the format.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Report<'s> {
    version: u32,
    value: Type<'s>,
    other_values: Vec<Type<'s>>,
    period: Option<Period<'s>>,
    time_nanos: i64,
    duration_nanos: i64,
    total: i64,
    stacks: usize,
    incomplete: i64,
    stop_reasons: BTreeMap<&'s str, i64>,
    unnamed: i64,
    dropped: &'s BTreeMap<&'s str, u64>,
    comments: &'s [&'s str],
    processes: Vec<Process<'s>>,
    functions: Vec<Function<'s>>,
}

#[derive(Serialize)]
struct Type<'s> {
    r#type: &'s str,
    unit: &'s str,
}

#[derive(Serialize)]
struct Period<'s> {
    #[serde(flatten)]
    r#type: Type<'s>,
    every: i64,
}

#[derive(Serialize)]
struct Process<'s> {
    pid: Option<i64>,
    comm: &'s str,
    threads: usize,
    total: i64,
}

#[derive(Serialize)]
struct Function<'s> {
    name: &'s str,
    mapping: &'s str,
    kind: &'static str,
    #[serde(rename = "self")]
    own: i64,
    cumulative: i64,
}

/// Writes the summary as one JSON object and a line end.
///
/// # Errors
/// Those of `output`.
pub fn write<W: Write>(
    frames: &Frames<'_>,
    summary: &Summary<'_, '_>,
    mut output: W,
) -> io::Result<()> {
    let profile = frames.profile();
    let value = frames.value();
    let report = Report {
        version: VERSION,
        value: Type {
            r#type: value.kind,
            unit: value.unit,
        },
        other_values: values(profile)
            .filter(|other| other.index != value.index)
            .map(|other| Type {
                r#type: other.kind,
                unit: other.unit,
            })
            .collect(),
        period: profile.period_type.as_ref().map(|period_type| Period {
            r#type: named(frames, period_type),
            every: profile.period,
        }),
        time_nanos: profile.time_nanos,
        duration_nanos: profile.duration_nanos,
        total: summary.total,
        stacks: summary.stacks,
        incomplete: summary.stopped_total(),
        stop_reasons: summary.stopped.iter().copied().collect(),
        unnamed: summary.unnamed,
        dropped: &summary.drops,
        comments: &summary.comments,
        processes: summary
            .processes
            .iter()
            .map(|process| Process {
                pid: process.owner.pid,
                comm: process.owner.comm,
                threads: process.threads,
                total: process.total,
            })
            .collect(),
        functions: summary
            .functions
            .iter()
            .map(|value| Function {
                name: &value.function.name,
                mapping: value.function.mapping,
                kind: value.function.kind.name(),
                own: value.own,
                cumulative: value.total,
            })
            .collect(),
    };
    serde_json::to_writer_pretty(&mut output, &report)?;
    output.write_all(b"\n")?;
    output.flush()
}

fn named<'a>(frames: &Frames<'a>, value_type: &ValueType) -> Type<'a> {
    Type {
        r#type: frames.text(value_type.r#type),
        unit: frames.text(value_type.unit),
    }
}

#[cfg(test)]
mod tests;
