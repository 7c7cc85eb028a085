//! What uploads took, counted where it happens.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Time spent making files ready, and sending them.
    pub(crate) preparing: Duration,
    /// See `preparing`.
    pub(crate) transferring: Duration,
    /// Files made ready, by how they were compared with their original.
    pub(crate) checked: BTreeMap<&'static str, u64>,
}

/// Counts behind a lock that nobody holds for long.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

impl Tally {
    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A file was made ready, or could not be.
    pub(crate) fn prepared(&self, took: Duration) {
        self.change(|counts| counts.preparing += took);
    }

    /// A file was sent, or could not be.
    pub(crate) fn transferred(&self, took: Duration) {
        self.change(|counts| counts.transferring += took);
    }

    /// A file was compared with its original.
    pub(crate) fn checked(&self, how: &'static str) {
        self.change(|counts| *counts.checked.entry(how).or_default() += 1);
    }

    /// The counts now.
    pub(crate) fn counts(&self) -> Counts {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
