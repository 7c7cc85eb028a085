//! Reads the Prometheus text of `/metrics`. Knows the format, not the names.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// One line of the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// All series of one scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    pub series: Vec<Series>,
}

impl Metrics {
    /// Parses; a line that is neither comment nor series is an error.
    pub fn parse(text: &str) -> Result<Self> {
        let mut series = Vec::new();
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            series.push(
                parse_series(line).with_context(|| format!("not a Prometheus series: {line}"))?,
            );
        }
        Ok(Self { series })
    }

    /// The sum over all series of `name` that carry all `labels`; `None` when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = None;
        for series in &self.series {
            if series.name == name
                && labels
                    .iter()
                    .all(|(key, value)| series.labels.get(*key).is_some_and(|own| own == value))
            {
                found = Some(found.unwrap_or(0.0) + series.value);
            }
        }
        found
    }

    /// As [`Metrics::sum`], where a missing series is an error that lists what is there.
    pub fn must(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        match self.sum(name, labels) {
            Some(value) => Ok(value),
            None => {
                let mut names: Vec<&str> = self
                    .series
                    .iter()
                    .map(|series| series.name.as_str())
                    .collect();
                names.dedup();
                bail!("no series {name} with {labels:?} among {names:?}")
            }
        }
    }
}

fn parse_series(line: &str) -> Result<Series> {
    let (name, rest) = match line.find(['{', ' ']) {
        Some(at) if line.as_bytes()[at] == b'{' => (&line[..at], &line[at + 1..]),
        Some(at) => {
            let value = line[at..].trim().parse()?;
            return Ok(Series {
                name: line[..at].to_owned(),
                labels: BTreeMap::new(),
                value,
            });
        }
        None => bail!("no value"),
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(value) = rest.strip_prefix('}') {
            let value = value
                .split_whitespace()
                .next()
                .context("no value")?
                .parse()?;
            return Ok(Series {
                name: name.to_owned(),
                labels,
                value,
            });
        }
        let (key, quoted) = rest.split_once("=\"").context("no label value")?;
        let (value, after) = unquoted(quoted).context("a label value without its end")?;
        labels.insert(key.trim().to_owned(), value);
        rest = after;
    }
}

/// The text up to the closing quote, escapes resolved, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_with_and_without_labels_are_read() {
        let text = "# HELP a_total x\n# TYPE a_total counter\na_total{edge=\"s\",cause=\"q\\\"}\"} 3\na_total{edge=\"t\"} 4 1700000000\nb 1.5e3\n";
        let metrics = Metrics::parse(text).expect("Prometheus text");
        assert_eq!(metrics.sum("a_total", &[]), Some(7.0));
        assert_eq!(metrics.sum("a_total", &[("cause", "q\"}")]), Some(3.0));
        assert_eq!(metrics.sum("b", &[]), Some(1500.0));
        assert_eq!(metrics.sum("c", &[]), None);
        assert!(Metrics::parse("what is this").is_err());
    }
}
