//! Whether the store takes what it is sent, and when to ask again.

use std::collections::BTreeSet;
use std::time::Duration;

use remote_store::Verdict;

use super::Refusal;

/// First pause after a failure; doubles up to the longest. A store that turns this client away is asked seldom.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
const LONGEST_LATER: Duration = Duration::from_secs(60);

/// The store's health as its answers show it.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: u32,
    retry_at: u64,
    /// Codes that were told since the store went away.
    told: BTreeSet<&'static str>,
}

impl Health {
    pub(super) fn is_away(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn may_try(&self, now: u64) -> bool {
        now >= self.retry_at
    }

    pub(super) fn retry_at(&self) -> u64 {
        self.retry_at
    }

    /// Whether that is news.
    pub(super) fn on_success(&mut self) -> bool {
        let news = self.is_away();
        *self = Self::default();
        news
    }

    /// Whether that is news: the first failure, or one of a kind not told yet.
    pub(super) fn on_failure(&mut self, refusal: &Refusal, now: u64, jitter: f64) -> bool {
        let longest = match refusal.verdict {
            Verdict::Later => LONGEST_LATER,
            _ => LONGEST,
        };
        let pause = FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(longest)
            .mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now.saturating_add(pause.as_nanos() as u64);
        self.told.insert(refusal.code)
    }
}
