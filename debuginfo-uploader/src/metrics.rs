//! What the uploader counts, as metrics.

use std::collections::BTreeMap;

use ipc_endpoint::statistics::{counter, gauge};
use ipc_proto::statistics::Metric;

use crate::ROLE;
use crate::engine::Engine;
use crate::upload::Context;

/// Everything, now.
pub(crate) fn metrics(
    engine: &Engine,
    context: Option<&Context>,
    violations: &BTreeMap<&'static str, u64>,
) -> Vec<Metric> {
    let process = ROLE.name();
    let mut metrics = Vec::new();
    for (verdict, count) in &engine.verdicts {
        metrics.push(counter(
            "leadsman_debuginfo_offers_total",
            "Executables offered for upload, by what became of the offer.",
            &[("verdict", verdict)],
            *count as f64,
        ));
    }
    for ((result, cause), count) in &engine.results {
        metrics.push(counter(
            "leadsman_debuginfo_uploads_total",
            "Uploads that ended, by result or the step that failed, and by cause.",
            &[("result", result), ("cause", cause)],
            *count as f64,
        ));
    }
    metrics.push(counter(
        "leadsman_debuginfo_offered_bytes_total",
        "Bytes of the distinct executables taken for upload.",
        &[],
        engine.offered_bytes as f64,
    ));
    metrics.push(counter(
        "leadsman_debuginfo_uploaded_bytes_total",
        "Bytes of debuginfo that reached the store.",
        &[],
        engine.uploaded_bytes as f64,
    ));
    let (waiting, running) = engine.counts();
    for (state, count) in [("waiting", waiting), ("running", running)] {
        metrics.push(gauge(
            "leadsman_debuginfo_jobs",
            "Executables that wait for their upload, and those that are uploaded.",
            &[("state", state)],
            count as f64,
        ));
    }
    for (cause, count) in violations {
        metrics.push(counter(
            "leadsman_link_violations_total",
            "Links closed because the peer broke the protocol, by cause.",
            &[
                ("process", process),
                ("edge", "debuginfo"),
                ("cause", cause),
            ],
            *count as f64,
        ));
    }
    if let Some(context) = context {
        uploads(context, &mut metrics);
        metrics.extend(context.store().metrics().metrics(process));
    }
    metrics
}

fn uploads(context: &Context, metrics: &mut Vec<Metric>) {
    let counts = context.tally.counts();
    for (step, took) in [
        ("prepare", counts.preparing),
        ("transfer", counts.transferring),
    ] {
        metrics.push(counter(
            "leadsman_debuginfo_seconds_total",
            "Time that uploads took, by step.",
            &[("step", step)],
            took.as_secs_f64(),
        ));
    }
    for (how, count) in &counts.checked {
        metrics.push(counter(
            "leadsman_debuginfo_checked_total",
            "Files made ready for upload, by how they were compared with their original.",
            &[("how", how)],
            *count as f64,
        ));
    }
}
