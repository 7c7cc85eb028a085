//! Runs each fuzz target for a short while: finds what breaks at once, not what hides.
//!
//! `cargo xtask fuzz [TARGET] [SECONDS]` runs one for longer.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo_tools;
use crate::steps::{Steps, quiet};
use crate::tool::{self, root};

/// How long each target runs as part of the tests.
const SECONDS: u32 = 5;
/// Where the targets are; what they found goes there too.
const DIRECTORY: &str = "fuzz";

/// `fuzz [TARGET [SECONDS]]`.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    let targets = targets()?;
    let words: Vec<_> = arguments
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    let (chosen, seconds) = match words.as_slice() {
        [] => (targets, SECONDS),
        [target] => (vec![target.to_string()], 60),
        [target, seconds] => (
            vec![target.to_string()],
            seconds.parse().context("SECONDS is no number")?,
        ),
        _ => bail!("usage: cargo xtask fuzz [TARGET [SECONDS]]"),
    };
    build()?;
    chosen.iter().try_for_each(|target| fuzz(target, seconds))
}

/// All targets as steps of the tests.
pub(crate) fn steps(steps: &mut Steps) {
    let targets = match targets() {
        Ok(targets) => targets,
        Err(error) => {
            steps.step("fuzz", || Err(error));
            return;
        }
    };
    if !steps.step("fuzz targets", build) {
        return;
    }
    for target in targets {
        steps.step(&format!("fuzz {target}, {SECONDS} s"), || {
            fuzz(&target, SECONDS)
        });
    }
}

/// Names of the targets, in order.
fn targets() -> Result<Vec<String>> {
    let directory = root().join(DIRECTORY).join("fuzz_targets");
    let entries = std::fs::read_dir(&directory)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    if names.is_empty() {
        bail!("no fuzz targets in {}", directory.display());
    }
    names.sort();
    Ok(names)
}

fn build() -> Result<()> {
    tool::run(cargo_fuzz()?.arg("build"))
}

fn fuzz(target: &str, seconds: u32) -> Result<()> {
    let corpus = root().join(DIRECTORY).join("corpus").join(target);
    std::fs::create_dir_all(&corpus)?;
    let mut command = cargo_fuzz()?;
    command.args(["run", target]).arg(&corpus);
    let seeds = root().join(DIRECTORY).join("seeds").join(target);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    // 10 s for one input, 1 GiB with the sanitizer's own: what takes more is a defect.
    command.args(["--", "-timeout=10", "-rss_limit_mb=1024", "-verbosity=0"]);
    command.args([
        "-print_final_stats=1",
        &format!("-max_total_time={seconds}"),
    ]);
    tool::run(&mut command)
}

/// cargo-fuzz with the compiler that builds everything else: the sanitizer's flags are not stable ones.
fn cargo_fuzz() -> Result<Command> {
    let mut command = tool::command(cargo_tools::FUZZ.program()?);
    quiet(&mut command).env("RUSTC_BOOTSTRAP", "1");
    Ok(command)
}
