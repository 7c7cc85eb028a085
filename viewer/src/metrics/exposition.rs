//! Metrics as text: Prometheus' format 0.0.4, or OpenMetrics 1.0 for who asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ipc_proto::hello::Role;

use super::{Metric, Registry};

/// Label that says whose metric it is.
const PROCESS: &str = "process";

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a client gets that sends this `Accept` header: OpenMetrics when it names it (RFC 9110, 12.5.1) and takes it no
    /// less gladly than plain text.
    pub(crate) fn accepted(accept: Option<&str>) -> Self {
        let mut best = (Self::Text, 0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next() {
                Some("application/openmetrics-text") => Self::OpenMetrics,
                Some("text/plain" | "text/*" | "*/*") => Self::Text,
                _ => continue,
            };
            let weight = weight(parts);
            if weight > best.1 || (weight == best.1 && weight > 0 && format == Self::OpenMetrics) {
                best = (format, weight);
            }
        }
        best.0
    }

    /// Its media type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The parameter `q` in thousandths.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a str>) -> u32 {
    let weight = parameters.find_map(|parameter| parameter.strip_prefix("q="));
    let weight = weight.map_or(Some(1.0), |text| text.trim().parse::<f32>().ok());
    (weight.unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u32
}

/// The series of one name.
type Family<'a> = Vec<(Role, &'a Metric)>;

impl Registry {
    /// All metrics, and the viewer's `own`: each name once with its help and type, then its series.
    pub(crate) fn exposition(&self, own: &[Metric], format: Format) -> String {
        let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
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
            write_family(&mut text, name, &series, format);
        }
        if format == Format::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }
}

fn write_family(text: &mut String, name: &str, series: &Family<'_>, format: Format) {
    let Some((_, first)) = series.first() else {
        return;
    };
    let histogram = !first.buckets.is_empty();
    let kind = match (histogram, first.counter) {
        (true, _) => "histogram",
        (false, true) => "counter",
        (false, false) => "gauge",
    };
    // OpenMetrics names a counter's family without the ending of its series.
    let family = match format {
        Format::OpenMetrics if first.counter => name.strip_suffix("_total").unwrap_or(name),
        _ => name,
    };
    // Quotes need escapes in OpenMetrics' help and have none in the older format's.
    let help = escape(&first.help, format == Format::OpenMetrics);
    text.push_str(&format!("# HELP {family} {help}\n# TYPE {family} {kind}\n"));
    let mut written = BTreeSet::new();
    for (role, metric) in series {
        let labels = labels_text(*role, metric);
        let same_kind = metric.buckets.is_empty() != histogram && metric.counter == first.counter;
        // A series may occur once; of two the first stands.
        if !same_kind || !written.insert(labels.clone()) {
            continue;
        }
        if histogram {
            write_histogram(text, name, &labels, metric);
        } else {
            text.push_str(&format!("{name}{labels} {}\n", value_text(metric.value)));
        }
    }
}

fn write_histogram(text: &mut String, name: &str, labels: &str, metric: &Metric) {
    let within = labels.strip_suffix('}').unwrap_or(labels);
    let mut all = 0;
    for (bound, count) in &metric.buckets {
        let bound = bound_text(*bound);
        text.push_str(&format!("{name}_bucket{within},le=\"{bound}\"}} {count}\n"));
        all = *count;
    }
    let sum = value_text(metric.value);
    text.push_str(&format!(
        "{name}_sum{labels} {sum}\n{name}_count{labels} {all}\n"
    ));
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

/// A bucket's bound as OpenMetrics has it: `1.0`, not `1`.
fn bound_text(bound: f64) -> String {
    if bound.fract() == 0.0 && bound.is_finite() {
        format!("{bound:.1}")
    } else {
        value_text(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Registry;
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

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
            registry.exposition(&[], Format::Text),
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
            buckets: Vec::new(),
            labels: vec![
                ("a-b".into(), "quote \" and \\ and \n".into()),
                ("a_b".into(), "twice".into()),
                ("process".into(), "impostor".into()),
            ],
            value: f64::INFINITY,
        };
        registry.replace(Role::Opener, vec![metric.clone(), metric], Duration::ZERO);
        assert_eq!(
            registry.exposition(&[], Format::Text),
            "# HELP unnamed9_bad_name_total two\\nlines \\\\\n\
             # TYPE unnamed9_bad_name_total counter\n\
             unnamed9_bad_name_total{process=\"opener\",a_b=\"quote \\\" and \\\\ and \\n\"} +Inf\n"
        );
    }

    #[test]
    fn a_histogram_is_written_with_its_buckets() {
        let mut registry = Registry::default();
        let histogram = Metric {
            buckets: vec![(0.5, 1), (1.0, 1), (f64::INFINITY, 4)],
            ..Metric::gauge("leadsman_write_seconds", "Writing \"it\".", 7.5)
        };
        registry.replace(Role::Shipper, vec![histogram], Duration::ZERO);
        let series = "leadsman_write_seconds_bucket{process=\"shipper\",le=\"0.5\"} 1\n\
             leadsman_write_seconds_bucket{process=\"shipper\",le=\"1.0\"} 1\n\
             leadsman_write_seconds_bucket{process=\"shipper\",le=\"+Inf\"} 4\n\
             leadsman_write_seconds_sum{process=\"shipper\"} 7.5\n\
             leadsman_write_seconds_count{process=\"shipper\"} 4\n";
        assert_eq!(
            registry.exposition(&[], Format::Text),
            format!(
                "# HELP leadsman_write_seconds Writing \"it\".\n# TYPE leadsman_write_seconds histogram\n{series}"
            )
        );
        assert_eq!(
            registry.exposition(&[], Format::OpenMetrics),
            format!(
                "# HELP leadsman_write_seconds Writing \\\"it\\\".\n# TYPE leadsman_write_seconds histogram\n{series}# EOF\n"
            )
        );
    }

    #[test]
    fn openmetrics_names_a_counters_family_without_its_ending() {
        let mut registry = Registry::default();
        registry.replace(
            Role::Sampler,
            vec![Metric::counter("leadsman_x_total", "X.", 2)],
            Duration::ZERO,
        );
        assert_eq!(
            registry.exposition(&[], Format::OpenMetrics),
            "# HELP leadsman_x X.\n# TYPE leadsman_x counter\nleadsman_x_total{process=\"sampler\"} 2\n# EOF\n"
        );
    }

    #[test]
    fn the_format_is_the_clients_choice() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some(prometheus), Format::OpenMetrics),
            (
                Some("text/plain, application/openmetrics-text;q=0.3"),
                Format::Text,
            ),
            (Some("application/openmetrics-text;q=0"), Format::Text),
            (
                Some("application/openmetrics-text; q=nonsense"),
                Format::Text,
            ),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }

    proptest! {
        #[test]
        fn every_line_is_a_comment_or_a_series(
            name in any::<String>(), help in any::<String>(), label in any::<String>(), value in any::<String>(), number in any::<f64>(),
        ) {
            let mut registry = Registry::default();
            let metric = Metric { name, help, counter: false, labels: vec![(label, value)], value: number, buckets: Vec::new() };
            registry.replace(Role::Sampler, vec![metric], Duration::ZERO);
            let text = registry.exposition(&[], Format::Text);
            let lines: Vec<&str> = text.split_terminator('\n').collect();
            prop_assert_eq!(lines.len(), 3, "{}", text);
            prop_assert!(lines[0].starts_with("# HELP ") && lines[1].starts_with("# TYPE "));
            let (series, number) = lines[2].rsplit_once(' ').unwrap();
            prop_assert!(series.ends_with(r#""}"#), "{}", series);
            prop_assert!(number.trim_start_matches('+').parse::<f64>().is_ok());
        }
    }
}
