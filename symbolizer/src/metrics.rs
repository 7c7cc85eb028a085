//! The symbolizer's counters as metrics. Counts nothing itself.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use ipc_endpoint::statistics::{counter, delivered, dropped, gauge, produced, queued};
use ipc_proto::statistics::Metric;
use leadsman_ebpf::stop::StopReason;

use crate::engine::Engine;
use crate::event_loop::Shared;

/// The edge from the symbolizer to the shipper.
const EDGE: &str = "symbolized";

/// What metrics are made of.
pub(crate) struct Sources<'a> {
    pub(crate) engine: &'a Engine,
    /// Links ended by a violation, by edge and cause.
    pub(crate) links: [(&'static str, &'a BTreeMap<&'static str, u64>); 4],
    /// Messages lost for want of room in a queue, by edge.
    pub(crate) overflows: [(&'static str, u64); 2],
    pub(crate) shared: &'a Shared,
}

/// All metrics of this process.
pub(crate) fn metrics(sources: &Sources<'_>) -> Vec<Metric> {
    let account = &sources.engine.delivery.account;
    let mut metrics = vec![
        produced(EDGE, account.produced),
        delivered(EDGE, account.delivered),
        queued(EDGE, account.queued()),
    ];
    let causes = account.dropped.iter();
    metrics.extend(causes.map(|(cause, samples)| dropped(EDGE, cause, *samples)));
    stacks(sources.engine, &mut metrics);
    tables(sources, &mut metrics);
    sizes(sources, &mut metrics);
    for (edge, causes) in sources.links {
        for (cause, count) in causes {
            metrics.push(counter(
                "leadsman_link_violations_total",
                "Links closed because the peer broke the protocol, by cause.",
                &[("process", "symbolizer"), ("edge", edge), ("cause", cause)],
                *count as f64,
            ));
        }
    }
    for (edge, count) in sources.overflows {
        metrics.push(counter(
            "leadsman_queue_overflows_total",
            "Messages lost because a queue was full.",
            &[("process", "symbolizer"), ("edge", edge)],
            count as f64,
        ));
    }
    metrics
}

fn stacks(engine: &Engine, metrics: &mut Vec<Metric>) {
    for (number, samples) in &engine.counts.stops {
        let Some(stop) = StopReason::from_number(*number) else {
            continue;
        };
        let complete = if stop.is_complete() { "true" } else { "false" };
        metrics.push(counter(
            "leadsman_stacks_total",
            "Samples by why the walk of their user stack ended, and whether it reached the thread's root.",
            &[("stop", stop.name()), ("complete", complete)],
            *samples as f64,
        ));
    }
    for (complete, stacks) in ["false", "true"].iter().zip(engine.counts.walked) {
        metrics.push(counter(
            "leadsman_finished_stacks_total",
            "Stacks finished in user space from a snapshot.",
            &[("complete", complete)],
            stacks as f64,
        ));
    }
    for (reason, frames) in &engine.counts.unnamed {
        metrics.push(counter(
            "leadsman_unnamed_frames_total",
            "Frames without a name, by reason.",
            &[("reason", reason.name())],
            *frames as f64,
        ));
    }
}

fn tables(sources: &Sources<'_>, metrics: &mut Vec<Metric>) {
    let counts = *sources
        .shared
        .table_counts
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let found = [
        ("cached", counts.cached),
        ("built", counts.built),
        ("failed", counts.failed),
    ];
    for (how, count) in found {
        metrics.push(counter(
            "leadsman_unwind_tables_total",
            "Unwind tables, by where they came from.",
            &[("how", how)],
            count as f64,
        ));
    }
    metrics.push(counter(
        "leadsman_unwind_table_rows_total",
        "Rows of the unwind tables built.",
        &[],
        counts.rows as f64,
    ));
    for (status, count) in &sources.engine.counts.opened {
        metrics.push(counter(
            "leadsman_symbolizer_opened_files_total",
            "Answers of the opener, by status.",
            &[("status", status)],
            *count as f64,
        ));
    }
    metrics.push(counter(
        "leadsman_symbolizer_debuginfo_offers_total",
        "Executables offered to the debuginfo uploader, by the symbolizer's count.",
        &[],
        sources.engine.offers.made as f64,
    ));
}

fn sizes(sources: &Sources<'_>, metrics: &mut Vec<Metric>) {
    let engine = sources.engine;
    let names = *sources
        .shared
        .name_bytes
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let quarantined = sources
        .shared
        .quarantine
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .len();
    let held = [
        ("images", engine.images.bytes()),
        ("windows", engine.windows.bytes()),
        ("unwind_tables", engine.executables.table_bytes()),
        ("names", names),
    ];
    for (what, bytes) in held {
        metrics.push(gauge(
            "leadsman_symbolizer_bytes",
            "Memory of the symbolizer by what it holds, estimated.",
            &[("what", what)],
            bytes as f64,
        ));
    }
    let numbers = [
        ("images", engine.images.len()),
        ("executables", engine.executables.len()),
        ("quarantined_executables", quarantined),
        ("requests", engine.requests.len()),
        ("windows", engine.windows.len()),
        ("windows_to_ship", engine.delivery.len()),
    ];
    for (what, number) in numbers {
        metrics.push(gauge(
            "leadsman_symbolizer_entries",
            "What the symbolizer holds, by number.",
            &[("what", what)],
            number as f64,
        ));
    }
    metrics.push(counter(
        "leadsman_symbolizer_forgotten_images_total",
        "Process images forgotten for want of room.",
        &[],
        engine.images.forgotten() as f64,
    ));
}
