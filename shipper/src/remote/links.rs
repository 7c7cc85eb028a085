//! The trace of a request to the store: its own, for it may carry several windows and be sent long after them. It links to
//! the windows of this run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use opentelemetry::trace::SpanContext;
use traces::Work;

use super::engine::{Outgoing, Window};

/// Windows remembered: what waits longer for the store is written without a link.
const MAX_WINDOWS: usize = 256;

/// The spans of windows.
#[derive(Debug, Default)]
pub(crate) struct Links {
    windows: BTreeMap<Window, SpanContext>,
}

impl Links {
    /// A window is on its way to the store.
    pub(crate) fn add(&mut self, window: Window, span: Option<SpanContext>) {
        let Some(span) = span.filter(SpanContext::is_valid) else {
            return;
        };
        if self.windows.len() >= MAX_WINDOWS {
            self.windows.pop_first();
        }
        self.windows.insert(window, span);
    }

    /// A request begins.
    pub(crate) fn write(&self, outgoing: &Outgoing) -> Work {
        let windows = outgoing.parcels.iter();
        let windows: BTreeSet<Window> = windows.map(|(key, _)| (key.start, key.window)).collect();
        let links = windows.iter().filter_map(|key| self.windows.get(key));
        let write = Work::root("write", SystemTime::now(), links.cloned().collect());
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        write.note("leadsman.windows", count(windows.len() as u64));
        write.note("leadsman.samples", count(outgoing.samples));
        write
    }
}
