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
/// Length of each recording unless told otherwise, seconds.
const SECONDS: u64 = 15;
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
    for round in ["first recording", "second recording (unwind tables cached)"] {
        println!("\nleadsman record -d {seconds}s -F {RATE}: {round}");
        leadsman(&programs, &directory, seconds)?;
    }
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

fn leadsman(programs: &Path, directory: &Path, seconds: u64) -> Result<()> {
    let profile = directory.join("leadsman.pb.gz");
    let mut record = up::as_root(programs.join("leadsman"))?;
    let duration = format!("{seconds}s");
    record.args(["record", "-d", &duration, "-F", RATE, "-o"]);
    tool::run(record.arg(&profile))?;
    size(&profile)
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
