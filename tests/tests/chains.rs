//! Every thread of the workloads shows exactly the stack it has: the whole machine is sampled, and judged thread by thread.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::process::signal;
use leadsman_tests::profile::{Profile, Stack};
use leadsman_tests::record::record_profile;
use leadsman_tests::report::Report;
use leadsman_tests::up::Up;
use leadsman_tests::workloads::{
    VARIANTS, Variant, Workload, c_chains, child_chains, cpp_chains, go_chain, rust_chains,
    some_chains, variant,
};
use leadsman_tests::{Machine, public_directory};
use rustix::process::Signal;

/// Share of a thread's samples that must show its exact chain.
const SHARE: f64 = 0.97;
/// The same for children of a few milliseconds: all of their samples are first ones, and while `execve` changes their memory
/// there is no stack.
const SHORT_SHARE: f64 = 0.90;
/// The same from a cold start: until the unwind tables are in the kernel, stacks are finished from snapshots, and what lies
/// on another stack than the snapshot's is lost.
const COLD_SHARE: f64 = 0.94;
/// What runs already is known after so long.
const SETTLED: Duration = Duration::from_secs(4);

/// A Leadsman that samples so often; to be started before workloads leave it little of the CPUs.
fn watching(frequency: &str) -> Result<Up> {
    Up::start(1, &["--profiling-cpu-sampling-frequency", frequency])
}

/// What it samples of the running workloads once it knows them.
fn sampled(up: &Up) -> Result<Profile> {
    std::thread::sleep(SETTLED);
    up.sampled(Duration::from_secs(8))
}

/// Samples the whole machine while these variants of chains.c run, and judges all their threads.
fn judge_variants(variants: &[Variant]) -> Result<()> {
    let _machine = Machine::lock()?;
    // Each has seventeen threads: with more at once nothing else would come to run.
    for few in variants.chunks(2) {
        judge_few(few)?;
    }
    Ok(())
}

fn judge_few(variants: &[Variant]) -> Result<()> {
    let up = watching("997")?;
    let running = variants
        .iter()
        .map(|variant| Workload::start(variant.name, &["600"]))
        .collect::<Result<Vec<Workload>>>()?;
    let profile = sampled(&up)?;
    let mut report = Report::demanding(SHARE);
    for (variant, workload) in variants.iter().zip(&running) {
        let pid = i64::from(workload.id());
        for chain in c_chains(*variant) {
            report.judge(&profile, variant.name, &chain, |stack| {
                stack.pid == pid && stack.thread_name == chain.thread
            })?;
        }
    }
    report.finish()?;
    let mut report = Report::demanding(SHORT_SHARE);
    for chain in child_chains() {
        report.judge(&profile, "children", &chain, |stack| {
            stack.thread_name == chain.thread
        })?;
    }
    report.finish()
}

#[test]
fn threads_without_frame_pointers() -> Result<()> {
    judge_variants(&[variant("chains-O2")?])
}

#[test]
fn other_ways_to_compile_dynamic_programs() -> Result<()> {
    judge_variants(
        &VARIANTS
            .into_iter()
            .filter(|variant| {
                !variant.is_static && !["chains-O2", "chains-ibt"].contains(&variant.name)
            })
            .collect::<Vec<_>>(),
    )
}

#[test]
fn static_programs() -> Result<()> {
    judge_variants(
        &VARIANTS
            .into_iter()
            .filter(|variant| variant.is_static)
            .collect::<Vec<_>>(),
    )
}

#[test]
fn other_compiled_languages() -> Result<()> {
    let _machine = Machine::lock()?;
    let up = watching("499")?;
    let cpp = Workload::start("chains-cpp", &["600"])?;
    let rust = Workload::start("chains-rs", &["600"])?;
    let go = Workload::start("chains-go", &["600"])?;
    let profile = sampled(&up)?;
    let mut report = Report::demanding(SHARE);
    for (program, workload, chains) in [
        ("chains-cpp", &cpp, cpp_chains()),
        ("chains-rs", &rust, rust_chains()),
    ] {
        let pid = i64::from(workload.id());
        for chain in chains {
            report.judge(&profile, program, &chain, |stack| {
                stack.pid == pid && stack.thread_name == chain.thread
            })?;
        }
    }
    let pid = i64::from(go.id());
    report.judge(&profile, "chains-go", &go_chain(), |stack| stack.pid == pid)?;
    report.finish()
}

/// A program that is there before the profiler, and one that starts during the recording, are known alike.
#[test]
fn a_program_that_starts_during_the_recording() -> Result<()> {
    let _machine = Machine::lock()?;
    let recorder = std::thread::spawn(|| record_profile(&["-d", "5s", "-F", "499"]));
    std::thread::sleep(Duration::from_secs(2));
    // A workload ends with the thread that started it, so it is the recording that runs beside.
    let workload = Workload::start("chains-O3", &["600", "plain", "realign", "dlopen"])?;
    let recording = recorder
        .join()
        .map_err(|_panic| anyhow::anyhow!("the recording thread panicked"))??;
    let pid = i64::from(workload.id());
    let mut report = Report::demanding(COLD_SHARE);
    let variant = variant("chains-O3")?;
    for chain in some_chains(variant, &["w-plain", "w-realign", "w-dlopen"]) {
        report.judge(&recording.profile, variant.name, &chain, |stack| {
            stack.pid == pid && stack.thread_name == chain.thread
        })?;
    }
    report.finish()
}

/// A program whose file the opener could not open in time (a busy machine) has its table once it can.
#[test]
fn a_program_whose_file_is_opened_late() -> Result<()> {
    let _machine = Machine::lock()?;
    // A table that is known from before needs no file.
    let cache = public_directory("cache-")?;
    let cache = cache.path().to_str().context("the path is UTF-8")?;
    let more = ["--profiling-cpu-sampling-frequency", "499"];
    let up = Up::start(1, &[&more[..], &["--cache-directory", cache]].concat())?;
    let opener = up.process("opener")?;
    signal(opener, Signal::STOP)?;
    let workload = Workload::start("chains-static", &["600", "plain"])?;
    // Longer than an answer is waited for.
    std::thread::sleep(Duration::from_secs(8));
    let meanwhile = up.sampled(Duration::from_secs(1));
    signal(opener, Signal::CONT)?;
    let pid = i64::from(workload.id());
    let is_plain = |stack: &Stack| stack.pid == pid && stack.thread_name == "w-plain";
    for stack in meanwhile?.stacks.iter().filter(|stack| is_plain(stack)) {
        ensure!(
            stack.stopped.is_some(),
            "complete without a table: {}",
            stack.shown()
        );
    }
    let profile = sampled(&up)?;
    let mut report = Report::demanding(SHARE);
    let variant = variant("chains-static")?;
    for chain in some_chains(variant, &["w-plain"]) {
        report.judge(&profile, variant.name, &chain, is_plain)?;
    }
    report.finish()
}
