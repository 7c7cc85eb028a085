//! What the viewer counts about itself.

use std::collections::BTreeMap;

use crate::http::Status;
use crate::metrics::Metric;

/// The viewer's own counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    responses: BTreeMap<&'static str, u64>,
    /// Requests under a host name that isn't served.
    pub(crate) refused_hosts: u64,
    /// Windows that couldn't be read or weren't pprof.
    pub(crate) unreadable_windows: u64,
    /// Connections accepted.
    pub(crate) connections: u64,
    /// Connections closed unanswered because there were too many.
    pub(crate) refused_connections: u64,
    /// Connections closed because the client was too slow.
    pub(crate) slow_connections: u64,
    /// Listings of the store that failed.
    pub(crate) store_errors: u64,
    /// Statistics links closed because the other side broke the protocol.
    pub(crate) link_violations: u64,
}

impl Counters {
    /// Counts a response.
    pub(crate) fn on_response(&mut self, status: Status) {
        *self.responses.entry(status.code()).or_default() += 1;
    }

    /// The counters as metrics, with some gauges (name, help, value).
    pub(crate) fn metrics(&self, gauges: &[(&str, &str, f64)]) -> Vec<Metric> {
        let counters = [
            (
                "leadsman_viewer_refused_hosts_total",
                "Requests under a host name that is not served.",
                self.refused_hosts,
            ),
            (
                "leadsman_viewer_unreadable_windows_total",
                "Windows in the store that could not be read.",
                self.unreadable_windows,
            ),
            (
                "leadsman_viewer_connections_total",
                "HTTP connections accepted.",
                self.connections,
            ),
            (
                "leadsman_viewer_refused_connections_total",
                "HTTP connections closed because there were too many.",
                self.refused_connections,
            ),
            (
                "leadsman_viewer_slow_connections_total",
                "HTTP connections closed because the client was too slow.",
                self.slow_connections,
            ),
            (
                "leadsman_viewer_store_errors_total",
                "Listings of the local store that failed.",
                self.store_errors,
            ),
            (
                "leadsman_link_violations_total",
                "Links closed because the other side broke the protocol.",
                self.link_violations,
            ),
        ];
        let responses = self.responses.iter().map(|(code, count)| {
            Metric::counter(
                "leadsman_viewer_responses_total",
                "HTTP responses by status code.",
                *count,
            )
            .with("code", code)
        });
        let build = Metric::gauge(
            "leadsman_build_info",
            "The version that runs; always 1.",
            1.0,
        )
        .with("version", env!("CARGO_PKG_VERSION"));
        gauges
            .iter()
            .map(|(name, help, value)| Metric::gauge(name, help, *value))
            .chain(
                counters
                    .into_iter()
                    .map(|(name, help, value)| Metric::counter(name, help, value)),
            )
            .chain(responses)
            .chain([build])
            .collect()
    }
}
