//! What profiling costs and what it must not lose: no table work for a compiler that runs again, kernel memory within its
//! budget, no sample lost at the highest rate on a busy machine.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use leadsman_tests::Machine;
use leadsman_tests::metrics::Metrics;
use leadsman_tests::mixed_load::MixedLoad;
use leadsman_tests::process::until;
use leadsman_tests::profile::Profile;
use leadsman_tests::record::{Recording, record_profile};
use leadsman_tests::up::Up;

/// Share of user stacks that must be whole at a tenth of the memory that all tables take.
const SHARE: f64 = 0.97;
/// Bytes of kernel memory for each row, directories and the hash tables' buckets included.
const MOST_BYTES: f64 = 5.0;
/// The least that `--bpf-memory-budget` takes.
const LEAST_BUDGET: f64 = 262_144.0;

/// Tables that the symbolizer built, found in its cache or failed to build.
fn table_work(metrics: &Metrics) -> f64 {
    metrics
        .sum("leadsman_unwind_tables_total", &[])
        .unwrap_or(0.0)
}

/// Processes named `comm` in the profiles stored since `since`.
fn processes(up: &Up, comm: &str, known: &BTreeSet<std::path::PathBuf>) -> Result<BTreeSet<i64>> {
    let mut found = BTreeSet::new();
    for file in up.stored()?.difference(known) {
        let profile = Profile::read(file)?;
        let stacks = profile.stacks.iter().filter(|stack| stack.comm == comm);
        found.extend(stacks.map(|stack| stack.pid));
    }
    Ok(found)
}

#[test]
fn a_compiler_that_runs_again_costs_no_table_work() -> Result<()> {
    let _machine = Machine::lock()?;
    let _load = MixedLoad::start()?;
    let up = Up::start(1, &["--profiling-cpu-sampling-frequency", "97"])?;
    let mut last = (0.0, Instant::now());
    until(
        "the load's tables are all there",
        Duration::from_secs(40),
        || {
            let work = table_work(&up.metrics()?);
            if work != last.0 {
                last = (work, Instant::now());
            }
            Ok((work > 5.0 && last.1.elapsed() >= Duration::from_secs(5)).then_some(()))
        },
    )?;
    // Programs that were too short to be sampled yet may come along: a round without them decides.
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let before = table_work(&up.metrics()?);
        let known = up.stored()?;
        until(
            "the compiler ran twice more",
            Duration::from_secs(120),
            || Ok((processes(&up, "cc1", &known)?.len() >= 2).then_some(())),
        )?;
        let after = table_work(&up.metrics()?);
        if after == before {
            return Ok(());
        }
        rounds.push((before, after));
    }
    bail!("tables before and after the same programs ran again, round by round: {rounds:?}")
}

/// Rows in the kernel and bytes of kernel memory for each, from the summary's line.
fn rows(recording: &Recording) -> Result<(f64, f64)> {
    let said = &recording.output.stderr;
    let words: Vec<&str> = said.split_whitespace().collect();
    let at = words
        .windows(2)
        .position(|pair| pair == ["unwind", "rows"])
        .with_context(|| format!("no rows in {said}"))?;
    let number = |index: usize| -> Result<f64> {
        let word = words.get(index).copied().unwrap_or_default();
        word.parse().with_context(|| format!("{word:?} in {said}"))
    };
    Ok((number(at - 1)?, number(at + 5)?))
}

#[test]
fn a_tenth_of_the_memory_keeps_stacks_whole() -> Result<()> {
    let _machine = Machine::lock()?;
    let _load = MixedLoad::start()?;
    let whole = record_profile(&["-d", "5s", "-F", "97"])?;
    let (all_rows, bytes_each) = rows(&whole)?;
    println!("{all_rows} rows, {bytes_each} bytes each");
    ensure!(
        bytes_each <= MOST_BYTES,
        "{bytes_each} bytes of kernel memory a row"
    );
    let budget = (all_rows * bytes_each / 10.0).max(LEAST_BUDGET);
    let text = format!("{budget:.0}");
    let small = record_profile(&["-d", "8s", "-F", "97", "--bpf-memory-budget", &text])?;
    let (rows, bytes_each) = rows(&small)?;
    let bytes = rows * bytes_each;
    println!(
        "budget {budget}: {rows} rows, {bytes} bytes\n{}",
        small.output.stderr
    );
    // The figure of each row was rounded.
    ensure!(
        bytes <= budget * 1.1,
        "{bytes} bytes of a budget of {budget}"
    );
    let counted = |stack: &leadsman_tests::profile::Stack| stack.thread_name != "w-deep5000";
    let (share, all) = small.profile.complete(counted);
    ensure!(all > 500, "only {all} samples");
    ensure!(
        share >= SHARE,
        "{:.1} % of {all} stacks are whole",
        100.0 * share
    );
    Ok(())
}

#[test]
fn the_highest_rate_on_a_busy_machine_loses_nothing() -> Result<()> {
    let _machine = Machine::lock()?;
    let _load = MixedLoad::start()?;
    let recording = record_profile(&["-d", "10s", "-F", "997"])?;
    let said = &recording.output.stderr;
    println!("{said}");
    ensure!(said.contains("nothing dropped"), "{said}");
    Ok(())
}
