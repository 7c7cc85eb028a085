//! What every process says about itself: taken in as metrics, given out as text. Owns no name of its own; what others send
//! is data: names are made valid, text is escaped.

pub(crate) mod aliases;
mod exposition;

use std::collections::BTreeMap;
use std::time::Duration;

use ipc_proto::hello::Role;

pub(crate) use exposition::Format;

/// One time series' present value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metric {
    /// Name as exposed; a counter's ends in `_total`.
    pub(crate) name: String,
    /// One line of help.
    pub(crate) help: String,
    /// Whether it only grows while its process lives.
    pub(crate) counter: bool,
    /// Label names and values.
    pub(crate) labels: Vec<(String, String)>,
    /// The value; a histogram's sum.
    pub(crate) value: f64,
    /// A histogram's bounds, each with the number of observations up to it; none: it is no histogram.
    pub(crate) buckets: Vec<(f64, u64)>,
}

impl Metric {
    /// A gauge without labels.
    pub(crate) fn gauge(name: &str, help: &str, value: f64) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            counter: false,
            labels: Vec::new(),
            value,
            buckets: Vec::new(),
        }
    }

    /// A counter without labels.
    pub(crate) fn counter(name: &str, help: &str, value: u64) -> Self {
        Self {
            counter: true,
            ..Self::gauge(name, help, value as f64)
        }
    }

    /// The same with one more label.
    pub(crate) fn with(mut self, label: &str, value: &str) -> Self {
        self.labels.push((label.into(), value.into()));
        self
    }

    /// The value of a label.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(label, _)| label == name)
            .map(|(_, value)| value.as_str())
    }
}

/// The last report of each process.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    reports: BTreeMap<Role, Report>,
}

/// What a process last said.
#[derive(Debug)]
pub(crate) struct Report {
    /// When it came.
    pub(crate) received: Duration,
    /// What it said.
    pub(crate) metrics: Vec<Metric>,
}

impl Registry {
    /// Replaces a process's report.
    pub(crate) fn replace(&mut self, role: Role, metrics: Vec<Metric>, now: Duration) {
        let metrics = metrics.into_iter().map(made_valid).collect();
        self.reports.insert(
            role,
            Report {
                received: now,
                metrics,
            },
        );
    }

    /// The processes' last reports.
    pub(crate) fn reports(&self) -> impl Iterator<Item = (Role, &Report)> {
        self.reports.iter().map(|(role, report)| (*role, report))
    }

    /// A process's last report.
    pub(crate) fn report(&self, role: Role) -> Option<&Report> {
        self.reports.get(&role)
    }
}

/// Makes names follow the data model's grammar and a counter end in `_total`.
fn made_valid(mut metric: Metric) -> Metric {
    metric.name = valid_name(&metric.name);
    if !metric.buckets.is_empty() {
        metric.counter = false;
        // The last bucket holds all, whatever was said.
        metric.buckets.retain(|(bound, _)| !bound.is_nan());
        metric.buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        metric.buckets.dedup_by(|(a, _), (b, _)| a == b);
        let mut most = 0;
        for (_, count) in &mut metric.buckets {
            most = most.max(*count);
            *count = most;
        }
        if metric
            .buckets
            .last()
            .is_none_or(|(bound, _)| *bound != f64::INFINITY)
        {
            metric.buckets.push((f64::INFINITY, most));
        }
    }
    if metric.counter && !metric.name.ends_with("_total") {
        metric.name.push_str("_total");
    }
    for (name, _) in &mut metric.labels {
        *name = valid_name(name);
        // A histogram's own label.
        if name == "le" {
            name.push('_');
        }
    }
    if metric.help.is_empty() {
        metric.help = "No help was sent.".into();
    }
    metric
}

/// `[a-zA-Z_][a-zA-Z0-9_]*` and no leading `__`, which is reserved.
fn valid_name(name: &str) -> String {
    let valid: String = name
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() {
                character
            } else {
                '_'
            }
        })
        .collect();
    match valid.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => valid,
        _ => format!("unnamed{valid}"),
    }
}
