//! The account of the edge to the remote store.

use std::collections::BTreeMap;

use super::Shelf;

/// Samples on the edge to the remote store since the start: produced = delivered + dropped + queued, and what is queued is
/// in memory or in the spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Samples of windows received, and those found in the spool at the start.
    pub produced: u64,
    /// Those found in the spool at the start.
    pub recovered: u64,
    /// Samples the store took.
    pub delivered: u64,
    /// Samples given up, by cause.
    pub dropped: BTreeMap<&'static str, u64>,
    deliveries: u64,
}

impl Account {
    pub(super) fn recovered(samples: u64) -> Self {
        Self {
            produced: samples,
            recovered: samples,
            ..Self::default()
        }
    }

    pub(super) fn produce(&mut self, samples: u64) {
        self.produced = self.produced.saturating_add(samples);
    }

    pub(super) fn deliver(&mut self, samples: u64) {
        self.delivered = self.delivered.saturating_add(samples);
        self.deliveries += 1;
    }

    pub(super) fn drop_samples(&mut self, cause: &'static str, samples: u64) {
        let count = self.dropped.entry(cause).or_default();
        *count = count.saturating_add(samples);
    }

    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    pub(super) fn spooled(&self, shelf: &impl Shelf) -> u64 {
        let counts = shelf.entries().values().map(|entry| entry.samples);
        counts.fold(0, u64::saturating_add)
    }

    /// Samples neither delivered nor dropped yet.
    #[must_use]
    pub fn queued(&self) -> u64 {
        let dropped: u64 = self.dropped.values().sum();
        self.produced
            .saturating_sub(self.delivered.saturating_add(dropped))
    }
}
