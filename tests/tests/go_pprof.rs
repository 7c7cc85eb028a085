//! Go's own pprof tool reads our files and sees what we see.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::process::run_ok;
use leadsman_tests::record::record_profile;
use leadsman_tests::workloads::Workload;
use leadsman_tests::{Machine, require_command};

const DEADLINE: Duration = Duration::from_secs(240);

#[test]
fn go_tool_pprof_reads_a_recording() -> Result<()> {
    let machine = Machine::lock()?;
    let workload = Workload::start("chains-O2", &["600", "plain", "deep300", "syscall"])?;
    let recording = record_profile(&["-d", "2s", "-F", "97"])?;
    drop((workload, machine));
    let pprof = |mode: &str| {
        run_ok(
            Command::new(require_command("go")?)
                .args(["tool", "pprof", mode])
                .arg(recording.file())
                .env("PPROF_TMPDIR", recording.directory.path())
                // No debug file is to be fetched or looked for: the profile is symbolized.
                .env("PPROF_BINARY_PATH", recording.directory.path()),
            DEADLINE,
        )
    };
    let raw = pprof("-raw")?.text();
    ensure!(
        raw.contains("PeriodType: cpu nanoseconds"),
        "the period type: {raw:.400}"
    );
    ensure!(raw.contains("samples/count"), "the sample type: {raw:.400}");
    let samples = raw
        .split("Samples:\n")
        .nth(1)
        .and_then(|rest| rest.split("Locations\n").next())
        .context("no samples in -raw")?;
    // "   count: location location ..." opens a sample, lines that follow show its labels.
    let total: i64 = samples
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(count, _)| count.trim().parse::<i64>().ok())
        .sum();
    ensure!(
        total == recording.profile.count(|_| true),
        "Go counts {total} samples, we {}",
        recording.profile.count(|_| true)
    );
    for label in ["pid:", "thread_id:", "comm:", "thread_name:"] {
        ensure!(samples.contains(label), "no label {label}");
    }
    let top = pprof("-top")?.text();
    for function in ["w_spin", "flat%"] {
        ensure!(top.contains(function), "no {function} in -top: {top:.2000}");
    }
    let tree = pprof("-traces")?.text();
    ensure!(tree.contains("w_plain_b"), "no w_plain_b in -traces");
    Ok(())
}
