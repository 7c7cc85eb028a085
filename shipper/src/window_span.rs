//! The trace of a window: from its first sample until every store has settled it, with a part for each step.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipc_proto::symbolized::SymbolizedBatch;
use traces::Work;

/// Windows on their way at most: as many as the engine waits for.
const MAX_OPEN: usize = 64;

/// Start, CLOCK_REALTIME nanoseconds, and number.
type Key = (u64, u64);

/// The traces of the windows that are not settled yet.
#[derive(Debug, Default)]
pub(crate) struct WindowSpans {
    open: BTreeMap<Key, Work>,
}

impl WindowSpans {
    /// A window arrived: what others did of it is over.
    pub(crate) fn begin(&mut self, batch: &SymbolizedBatch) -> &Work {
        let start = UNIX_EPOCH + Duration::from_nanos(batch.start);
        let end = start + Duration::from_nanos(batch.duration);
        let window = Work::root("window", start, Vec::new());
        let samples = batch.samples.0.iter().map(|sample| sample.count);
        let samples = samples.fold(0, u64::saturating_add);
        window.note("leadsman.window", count(batch.window.0));
        window.note("leadsman.samples", count(samples));
        window.note("leadsman.processes", count(batch.processes.0.len() as u64));
        window.part_since("sample", start).end_at(end);
        window
            .part_since("symbolize", end)
            .end_at(SystemTime::now());
        let key = (batch.start, batch.window.0);
        while self.open.len() >= MAX_OPEN {
            self.open.pop_first();
        }
        self.open.entry(key).insert_entry(window).into_mut()
    }

    /// The window's.
    pub(crate) fn get(&self, start: u64, window: u64) -> Option<&Work> {
        self.open.get(&(start, window))
    }

    /// It is settled.
    pub(crate) fn end(&mut self, start: u64, window: u64) {
        self.open.remove(&(start, window));
    }
}

fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
