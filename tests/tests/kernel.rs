//! Known stacks at a rate that an emulated machine bears too: what `cargo xtask kernels` runs on other kernels.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use leadsman_tests::process::run;
use leadsman_tests::profile::Profile;
use leadsman_tests::workloads::{Workload, some_chains, variant};
use leadsman_tests::{Machine, binaries};

/// Longest that the recording may take with everything that an emulator makes slow.
const DEADLINE: Duration = Duration::from_secs(240);
/// Threads of chains.c: each has its own way to be hard to walk.
const THREADS: [&str; 6] = [
    "w-plain",
    "w-deep300",
    "w-realign",
    "w-signal",
    "w-dlopen",
    "w-noreturn",
];
/// Samples of each thread below which one accident would decide.
const FEWEST: i64 = 10;
/// Share of all their samples that must show their thread's exact chain, from a cold start in slow motion.
const SHARE: f64 = 0.9;

#[test]
fn threads_show_their_chains() -> Result<()> {
    let _machine = Machine::lock()?;
    let variant = variant("chains-O2")?;
    let names = THREADS.map(|thread| thread.trim_start_matches("w-"));
    let mut arguments = vec!["600"];
    arguments.extend(names);
    let workload = Workload::start(variant.name, &arguments)?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("kernel.pb.gz");
    let output = run(
        Command::new(binaries::leadsman()?)
            .args(["record", "-d", "12s", "-F", "49", "-o"])
            .arg(&file),
        DEADLINE,
    )?;
    println!("{}", output.stderr);
    ensure!(
        output.code() == Some(0),
        "record ended with {}",
        output.status
    );
    let profile = Profile::read(&file)?;
    let pid = i64::from(workload.id());
    let (mut all, mut right, mut text) = (0, 0, String::new());
    for chain in some_chains(variant, &THREADS) {
        let judgement = profile.judge(&chain, |stack| {
            stack.pid == pid && stack.thread_name == chain.thread
        });
        text += &format!(
            "{:12} {:5} samples, {:5} right{}\n",
            chain.thread,
            judgement.all,
            judgement.right,
            judgement.shown()
        );
        ensure!(judgement.all >= FEWEST, "too few samples: {text}");
        all += judgement.all;
        right += judgement.right;
    }
    println!("{text}");
    ensure!(
        right as f64 >= SHARE * all as f64,
        "{right} of {all} right:\n{text}"
    );
    Ok(())
}
