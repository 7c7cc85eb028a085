//! Judges a recording thread by thread against the chains that its workloads have, and tells all verdicts in one text. Knows
//! nothing of how workloads are started.

use std::fmt::Write;

use anyhow::{Result, ensure};

use crate::chain::Chain;
use crate::profile::{Profile, Stack};

/// Samples below which one accident would decide.
const FEWEST: i64 = 30;
/// Samples of a thread that may be wrong however few it has: its first ones, taken before its tables were there.
const FIRST: f64 = 10.0;
/// Samples from which on each path of a chain must have been seen.
const ALL_PATHS: i64 = 200;
/// Each path of a chain must be seen down to its last function in this share of the thread's samples.
const WHOLE: f64 = 0.05;

/// Verdicts so far.
#[derive(Debug)]
pub struct Report {
    share: f64,
    text: String,
    failed: usize,
}

impl Report {
    /// Demands that this share of each thread's samples shows its exact chain.
    #[must_use]
    pub fn demanding(share: f64) -> Self {
        Self {
            share,
            text: String::new(),
            failed: 0,
        }
    }

    /// Judges the stacks that `select` picks.
    pub fn judge(
        &mut self,
        profile: &Profile,
        program: &str,
        chain: &Chain,
        select: impl FnMut(&Stack) -> bool,
    ) -> Result<()> {
        let judgement = profile.judge(chain, select);
        let mut faults = Vec::new();
        if judgement.all < FEWEST {
            faults.push(format!("only {} samples", judgement.all));
        }
        if judgement.share() < self.share.min(1.0 - FIRST / judgement.all as f64) {
            faults.push(format!("{:.1} % right", 100.0 * judgement.share()));
        }
        for (path, whole) in judgement.whole.iter().enumerate() {
            if judgement.all >= ALL_PATHS && (*whole as f64) < WHOLE * judgement.all as f64 {
                faults.push(format!("path {path} seen whole {whole} times"));
            }
        }
        let thread = chain.thread;
        let verdict = if faults.is_empty() {
            "ok".to_owned()
        } else {
            faults.join(", ")
        };
        writeln!(
            self.text,
            "{program:15} {thread:12} {:5} samples {:6.2} % {verdict}{}",
            judgement.all,
            100.0 * judgement.share(),
            if faults.is_empty() && judgement.wrong.is_empty() {
                String::new()
            } else {
                judgement.shown()
            }
        )?;
        self.failed += usize::from(!faults.is_empty());
        Ok(())
    }

    /// Shows all verdicts; fails when one thread did.
    pub fn finish(self) -> Result<()> {
        println!("{}", self.text);
        ensure!(
            self.failed == 0,
            "{} threads do not show their chain:\n{}",
            self.failed,
            self.text
        );
        Ok(())
    }
}
