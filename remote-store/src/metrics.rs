//! What became of the calls: attempts by method and code, as metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipc_endpoint::statistics::counter;
use ipc_proto::statistics::Metric;
use tonic::Code;

use crate::verdict::code_name;

/// Attempts so far; clones count together.
#[derive(Clone, Debug, Default)]
pub struct CallMetrics {
    attempts: Arc<Mutex<BTreeMap<(&'static str, &'static str), Attempts>>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    count: u64,
    took: Duration,
}

impl CallMetrics {
    /// One attempt of `method` ended with `code`.
    pub fn count(&self, method: &'static str, code: Code, took: Duration) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = attempts.entry((method, code_name(code))).or_default();
        entry.count += 1;
        entry.took += took;
    }

    /// As metrics of the process called `process`.
    #[must_use]
    pub fn metrics(&self, process: &str) -> Vec<Metric> {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut metrics = Vec::new();
        for ((method, code), attempts) in attempts.iter() {
            let labels = [("process", process), ("method", method), ("code", code)];
            metrics.push(counter(
                "leadsman_remote_store_calls_total",
                "Calls to the remote store, retries included, by method and gRPC code.",
                &labels,
                attempts.count as f64,
            ));
            metrics.push(counter(
                "leadsman_remote_store_call_seconds_total",
                "Time those calls took.",
                &labels,
                attempts.took.as_secs_f64(),
            ));
        }
        metrics
    }
}
