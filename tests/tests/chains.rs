//! Every thread of the workloads shows exactly the stack it has: one recording of the whole machine, judged thread by thread.

use std::time::Duration;

use anyhow::Result;
use leadsman_tests::Machine;
use leadsman_tests::record::record_profile;
use leadsman_tests::report::Report;
use leadsman_tests::workloads::{
    VARIANTS, Variant, Workload, c_chains, child_chains, cpp_chains, go_chain, rust_chains,
};

/// Share of a thread's samples that must show its exact chain, from a cold start on a machine that does other things too:
/// the children of a few milliseconds are all beginning.
const SHARE: f64 = 0.94;

/// Records the whole machine while these variants of chains.c run, and judges all their threads.
fn judge_variants(variants: &[Variant]) -> Result<()> {
    let _machine = Machine::lock()?;
    let running = variants
        .iter()
        .map(|variant| Workload::start(variant.name, &["600"]))
        .collect::<Result<Vec<Workload>>>()?;
    let recording = record_profile(&["-d", "6s", "-F", "997"])?;
    let mut report = Report::demanding(SHARE);
    for (variant, workload) in variants.iter().zip(&running) {
        let pid = i64::from(workload.id());
        for chain in c_chains(*variant) {
            report.judge(&recording.profile, variant.name, &chain, |stack| {
                stack.pid == pid && stack.thread_name == chain.thread
            })?;
        }
    }
    for chain in child_chains() {
        report.judge(&recording.profile, "children", &chain, |stack| {
            stack.thread_name == chain.thread
        })?;
    }
    report.finish()
}

#[test]
fn threads_without_frame_pointers() -> Result<()> {
    judge_variants(
        &VARIANTS
            .into_iter()
            .filter(|variant| variant.name == "chains-O2")
            .collect::<Vec<_>>(),
    )
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
    let cpp = Workload::start("chains-cpp", &["600"])?;
    let rust = Workload::start("chains-rs", &["600"])?;
    let go = Workload::start("chains-go", &["600"])?;
    let recording = record_profile(&["-d", "4s", "-F", "499"])?;
    let mut report = Report::demanding(SHARE);
    for (program, workload, chains) in [
        ("chains-cpp", &cpp, cpp_chains()),
        ("chains-rs", &rust, rust_chains()),
    ] {
        let pid = i64::from(workload.id());
        for chain in chains {
            report.judge(&recording.profile, program, &chain, |stack| {
                stack.pid == pid && stack.thread_name == chain.thread
            })?;
        }
    }
    let pid = i64::from(go.id());
    report.judge(&recording.profile, "chains-go", &go_chain(), |stack| {
        stack.pid == pid
    })?;
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
    let mut report = Report::demanding(SHARE);
    for variant in VARIANTS
        .into_iter()
        .filter(|variant| variant.name == "chains-O3")
    {
        for chain in c_chains(variant)
            .iter()
            .filter(|chain| ["w-plain", "w-realign", "w-dlopen"].contains(&chain.thread))
        {
            report.judge(&recording.profile, variant.name, chain, |stack| {
                stack.pid == pid && stack.thread_name == chain.thread
            })?;
        }
    }
    report.finish()
}
