//! The figure of the whole: over the mixed load, user samples reach their thread's root, the compiler's short processes too.

use anyhow::{Result, bail, ensure};
use leadsman_tests::Machine;
use leadsman_tests::mixed_load::MixedLoad;
use leadsman_tests::profile::Stack;
use leadsman_tests::record::record_profile;

const SHARE: f64 = 0.98;
/// The same for processes of a millisecond.
const SHORT_SHARE: f64 = 0.98;

#[test]
fn user_samples_reach_their_threads_root() -> Result<()> {
    let _machine = Machine::lock()?;
    let load = MixedLoad::start()?;
    let recording = record_profile(&["-d", "8s", "-F", "97"])?;
    drop(load);
    let profile = recording.profile;
    // The one thread that is deeper than any limit is cut by design, and says so.
    let counted = |stack: &Stack| stack.thread_name != "w-deep5000";
    let (share, all) = profile.complete(counted);
    let mut text = format!("{:.2} % of {all} user samples complete\n", 100.0 * share);
    for (comm, (all, complete)) in profile.by_comm() {
        text += &format!("{comm:16} {complete:5} of {all:5}\n");
    }
    println!("{text}");
    ensure!(all > 500, "too few samples to judge: {text}");
    ensure!(share >= SHARE, "{text}");
    let (compiler, all) = profile.complete(|stack| stack.comm == "cc1");
    ensure!(all >= 20, "the compiler was hardly seen: {text}");
    ensure!(
        compiler >= SHARE,
        "cc1: {:.2} % of {all}\n{text}",
        100.0 * compiler
    );
    for comm in ["node", "openssl"] {
        ensure!(profile.by_comm().contains_key(comm), "no {comm}: {text}");
    }
    Ok(())
}

#[test]
fn processes_of_a_millisecond_are_whole_too() -> Result<()> {
    let _machine = Machine::lock()?;
    let load = MixedLoad::of_short_processes()?;
    let recording = record_profile(&["-d", "10s", "-F", "197"])?;
    drop(load);
    let profile = recording.profile;
    let by_comm = profile.by_comm();
    for comm in ["bash", "sed", "tr"] {
        let (all, complete) = by_comm.get(comm).copied().unwrap_or_default();
        println!("{comm:8} {complete:5} of {all:5}");
        ensure!(all >= 50, "{comm} was hardly seen: {all}\n{by_comm:?}");
        let stopped = profile.stacks.iter().filter(|stack| stack.comm == comm);
        let stopped: Vec<_> = stopped.filter_map(|stack| stack.stopped.as_ref()).collect();
        ensure!(
            complete as f64 >= SHORT_SHARE * all as f64,
            "{comm}: {complete} of {all} complete, others {stopped:?}"
        );
    }
    // A child that runs in its parent's mappings is walked to what its parent began with.
    let shells = |stack: &Stack| stack.comm == "bash" && stack.is_user() && stack.stopped.is_none();
    let mut shells = profile.stacks.iter().filter(|stack| shells(stack));
    let roots = ["_start", "_dl_start_user"];
    let strange = shells.find(|stack| !roots.contains(&stack.frames[0].function.as_str()));
    if let Some(stack) = strange {
        bail!("a shell's stack begins in the middle: {}", stack.shown());
    }
    Ok(())
}
