//! produced = delivered + dropped, by cause, at each edge: in peace, with the symbolizer stopped, and with every process
//! killed in turn. The sampler never waits and its memory stays bounded.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::credentials::Credentials;
use leadsman_tests::metrics::Metrics;
use leadsman_tests::process::{signal, until};
use leadsman_tests::up::Up;
use leadsman_tests::workloads::Workload;
use leadsman_tests::{Machine, http};
use rustix::process::Signal;

const PRODUCED: &str = "leadsman_edge_produced_samples_total";
const DELIVERED: &str = "leadsman_edge_delivered_samples_total";
const DROPPED: &str = "leadsman_edge_dropped_samples_total";
/// Samples on their way at the moment of counting: between produced and its outcome.
const QUEUED: &str = "leadsman_edge_queued_samples";

/// Edges that some process gives an account of, with who does.
fn edges(metrics: &Metrics) -> BTreeSet<(String, String)> {
    metrics
        .series
        .iter()
        .filter(|series| series.name == PRODUCED)
        .filter_map(|series| {
            Some((
                series.labels.get("process")?.clone(),
                series.labels.get("edge")?.clone(),
            ))
        })
        .collect()
}

/// The sums of each edge; any that does not add up is an error.
fn balanced(up: &Up) -> Result<()> {
    // A process reports each second, and connects again at a report.
    let metrics = until("all give account", Duration::from_secs(5), || {
        let metrics = up.metrics()?;
        let edges = edges(&metrics);
        Ok(["sampler", "symbolizer", "shipper"]
            .iter()
            .all(|expected| edges.iter().any(|(process, _)| process == expected))
            .then_some(metrics))
    })?;
    for (process, edge) in &edges(&metrics) {
        let labels = [("process", process.as_str()), ("edge", edge.as_str())];
        let produced = metrics.must(PRODUCED, &labels)?;
        let delivered = metrics.must(DELIVERED, &labels)?;
        let dropped = metrics.sum(DROPPED, &labels).unwrap_or(0.0);
        let queued = metrics.sum(QUEUED, &labels).unwrap_or(0.0);
        println!("{process} {edge}: {produced} = {delivered} + {dropped} ({queued} on their way)");
        ensure!(
            produced == delivered + dropped + queued,
            "{process} {edge}: {produced} produced, {delivered} delivered, {dropped} dropped, {queued} on their way"
        );
    }
    ensure!(
        metrics
            .series
            .iter()
            .filter(|series| series.name == DROPPED)
            .all(|series| series
                .labels
                .get("cause")
                .is_some_and(|cause| !cause.is_empty())),
        "a drop without a cause"
    );
    Ok(())
}

fn produced_by_sampler(up: &Up) -> Result<f64> {
    up.metrics()?
        .must(PRODUCED, &[("process", "sampler"), ("edge", "kernel")])
}

fn resident_kibibytes(pid: u32) -> Result<u64> {
    let credentials = Credentials::of(pid)?;
    let text = credentials.field("VmRSS")?;
    text.trim_end_matches(" kB")
        .trim()
        .parse()
        .with_context(|| format!("VmRSS: {text}"))
}

#[test]
fn everything_is_accounted_for_with_the_symbolizer_stopped() -> Result<()> {
    let _machine = Machine::lock()?;
    let _workload = Workload::start("chains-O2", &["600"])?;
    let up = Up::start(1, &["--profiling-cpu-sampling-frequency", "499"])?;
    std::thread::sleep(Duration::from_secs(3));
    balanced(&up)?;
    let sampler = up.process("sampler")?;
    let symbolizer = up.process("symbolizer")?;
    let (memory, produced) = (resident_kibibytes(sampler)?, produced_by_sampler(&up)?);
    signal(symbolizer, Signal::STOP)?;
    std::thread::sleep(Duration::from_secs(6));
    let stopped = up.metrics();
    signal(symbolizer, Signal::CONT)?;
    let stopped = stopped?;
    let during = stopped.must(PRODUCED, &[("process", "sampler"), ("edge", "kernel")])?;
    ensure!(
        during > produced + 1000.0,
        "the sampler waits for a symbolizer that is stopped: {produced} became {during}"
    );
    let grown = resident_kibibytes(sampler)?.saturating_sub(memory);
    ensure!(
        grown < 64 * 1024,
        "the sampler grew by {grown} KiB in six seconds"
    );
    // Once it goes on, everything flows again and the books are balanced.
    let delivered = |metrics: &Metrics| metrics.must(DELIVERED, &[("process", "shipper")]);
    let before = delivered(&stopped)?;
    until(
        "samples arrive at the shipper again",
        Duration::from_secs(15),
        || Ok((delivered(&up.metrics()?)? > before).then_some(())),
    )?;
    ensure!(
        up.process("symbolizer")? == symbolizer,
        "a stopped process was replaced"
    );
    balanced(&up)
}

#[test]
fn a_killed_process_comes_back_and_the_rest_goes_on() -> Result<()> {
    let _machine = Machine::lock()?;
    let _workload = Workload::start("chains-O2", &["600", "plain", "spawn"])?;
    let up = Up::start(1, &[])?;
    let mut victims = vec!["symbolizer"; 5];
    victims.extend([
        "opener",
        "shipper",
        "debuginfo-uploader",
        "viewer",
        "sampler",
    ]);
    for role in victims {
        let before = up.processes()?;
        let name = format!("leadsman-{role}");
        let victim = before
            .get(&name)
            .with_context(|| format!("no {name} runs"))?
            .pid;
        signal(victim, Signal::KILL)?;
        until(
            &format!("{role} runs again"),
            Duration::from_secs(5),
            || {
                let now = up.processes().ok();
                Ok(now
                    .and_then(|now| now.get(&name).map(|process| process.pid))
                    .filter(|pid| *pid != victim))
            },
        )?;
        until(
            &format!("ready after the death of {role}"),
            Duration::from_secs(15),
            || {
                Ok(http::get(up.address, "/ready")
                    .is_ok_and(|answer| answer.status == 200)
                    .then_some(()))
            },
        )?;
        let now = up.processes()?;
        for (other, process) in before.iter().filter(|(other, _)| **other != name) {
            ensure!(
                now.get(other).is_some_and(|now| now.pid == process.pid),
                "the death of {role} took {other} with it"
            );
        }
    }
    let stored = |up: &Up| -> Result<usize> { Ok(std::fs::read_dir(up.store())?.count()) };
    let windows = stored(&up)?;
    until("windows are stored again", Duration::from_secs(15), || {
        Ok((stored(&up)? > windows + 1).then_some(()))
    })?;
    balanced(&up)
}
