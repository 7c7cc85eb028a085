//! `leadsman status`: asks a running Leadsman's page how it does.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::cli::Status;
use crate::error::Failure;
use crate::http::get;

/// Prints a short summary; exit code 1 unless it is ready.
///
/// # Errors
/// Nobody answers.
pub(crate) fn run(options: &Status) -> Result<ExitCode, Failure> {
    let address = options.http_address;
    let failed = |error: std::io::Error| {
        Failure::failed(format!(
            "no Leadsman answers at {address}: {error}: start it by `sudo leadsman up`, or name its --http-address"
        ))
    };
    let ready = get(address, "/ready").map_err(failed)?;
    let metrics = get(address, "/metrics").map_err(failed)?;
    let is_ready = ready.status == 200;
    println!("page      http://{address}");
    if is_ready {
        println!("state     ready: samples flow end to end");
    } else {
        println!("state     not ready: {}", ready.body.trim());
    }
    let series = parse(&metrics.body);
    print!("{}", summary(&series));
    Ok(if is_ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A metric's name, labels and value (Prometheus text format).
#[derive(Debug, PartialEq)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

fn parse(text: &str) -> Vec<Series> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Series> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    // Values of these metrics' labels are our own words: no escaped quotes, no commas.
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
        let (name, value) = label.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    });
    Some(Series {
        name: name.to_owned(),
        labels: labels.collect(),
        value: value.parse().ok()?,
    })
}

fn summary(series: &[Series]) -> String {
    let of = |name: &'static str| series.iter().filter(move |series| series.name == name);
    let label = |series: &Series, name: &str| series.labels.get(name).cloned().unwrap_or_default();
    let mut text = String::new();
    let sum = |name, edge: &str| -> f64 {
        of(name)
            .filter(|series| label(series, "edge") == edge)
            .map(|series| series.value)
            .sum()
    };
    text += &format!(
        "samples   {:.0} taken, {:.0} stored\n",
        sum("leadsman_edge_produced_samples_total", "kernel"),
        sum("leadsman_edge_delivered_samples_total", "store"),
    );
    for series in of("leadsman_edge_dropped_samples_total").filter(|series| series.value > 0.0) {
        text += &format!(
            "dropped   {:.0} at {}: {}\n",
            series.value,
            label(series, "edge"),
            label(series, "cause")
        );
    }
    let total = |name| of(name).map(|series| series.value).sum::<f64>();
    text += &format!(
        "cost      {:.2} s of CPU since the start, {:.1} MB of memory (PSS)\n",
        total("leadsman_process_cpu_seconds_total"),
        total("leadsman_process_pss_bytes") / 1e6
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_up() {
        let series = parse(
            "# HELP leadsman_x X.\n\
             leadsman_edge_produced_samples_total{edge=\"kernel\"} 120\n\
             leadsman_edge_delivered_samples_total{edge=\"store\"} 100\n\
             leadsman_edge_dropped_samples_total{edge=\"ring\",cause=\"full\"} 7\n\
             leadsman_edge_dropped_samples_total{edge=\"ring\",cause=\"never\"} 0\n\
             leadsman_process_cpu_seconds_total{process=\"a\"} 1.25\n\
             leadsman_process_cpu_seconds_total{process=\"b\"} 0.25\n",
        );
        assert_eq!(series.len(), 6);
        let text = summary(&series);
        for part in ["120 taken, 100 stored", "7 at ring: full", "1.50 s of CPU"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("never"));
    }
}
