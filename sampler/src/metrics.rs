//! The sampler's metrics, from its counters.

use ipc_endpoint::statistics::{counter, delivered, dropped, gauge, produced, queued};
use ipc_proto::statistics::Metric;
use leadsman_ebpf::abi::{COUNTERS, Counter};

use crate::bpf::tables::Tables;
use crate::engine::Engine;
use crate::opener_link::OpenerLink;
use crate::symbolizer_link::SymbolizerLink;

/// How many CPUs are sampled.
pub(crate) fn cpus(number: usize) -> Metric {
    gauge(
        "leadsman_sampled_cpus",
        "CPUs that are sampled.",
        &[],
        number as f64,
    )
}

/// All of them, now. `kernel`: the kernel side's counters by [`Counter`].
pub(crate) fn collect(
    kernel: &[u64; COUNTERS as usize],
    engine: &Engine,
    tables: &Tables,
    symbolizer: &SymbolizerLink,
    opener: &OpenerLink,
) -> Vec<Metric> {
    let account = &engine.account;
    let at = |counter: Counter| kernel.get(counter as usize).copied().unwrap_or(0);
    let read = account.ring_produced + account.not_selected;
    let mut metrics = vec![
        gauge(
            "leadsman_sampler_attached",
            "1 while every CPU's timer is attached.",
            &[],
            1.0,
        ),
        produced("kernel", at(Counter::Samples)),
        delivered("kernel", at(Counter::Written)),
        dropped("kernel", "ring_full", at(Counter::RingFull)),
        dropped("kernel", "walk_refused", at(Counter::WalkRefused)),
        produced("ring", at(Counter::Written)),
        delivered("ring", account.ring_delivered),
        dropped("ring", "not_selected", account.not_selected),
        queued(
            "ring",
            at(Counter::Written).saturating_sub(read) + engine.waiting(),
        ),
        produced("samples", account.link_produced),
        delivered("samples", account.link_delivered),
        queued(
            "samples",
            symbolizer.outbox.samples() + symbolizer.untaken(),
        ),
        counter(
            "leadsman_bpf_runs_total",
            "Runs of the sampling program: samples and idle ticks.",
            &[],
            (at(Counter::Samples) + at(Counter::Idle)) as f64,
        ),
        counter(
            "leadsman_idle_ticks_total",
            "Timer ticks on a CPU that was idle: no sample.",
            &[],
            at(Counter::Idle) as f64,
        ),
        counter(
            "leadsman_frames_walked_total",
            "User frames walked in the kernel.",
            &[],
            at(Counter::Frames) as f64,
        ),
        counter(
            "leadsman_snapshots_total",
            "Samples finished in user space from a snapshot of their stack.",
            &[],
            at(Counter::Snapshots) as f64,
        ),
        counter(
            "leadsman_process_records_lost_total",
            "Kernel records of mappings, execs and forks that the perf rings had no room for.",
            &[],
            account.records_lost as f64,
        ),
        counter(
            "leadsman_unwind_tables_evicted_total",
            "Unwind tables given up to make room for others.",
            &[],
            account.tables_evicted as f64,
        ),
        counter(
            "leadsman_opener_requests_given_up_total",
            "Requests for maps files given up because the opener was away.",
            &[],
            opener.given_up as f64,
        ),
    ];
    for (cause, samples) in &account.ring_dropped {
        metrics.push(dropped("ring", cause, *samples));
    }
    for (cause, samples) in &account.link_dropped {
        metrics.push(dropped("samples", cause, *samples));
    }
    for (edge, violations) in [
        ("samples", &symbolizer.violations),
        ("opener", &opener.violations),
    ] {
        for (cause, count) in violations {
            metrics.push(counter(
                "leadsman_link_violations_total",
                "Links closed because the peer broke the protocol, by cause.",
                &[("process", "sampler"), ("edge", edge), ("cause", cause)],
                *count as f64,
            ));
        }
    }
    let (installed, rows, table_bytes) = tables.sizes();
    let (processes, executables) = engine.sizes();
    let sizes = [
        (
            "leadsman_unwind_tables",
            "Unwind tables in the kernel.",
            installed as f64,
        ),
        (
            "leadsman_unwind_rows",
            "Unwind rows in the kernel.",
            rows as f64,
        ),
        (
            "leadsman_unwind_table_bytes",
            "Kernel memory of unwind tables.",
            table_bytes as f64,
        ),
        (
            "leadsman_process_map_bytes",
            "Kernel memory of processes' mappings.",
            tables.process_bytes() as f64,
        ),
        (
            "leadsman_ring_bytes",
            "Kernel memory of the ring buffer.",
            tables.ring_bytes() as f64,
        ),
        ("leadsman_processes", "Processes known.", processes as f64),
        (
            "leadsman_executables",
            "Executables known.",
            executables as f64,
        ),
    ];
    metrics.extend(sizes.map(|(name, help, value)| gauge(name, help, &[], value)));
    metrics
}
