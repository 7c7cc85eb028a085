//! The figure of the whole: over the mixed load, user samples reach their thread's root, the compiler's short processes too.

use anyhow::{Result, ensure};
use leadsman_tests::Machine;
use leadsman_tests::mixed_load::MixedLoad;
use leadsman_tests::record::record_profile;

const SHARE: f64 = 0.97;

#[test]
fn user_samples_reach_their_threads_root() -> Result<()> {
    let _machine = Machine::lock()?;
    let load = MixedLoad::start()?;
    let recording = record_profile(&["-d", "8s", "-F", "97"])?;
    drop(load);
    let profile = recording.profile;
    // The one thread that is deeper than any limit is cut by design, and says so.
    let counted = |stack: &leadsman_tests::profile::Stack| stack.thread_name != "w-deep5000";
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
