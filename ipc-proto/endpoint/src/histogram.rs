//! How long something took, as a histogram: the same buckets everywhere, so that dashboards can compare.

use std::time::Duration;

use ipc_proto::codec::List;
use ipc_proto::limits::MAX_BUCKETS;
use ipc_proto::statistics::{Bucket, Metric};

use crate::statistics;

/// Upper bounds of the buckets, seconds; one without a bound follows.
const BOUNDS: [f64; 11] = [
    0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0,
];
const _: () = assert!(BOUNDS.len() < MAX_BUCKETS);

/// Durations seen since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    sum: f64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += seconds;
    }

    /// As a metric; its name ends in `_seconds`.
    #[must_use]
    pub fn metric(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Metric {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let mut total = 0u64;
        let buckets = bounds.zip(self.counts).map(|(bound, count)| {
            total = total.saturating_add(count);
            Bucket {
                bound,
                count: total,
            }
        });
        Metric {
            buckets: List(buckets.collect()),
            ..statistics::gauge(name, help, labels, self.sum)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_holds_the_smaller_ones_too() {
        let mut histogram = Histogram::default();
        for millis in [0, 1, 2, 5_000, 600_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let metric = histogram.metric("x_seconds", "Help.", &[]);
        let up_to = |bound: f64| {
            let buckets = &metric.buckets.0;
            buckets
                .iter()
                .find(|bucket| bucket.bound == bound)
                .map(|bucket| bucket.count)
        };
        assert_eq!(up_to(0.001), Some(2));
        assert_eq!(up_to(0.0025), Some(3));
        assert_eq!(up_to(10.0), Some(4));
        assert_eq!(up_to(f64::INFINITY), Some(5));
        assert!((metric.value - 605.003).abs() < 1e-9);
    }
}
