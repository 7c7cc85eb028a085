//! `cargo xtask bench`: records one mixed load with Leadsman and with `perf record --call-graph dwarf`, one after the other,
//! and prints what each saw and cost. Judges nothing.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::tool;
use crate::{packages, up};

/// Samples a second and CPU.
const RATE: &str = "97";
/// The highest rate that is promised.
const FULL_RATE: &str = "997";
/// Length of each recording unless told otherwise, seconds.
const SECONDS: u64 = 15;
/// perf's recording is shorter than the one beside it, seconds: the BPF programs are asked about after it.
const PERF_ENDS_EARLIER: u64 = 3;
/// How long the load takes until all of its parts compute.
const RAMP_UP: Duration = Duration::from_secs(3);

/// `bench [SECONDS]`.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    let seconds = match arguments {
        [] => SECONDS,
        [seconds] => seconds
            .to_str()
            .and_then(|text| text.parse().ok())
            .filter(|seconds| (1..=600).contains(seconds))
            .context("usage: cargo xtask bench [SECONDS], from 1 to 600")?,
        _ => bail!("usage: cargo xtask bench [SECONDS]"),
    };
    packages::install_for_tests(&[])?;
    up::build()?;
    let programs = tool::target_directory().join("release");
    let directory = tool::target_directory().join("bench");
    std::fs::create_dir_all(&directory)?;
    machine()?;
    let load = Load::start(&programs, seconds * 4 + 120)?;
    std::thread::sleep(RAMP_UP);
    let _statistics = BpfStatistics::enable()?;
    for round in ["first", "second"] {
        println!(
            "\nleadsman record -d {seconds}s -F {RATE}, perf record beside it: {round} recording"
        );
        leadsman(&programs, &directory, seconds)?;
    }
    println!("\nleadsman record -d {seconds}s -F {FULL_RATE}: nothing may be lost");
    record(&programs, &directory, seconds, FULL_RATE)?.wait()?;
    println!("\nperf record --call-graph dwarf -F {RATE}, {seconds} s, same load");
    perf(&directory, seconds)?;
    drop(load);
    println!("\nleadsman record -d {seconds}s -F 19, no load");
    let mut idle = up::as_root(programs.join("leadsman"))?;
    let duration = format!("{seconds}s");
    tool::run(idle.args(["record", "-d", &duration, "-F", "19", "-o", "/dev/null"]))
}

/// What the figures depend on.
fn machine() -> Result<()> {
    let release = tool::output(tool::command("uname").arg("-r"))?;
    let cpus = std::thread::available_parallelism()?;
    println!("Linux {}, {cpus} CPUs", release.trim());
    Ok(())
}

/// A recording, and in the same seconds what perf sees and what the kernel spends in the BPF programs.
fn leadsman(programs: &Path, directory: &Path, seconds: u64) -> Result<()> {
    let mut recording = record(programs, directory, seconds, RATE)?;
    let watched = seconds.saturating_sub(PERF_ENDS_EARLIER).max(1);
    let data = directory.join("counted.data");
    let mut perf = up::as_root("perf")?
        .args([
            "record",
            "-q",
            // It would read all files it met for their build IDs, which takes longer than the recording beside it.
            "-B",
            "-N",
            "-a",
            "-e",
            "cpu-clock",
            "-F",
            RATE,
            "-g",
            "-o",
        ])
        .arg(&data)
        .args(["--", "sleep", &watched.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start perf")?;
    perf.wait()?;
    // The programs go with the sampler: this is about the last second it lives.
    match run_time()? {
        Some((nanoseconds, runs)) => println!(
            "BPF run time so far: {:.3} s in {runs} runs, {:.1} us each",
            nanoseconds as f64 / 1e9,
            nanoseconds as f64 / 1e3 / runs.max(1) as f64
        ),
        None => println!("BPF run time: not to be had, the sampler's descriptors cannot be read"),
    }
    recording.wait()?;
    println!(
        "perf saw {} samples with user frames in {watched} s of it",
        user_samples(&data)?
    );
    size(&directory.join("leadsman.pb.gz"))
}

fn record(programs: &Path, directory: &Path, seconds: u64, rate: &str) -> Result<Child> {
    let mut record = up::as_root(programs.join("leadsman"))?;
    record
        .args(["record", "-d", &format!("{seconds}s"), "-F", rate, "-o"])
        .arg(directory.join("leadsman.pb.gz"));
    record.spawn().context("cannot start leadsman record")
}

/// Run time, nanoseconds, and runs of the sampler's BPF programs, by the kernel's account.
fn run_time() -> Result<Option<(u64, u64)>> {
    let mut shell = up::as_root("sh")?;
    // A tail call is part of its caller's run: only the entry program counts runs.
    let said = tool::output(shell.args([
        "-c",
        "cat /proc/$(pidof leadsman-sampler)/fdinfo/* 2>/dev/null | grep -E '^run_(time_ns|cnt)' || true",
    ]))?;
    let sum = |name: &str| -> u64 {
        let lines = said.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .filter_map(|value| value.trim().parse::<u64>().ok())
            .sum()
    };
    let (nanoseconds, runs) = (sum("run_time_ns:"), sum("run_cnt:"));
    Ok((runs > 0).then_some((nanoseconds, runs)))
}

/// Samples of a perf.data file with at least one user address: `perf script -F ip` prints an address a line and an empty
/// line behind each sample.
fn user_samples(data: &Path) -> Result<usize> {
    let mut script = up::as_root("perf")?;
    let text = tool::output(script.args(["script", "-F", "ip", "-i"]).arg(data))?;
    let is_user = |line: &str| {
        let address = line.trim();
        !address.is_empty() && (address.len() < 16 || address.as_bytes()[0] < b'8')
    };
    Ok(text
        .split("\n\n")
        .filter(|sample| sample.lines().any(is_user))
        .count())
}

/// `kernel.bpf_stats_enabled`, as long as the value lives.
struct BpfStatistics;

impl BpfStatistics {
    fn enable() -> Result<Self> {
        Self::set("1").context("cannot make the kernel count the run time of BPF programs")?;
        Ok(Self)
    }

    fn set(value: &str) -> Result<()> {
        let mut shell = up::as_root("sh")?;
        tool::run(shell.args([
            "-c",
            &format!("echo {value} > /proc/sys/kernel/bpf_stats_enabled"),
        ]))
    }
}

impl Drop for BpfStatistics {
    fn drop(&mut self) {
        let _as_it_was = Self::set("0");
    }
}

/// perf leaves the walk of the stacks to `perf script`: both count.
fn perf(directory: &Path, seconds: u64) -> Result<()> {
    let data = directory.join("perf.data");
    let shown = data.display();
    timed(
        "record",
        &format!(
            "perf record -q -a -e cpu-clock -F {RATE} --call-graph dwarf,16384 -o '{shown}' -- sleep {seconds} 2>/dev/null"
        ),
    )?;
    timed(
        "walk and name the stacks",
        &format!("perf script --no-inline -i '{shown}' >/dev/null 2>&1"),
    )?;
    size(&data)
}

/// Runs a shell command and prints its CPU time.
fn timed(what: &str, script: &str) -> Result<()> {
    let mut shell = up::as_root("sh")?;
    let said = tool::output(shell.args(["-c", &format!("{script}\ntimes")]))?;
    // times(1): the shell's own line, then its children's user and system time.
    let children = said.lines().last().unwrap_or_default();
    println!("  {what}: CPU (user, system) {children}");
    Ok(())
}

fn size(file: &Path) -> Result<()> {
    let bytes = std::fs::metadata(file)
        .with_context(|| format!("cannot read {}", file.display()))?
        .len();
    println!("  {}: {:.2} MB", file.display(), bytes as f64 / 1e6);
    Ok(())
}

/// The mixed load; it ends with the value.
#[derive(Debug)]
struct Load(Child);

impl Load {
    fn start(programs: &Path, seconds: u64) -> Result<Self> {
        let program = programs.join("mixed-load");
        let child = Command::new(&program)
            .arg(seconds.to_string())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self(child))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Its parts are tied to its life.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
