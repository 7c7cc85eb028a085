//! The shipper's counters as metrics. Counts nothing itself.

use std::collections::BTreeMap;

use ipc_endpoint::statistics::{counter, delivered, dropped, gauge, produced, queued};
use ipc_proto::statistics::Metric;

use crate::engine::Account;
use crate::store::LocalStore;

/// The edge from the shipper to the store.
const EDGE: &str = "store";

/// All metrics of this process.
#[must_use]
pub(crate) fn metrics(
    account: &Account,
    store: &LocalStore,
    violations: &BTreeMap<&'static str, u64>,
) -> Vec<Metric> {
    let dropped_samples: u64 = account.dropped.values().sum();
    let settled = account.delivered.saturating_add(dropped_samples);
    let mut metrics = vec![
        produced(EDGE, account.produced),
        delivered(EDGE, account.delivered),
        queued(EDGE, account.produced.saturating_sub(settled)),
        counter(
            "leadsman_store_windows_total",
            "Windows written to the local store.",
            &[],
            account.windows as f64,
        ),
        counter(
            "leadsman_store_written_bytes_total",
            "Bytes of profiles written to the local store.",
            &[],
            account.bytes as f64,
        ),
        counter(
            "leadsman_store_removed_windows_total",
            "Windows removed from the local store by its retention.",
            &[],
            store.removed() as f64,
        ),
        gauge(
            "leadsman_store_windows",
            "Windows in the local store.",
            &[],
            store.profiles() as f64,
        ),
        gauge(
            "leadsman_store_bytes",
            "Bytes of the profiles in the local store.",
            &[],
            store.bytes() as f64,
        ),
    ];
    for (cause, samples) in &account.dropped {
        metrics.push(dropped(EDGE, cause, *samples));
    }
    for (cause, count) in violations {
        metrics.push(counter(
            "leadsman_link_violations_total",
            "Links closed because the peer broke the protocol, by cause.",
            &[
                ("process", "shipper"),
                ("edge", "symbolized"),
                ("cause", cause),
            ],
            *count as f64,
        ));
    }
    metrics
}
