//! The shipper's counters as metrics. Counts nothing itself.

use std::collections::BTreeMap;

use ipc_endpoint::histogram::Histogram;
use ipc_endpoint::statistics::{check, counter, delivered, dropped, gauge, produced, queued};
use ipc_proto::statistics::Metric;

use crate::engine::Account;
use crate::labels::Counts;
use crate::remote::runtime::Remote;
use crate::store::LocalStore;

/// The edges from the shipper to the stores.
const EDGE: &str = "store";
const REMOTE_EDGE: &str = "remote-store";

/// All metrics of this process.
#[must_use]
pub(crate) fn metrics(
    account: &Account,
    labels: &Counts,
    store: &LocalStore,
    violations: &BTreeMap<&'static str, u64>,
    writing: &Histogram,
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
    metrics.push(writing.metric(
        "leadsman_store_write_seconds",
        "Writing a profile into the local store, from its creation to its rename.",
        &[],
    ));
    metrics.push(counter(
        "leadsman_profile_windows_total",
        "Windows of which a profile was made, by what became of it.",
        &[("status", "success")],
        account.windows as f64,
    ));
    metrics.push(counter(
        "leadsman_profile_windows_total",
        "Windows of which a profile was made, by what became of it.",
        &[("status", "error")],
        account.failed_windows as f64,
    ));
    metrics.push(check("local_store_writable", !account.failing));
    for (cause, samples) in &account.dropped {
        metrics.push(dropped(EDGE, cause, *samples));
    }
    for (provider, errors) in &labels.errors {
        metrics.push(counter(
            "leadsman_labels_provider_errors_total",
            "Failures of those who know labels, by provider: the labels are absent.",
            &[("provider", provider)],
            *errors as f64,
        ));
    }
    for (provider, entries) in &labels.known {
        metrics.push(gauge(
            "leadsman_labels_known",
            "Processes, cgroups, pods and containers whose labels are known, by provider.",
            &[("provider", provider)],
            *entries as f64,
        ));
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

/// Metrics of the way to the remote store; `refused`: samples that it had no room for.
#[must_use]
pub(crate) fn remote_metrics(remote: &Remote, refused: u64) -> Vec<Metric> {
    let snapshot = remote.snapshot();
    let account = &snapshot.account;
    let mut metrics = remote.calls().metrics("shipper");
    metrics.extend([
        produced(REMOTE_EDGE, account.produced.saturating_add(refused)),
        delivered(REMOTE_EDGE, account.delivered),
        queued(REMOTE_EDGE, account.queued()),
        gauge(
            "leadsman_remote_store_up",
            "Whether the remote store took the last request.",
            &[],
            f64::from(u8::from(!snapshot.away)),
        ),
        counter(
            "leadsman_spool_recovered_samples_total",
            "Samples found in the spool at the start; they count as produced, too.",
            &[],
            account.recovered as f64,
        ),
        counter(
            "leadsman_spool_torn_total",
            "Records that a killed run left half written.",
            &[],
            snapshot.torn as f64,
        ),
        gauge(
            "leadsman_spool_samples",
            "Samples in the spool: a part of those queued.",
            &[],
            snapshot.spooled as f64,
        ),
        gauge(
            "leadsman_spool_bytes",
            "Bytes of the spool.",
            &[],
            snapshot.spool_bytes as f64,
        ),
        gauge(
            "leadsman_spool_records",
            "Records in the spool.",
            &[],
            snapshot.spool_parcels as f64,
        ),
    ]);
    for (cause, samples) in &account.dropped {
        metrics.push(dropped(REMOTE_EDGE, cause, *samples));
    }
    if refused > 0 {
        metrics.push(dropped(REMOTE_EDGE, "remote_busy", refused));
    }
    metrics
}
