//! The sampler's metrics, from its counters.

use ipc_endpoint::statistics::{counter, delivered, dropped, gauge, produced, queued};
use ipc_proto::statistics::Metric;
use leadsman_ebpf::abi::{COUNTERS, Counter};

use crate::bpf::accounts::{MapAccounts, MapKind};
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
    maps: &MapAccounts,
    verifier_seconds: f64,
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
            "leadsman_walk_helper_calls_total",
            "BPF helper calls for the walks of user stacks.",
            &[],
            at(Counter::Helpers) as f64,
        ),
        gauge(
            "leadsman_bpf_verifier_seconds",
            "Time that the kernel took to load and verify the BPF programs.",
            &[],
            verifier_seconds,
        ),
        counter(
            "leadsman_snapshots_total",
            "Samples finished in user space from a snapshot of their stack.",
            &[],
            at(Counter::Snapshots) as f64,
        ),
        counter(
            "leadsman_snapshots_withheld_total",
            "Samples whose snapshot was left out because the ring buffer was nearly full.",
            &[],
            at(Counter::Withheld) as f64,
        ),
        gauge(
            "leadsman_ring_peak_bytes",
            "Most bytes that ever waited in the ring buffer.",
            &[],
            at(Counter::RingPeak) as f64,
        ),
        counter(
            "leadsman_process_records_lost_total",
            "Kernel records of mappings, execs and forks that the perf rings had no room for.",
            &[],
            account.records_lost as f64,
        ),
        counter(
            "leadsman_unwind_chunks_evicted_total",
            "Chunks of unwind rows given up to make room for others.",
            &[],
            tables.evicted as f64,
        ),
        counter(
            "leadsman_unwind_chunks_paged_in_total",
            "Chunks of unwind rows brought into the kernel because a walk lacked them.",
            &[],
            tables.paged_in as f64,
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
    let (installed, rows) = tables.sizes();
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
            "leadsman_unwind_table_file_bytes",
            "Unwind tables kept in memory beside the kernel's maps, because not all of their rows are there.",
            tables.file_bytes() as f64,
        ),
        (
            "leadsman_unwind_table_bytes",
            "Kernel memory of unwind tables, by the kernel's own account.",
            (maps.bytes(MapKind::Chunks) + maps.bytes(MapKind::Regions)) as f64,
        ),
        (
            "leadsman_process_map_bytes",
            "Kernel memory of processes' mappings.",
            (maps.bytes(MapKind::Processes) + maps.bytes(MapKind::Mappings)) as f64,
        ),
        (
            "leadsman_ring_bytes",
            "Kernel memory of the ring buffer.",
            maps.bytes(MapKind::Ring) as f64,
        ),
        (
            "leadsman_other_map_bytes",
            "Kernel memory of the programs' other maps.",
            maps.bytes(MapKind::Other) as f64,
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
