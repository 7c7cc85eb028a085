//! Ended spans on their way to the thread that sends them. Bounded: work never waits for its own trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipc_endpoint::statistics::counter;
use ipc_proto::statistics::Metric;
use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Spans that may wait.
const MAX_WAITING: usize = 2048;

/// What became of the spans.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) exported: AtomicU64,
    pub(crate) refused: AtomicU64,
    overflowed: AtomicU64,
}

impl Counts {
    /// As metrics of the process called `process`.
    pub(crate) fn metrics(&self, process: &str) -> Vec<Metric> {
        let exported = ("exported", &self.exported);
        let results = [
            exported,
            ("refused", &self.refused),
            ("queue_full", &self.overflowed),
        ];
        let metric = |(result, count): (&str, &AtomicU64)| {
            counter(
                "leadsman_traces_spans_total",
                "Spans of Leadsman's own work that ended, by what became of them.",
                &[("process", process), ("result", result)],
                count.load(Ordering::Relaxed) as f64,
            )
        };
        results.into_iter().map(metric).collect()
    }
}

/// The queue's end where spans are made.
#[derive(Debug)]
pub(crate) struct Queue {
    spans: Sender<SpanData>,
    counts: Arc<Counts>,
}

/// A queue, and its end where spans are sent.
pub(crate) fn queue(counts: Arc<Counts>) -> (Queue, Receiver<SpanData>) {
    let (spans, receiver) = channel(MAX_WAITING);
    (Queue { spans, counts }, receiver)
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.counts.overflowed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The thread sends what waits when it ends; nobody else waits for it.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
