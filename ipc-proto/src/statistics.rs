//! Every process to the viewer: its counters and gauges, every few seconds.

use crate::codec::{Bytes, List};
use crate::limits::{MAX_BUCKETS, MAX_LABELS, MAX_METRIC_TEXT, MAX_METRICS};
use crate::{messages, wire_struct};

messages! {
    /// What a process says about itself.
    pub enum StatisticsMessage {
        /// Replaces the process's last one.
        Statistics(Statistics) = 1,
    }
}

wire_struct! {
    /// All metrics of one process.
    pub struct Statistics {
        /// The metrics.
        pub metrics: List<Metric, MAX_METRICS>,
        /// Whether the process ends with it.
        pub last: bool,
    }
}

wire_struct! {
    /// One time series.
    pub struct Metric {
        /// Name as exposed (`leadsman_...`); counters end in `_total`.
        pub name: Bytes<MAX_METRIC_TEXT>,
        /// One line of help.
        pub help: Bytes<MAX_METRIC_TEXT>,
        /// Whether it only grows.
        pub counter: bool,
        /// Label names and values.
        pub labels: List<Label, MAX_LABELS>,
        /// The value; a histogram's sum.
        pub value: f64,
        /// A histogram's buckets, each with what the ones before it hold too; none: it is no histogram.
        pub buckets: List<Bucket, MAX_BUCKETS>,
    }
}

wire_struct! {
    /// A bucket of a histogram.
    pub struct Bucket {
        /// Most that falls into it; the last one's is infinite.
        pub bound: f64,
        /// Observations up to the bound.
        pub count: u64,
    }
}

wire_struct! {
    /// A label.
    pub struct Label {
        /// Its name.
        pub name: Bytes<MAX_METRIC_TEXT>,
        /// Its value.
        pub value: Bytes<MAX_METRIC_TEXT>,
    }
}
