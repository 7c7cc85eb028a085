//! What became of each sample between the ring buffer and the link to the symbolizer: produced = delivered + dropped.

use std::collections::BTreeMap;

/// Counts since the start, but for `window_drops`.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Samples of selected processes taken from the ring buffer, malformed ones included.
    pub(crate) ring_produced: u64,
    /// Of these, counted into a window or sent on as a snapshot.
    pub(crate) ring_delivered: u64,
    /// Of these, dropped, by cause.
    pub(crate) ring_dropped: BTreeMap<&'static str, u64>,
    /// Samples handed to the link's queue.
    pub(crate) link_produced: u64,
    /// Of these, taken by the symbolizer.
    pub(crate) link_delivered: u64,
    /// Of these, dropped, by cause.
    pub(crate) link_dropped: BTreeMap<&'static str, u64>,
    /// Samples of processes that nobody asked for.
    pub(crate) not_selected: u64,
    /// Kernel records of mappings, forks and execs that the perf rings had no room for.
    pub(crate) records_lost: u64,
    /// Samples dropped in the current window, by cause.
    window_drops: BTreeMap<&'static str, u64>,
    /// Samples sent in the current window.
    window_sent: u64,
}

impl Account {
    /// A sample from the ring buffer is dropped.
    pub(crate) fn drop_sample(&mut self, cause: &'static str, samples: u64) {
        *self.ring_dropped.entry(cause).or_default() += samples;
        *self.window_drops.entry(cause).or_default() += samples;
    }

    /// Samples the kernel side dropped.
    pub(crate) fn drop_in_kernel(&mut self, cause: &'static str, samples: u64) {
        if samples > 0 {
            *self.window_drops.entry(cause).or_default() += samples;
        }
    }

    /// Samples on their way to the symbolizer are dropped.
    pub(crate) fn drop_on_link(&mut self, cause: &'static str, samples: u64) {
        if samples > 0 {
            *self.link_dropped.entry(cause).or_default() += samples;
            *self.window_drops.entry(cause).or_default() += samples;
        }
    }

    /// Samples were sent.
    pub(crate) fn sent(&mut self, samples: u64) {
        self.window_sent += samples;
    }

    /// Samples sent, and dropped by cause, since the last window's end was sent.
    pub(crate) fn window(&self) -> (u64, &BTreeMap<&'static str, u64>) {
        (self.window_sent, &self.window_drops)
    }

    /// A window's end was sent: the next window's account starts.
    pub(crate) fn window_is_sent(&mut self) {
        self.window_sent = 0;
        self.window_drops.clear();
    }
}
