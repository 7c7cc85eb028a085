//! What every process says about itself: taken in as metrics, given out in Prometheus' text format. Owns no name of its own;
//! what others send is data: names are made valid, text is escaped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use ipc_proto::hello::Role;

/// Label that says whose metric it is.
const PROCESS: &str = "process";

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
    /// The value.
    pub(crate) value: f64,
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

    /// All metrics, and the viewer's `own`, in Prometheus' text format 0.0.4: each name once with its help and type, then
    /// its series.
    pub(crate) fn exposition(&self, own: &[Metric]) -> String {
        let mut families: BTreeMap<&str, Vec<(Role, &Metric)>> = BTreeMap::new();
        let reported = self
            .reports()
            .flat_map(|(role, report)| report.metrics.iter().map(move |metric| (role, metric)));
        let own = own.iter().map(|metric| (Role::Viewer, metric));
        for (role, metric) in own.chain(reported) {
            families
                .entry(&metric.name)
                .or_default()
                .push((role, metric));
        }
        let mut text = String::new();
        for (name, series) in families {
            let Some((_, first)) = series.first() else {
                continue;
            };
            let kind = if first.counter { "counter" } else { "gauge" };
            text.push_str(&format!(
                "# HELP {name} {}\n# TYPE {name} {kind}\n",
                escape(&first.help, false)
            ));
            let mut written = BTreeSet::new();
            for (role, metric) in &series {
                let labels = labels_text(*role, metric);
                // A series may occur once; of two the first stands.
                if written.insert(labels.clone()) {
                    text.push_str(&format!("{name}{labels} {}\n", value_text(metric.value)));
                }
            }
        }
        text
    }
}

fn labels_text(role: Role, metric: &Metric) -> String {
    let mut text = String::from("{");
    let mut names = BTreeSet::new();
    let own = std::iter::once((PROCESS, role.name()));
    let theirs = metric
        .labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.chain(theirs) {
        if names.insert(name) {
            let comma = if names.len() > 1 { "," } else { "" };
            // Writing to a String can't fail.
            let _ = write!(text, "{comma}{name}=\"{}\"", escape(value, true));
        }
    }
    text.push('}');
    text
}

/// Escapes help text or, with quotes, a label's value.
fn escape(text: &str, quotes: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if quotes => escaped.push_str("\\\""),
            character => escaped.push(character),
        }
    }
    escaped
}

fn value_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.into()
    } else {
        value.to_string()
    }
}

/// Makes names follow the data model's grammar and a counter end in `_total`.
fn made_valid(mut metric: Metric) -> Metric {
    metric.name = valid_name(&metric.name);
    if metric.counter && !metric.name.ends_with("_total") {
        metric.name.push_str("_total");
    }
    for (name, _) in &mut metric.labels {
        *name = valid_name(name);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_name_is_described_once() {
        let mut registry = Registry::default();
        let dropped = |cause: &str, value| {
            Metric::counter("leadsman_dropped_total", "Samples dropped.", value)
                .with("cause", cause)
        };
        registry.replace(
            Role::Sampler,
            vec![dropped("ring_full", 3), dropped("queue", 0)],
            Duration::ZERO,
        );
        registry.replace(Role::Shipper, vec![dropped("disk", 1)], Duration::ZERO);
        registry.replace(
            Role::Viewer,
            vec![Metric::gauge("leadsman_windows", "Windows.", 2.5)],
            Duration::ZERO,
        );
        assert_eq!(
            registry.exposition(&[]),
            "# HELP leadsman_dropped_total Samples dropped.\n\
             # TYPE leadsman_dropped_total counter\n\
             leadsman_dropped_total{process=\"sampler\",cause=\"ring_full\"} 3\n\
             leadsman_dropped_total{process=\"sampler\",cause=\"queue\"} 0\n\
             leadsman_dropped_total{process=\"shipper\",cause=\"disk\"} 1\n\
             # HELP leadsman_windows Windows.\n\
             # TYPE leadsman_windows gauge\n\
             leadsman_windows{process=\"viewer\"} 2.5\n"
        );
    }

    #[test]
    fn foreign_text_is_made_valid() {
        let mut registry = Registry::default();
        let metric = Metric {
            name: "9 bad\nname".into(),
            help: "two\nlines \\".into(),
            counter: true,
            labels: vec![
                ("a-b".into(), "quote \" and \\ and \n".into()),
                ("a_b".into(), "twice".into()),
                ("process".into(), "impostor".into()),
            ],
            value: f64::INFINITY,
        };
        registry.replace(Role::Opener, vec![metric.clone(), metric], Duration::ZERO);
        assert_eq!(
            registry.exposition(&[]),
            "# HELP unnamed9_bad_name_total two\\nlines \\\\\n\
             # TYPE unnamed9_bad_name_total counter\n\
             unnamed9_bad_name_total{process=\"opener\",a_b=\"quote \\\" and \\\\ and \\n\"} +Inf\n"
        );
    }

    proptest! {
        #[test]
        fn every_line_is_a_comment_or_a_series(
            name in any::<String>(), help in any::<String>(), label in any::<String>(), value in any::<String>(), number in any::<f64>(),
        ) {
            let mut registry = Registry::default();
            let metric = Metric { name, help, counter: false, labels: vec![(label, value)], value: number };
            registry.replace(Role::Sampler, vec![metric], Duration::ZERO);
            let text = registry.exposition(&[]);
            let lines: Vec<&str> = text.split_terminator('\n').collect();
            prop_assert_eq!(lines.len(), 3, "{}", text);
            prop_assert!(lines[0].starts_with("# HELP ") && lines[1].starts_with("# TYPE "));
            let (series, number) = lines[2].rsplit_once(' ').unwrap();
            prop_assert!(series.ends_with(r#""}"#), "{}", series);
            prop_assert!(number.trim_start_matches('+').parse::<f64>().is_ok());
        }
    }
}
