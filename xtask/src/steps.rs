//! Runs one step after the other, says how each went and how long it took, and sums up. A failed step does not stop
//! the next one.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::tool;

/// How many steps and tests there were.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    passed: usize,
    failed: usize,
    not_run: Vec<String>,
}

impl Steps {
    /// One step: counts as one that passed or failed.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        println!("\n== {name}");
        let start = Instant::now();
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        match &result {
            Ok(()) => {
                println!("== {name}: ok, {seconds:.1} s");
                self.passed += 1;
            }
            Err(error) => {
                println!("== {name}: FAILED, {seconds:.1} s: {error:#}");
                self.failed += 1;
            }
        }
        result.is_ok()
    }

    /// One step that is one cargo command.
    pub(crate) fn cargo(&mut self, arguments: &[&str]) -> bool {
        let name = format!("cargo {}", arguments.join(" "));
        self.step(&name, || {
            tool::run(quiet(&mut tool::cargo()).args(arguments))
        })
    }

    /// A step that can't run here, and why.
    pub(crate) fn cannot_run(&mut self, name: &str, why: &str) {
        println!("\n== {name}: did not run: {why}");
        self.not_run.push(format!("{name}: {why}"));
    }

    /// Tests that a test runner counted.
    pub(crate) fn tests(&mut self, passed: usize, failed: usize) {
        self.passed += passed;
        self.failed += failed;
    }

    /// Prints what did not run, then the closing line. Whether nothing failed.
    pub(crate) fn close(&self) -> bool {
        println!();
        for what in &self.not_run {
            println!("did not run: {what}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0
    }
}

/// Cargo without its progress: warnings and errors only.
pub(crate) fn quiet(command: &mut Command) -> &mut Command {
    command.env("CARGO_TERM_QUIET", "true")
}
