//! The rate is the rate: a thread that computes all the time is sampled rate x CPU time times.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use leadsman_tests::process::run;
use leadsman_tests::profile::Profile;
use leadsman_tests::record::DEADLINE;
use leadsman_tests::workloads::programs;
use leadsman_tests::{Machine, binaries};

/// Records a pinned thread that uses `milliseconds` of CPU time and says itself how much it was; so other load on the
/// machine does not blur the count.
fn samples_follow_cpu_time(rate: u32, milliseconds: u32) -> Result<()> {
    let _machine = Machine::lock()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("pinned.pb.gz");
    let output = run(
        Command::new(binaries::leadsman()?)
            .args(["record", "-F", &rate.to_string(), "-o"])
            .arg(&file)
            .arg("--")
            .arg(programs()?.path("w-pinned"))
            .args(["pinned", "1", &milliseconds.to_string()]),
        DEADLINE,
    )?;
    ensure!(
        output.code() == Some(0),
        "record ended with {}: {}",
        output.status,
        output.stderr
    );
    let nanoseconds: f64 = output
        .text()
        .trim()
        .parse()
        .context("the child prints its CPU time")?;
    let profile = Profile::read(&file)?;
    let period = 1e9 / f64::from(rate);
    ensure!(
        (profile.period as f64 - period).abs() <= 1.0,
        "period {} for {rate} Hz",
        profile.period
    );
    let counted = profile.count(|stack| stack.comm == "w-pinned") as f64;
    let expected = nanoseconds / period;
    // One sample more or less is where the first and the last tick fall.
    let tolerance = 0.03 * expected + 1.0;
    println!("{rate} Hz: {counted} samples, {expected:.1} expected");
    ensure!(
        (counted - expected).abs() <= tolerance,
        "{rate} Hz: {counted} samples, {expected:.1} +- {tolerance:.1} expected"
    );
    Ok(())
}

#[test]
fn at_19_hertz() -> Result<()> {
    samples_follow_cpu_time(19, 10_000)
}

#[test]
fn at_97_hertz() -> Result<()> {
    samples_follow_cpu_time(97, 6_000)
}

#[test]
fn at_997_hertz() -> Result<()> {
    samples_follow_cpu_time(997, 3_000)
}
