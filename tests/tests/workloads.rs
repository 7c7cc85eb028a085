//! The workloads do what their chains say, as a debugger sees it: when this fails, the workload or its chain is wrong, not
//! the profiler.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use leadsman_tests::chain::Chain;
use leadsman_tests::process::run_ok;
use leadsman_tests::profile::{Frame, Profile, Stack};
use leadsman_tests::workloads::{VARIANTS, Workload, c_chains, cpp_chains, rust_chains};
use leadsman_tests::{Machine, require_command};

/// Moments at which each program is stopped.
const ROUNDS: i64 = 2;

/// The stacks of all threads of a stopped moment.
fn stacks(pid: u32) -> Result<Vec<Stack>> {
    let output = run_ok(
        Command::new(require_command("gdb")?)
            .args(["--batch", "--nx", "--pid", &pid.to_string()])
            .args([
                "-ex",
                "set print frame-arguments none",
                "-ex",
                "thread apply all backtrace",
            ])
            // Debuginfo servers would make the answer depend on the network.
            .env_remove("DEBUGINFOD_URLS"),
        Duration::from_secs(120),
    )?;
    let mut stacks: Vec<Stack> = Vec::new();
    for line in output.text().lines() {
        if line.starts_with("Thread ") {
            let name = line.rsplit('"').nth(1).unwrap_or("");
            stacks.push(Stack {
                pid: pid.into(),
                thread_id: 0,
                comm: String::new(),
                thread_name: name.to_owned(),
                labels: std::collections::BTreeMap::new(),
                count: 1,
                frames: Vec::new(),
                stopped: None,
            });
        } else if let (true, Some(stack)) = (line.starts_with('#'), stacks.last_mut()) {
            let rest = line
                .split_once(' ')
                .map_or("", |(_, rest)| rest)
                .trim_start();
            let function = rest
                .split_once(" in ")
                .filter(|_| rest.starts_with("0x"))
                .map_or(rest, |(_, name)| name);
            let frame = Frame {
                function: function.to_owned(),
                mapping: String::new(),
                address: 0,
            };
            stack.frames.insert(0, frame);
        }
    }
    Ok(stacks)
}

fn judge(program: &str, chains: &[Chain]) -> Result<()> {
    let workload = Workload::start(program, &["600"])?;
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        std::thread::sleep(Duration::from_millis(300));
        seen.extend(stacks(workload.id())?);
    }
    let profile = Profile {
        stacks: seen,
        period: 0,
        duration_nanos: 0,
        time_nanos: 0,
    };
    for chain in chains {
        let judgement = profile.judge(chain, |stack| stack.thread_name == chain.thread);
        ensure!(
            judgement.all == ROUNDS && judgement.right == ROUNDS,
            "{program} {}: {} of {} stacks as its chain says{}",
            chain.thread,
            judgement.right,
            judgement.all,
            judgement.shown()
        );
    }
    Ok(())
}

#[test]
fn stacks_of_the_c_threads() -> Result<()> {
    let _machine = Machine::lock()?;
    for variant in VARIANTS {
        let mut chains = c_chains(variant);
        if variant.name == "chains-debug" {
            // From debug information the debugger shows the frame that a tail call has taken away.
            chains.retain(|chain| chain.thread != "w-tail");
        }
        judge(variant.name, &chains)?;
    }
    Ok(())
}

#[test]
fn stacks_of_the_cpp_and_rust_threads() -> Result<()> {
    let _machine = Machine::lock()?;
    judge("chains-cpp", &cpp_chains())?;
    judge("chains-rs", &rust_chains())
}
