//! What a real OpenTelemetry Collector understands of what Leadsman sends: profiles through their dictionary, and traces by
//! both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::Machine;
use leadsman_tests::open_telemetry::OpenTelemetry;
use leadsman_tests::process::until;
use leadsman_tests::profile::Profile;
use leadsman_tests::up::Up;
use leadsman_tests::workloads::Workload;
use rustix::process::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
/// Nanoseconds between samples at the default rate.
const PERIOD: i64 = 1_000_000_000 / 19;

/// A number, which OTLP JSON writes as text where it has 64 bits; a missing one is 0.
fn number(of: &Value, key: &str) -> i64 {
    match of.get(key) {
        Some(Value::String(text)) => text.parse().unwrap_or(-1),
        Some(value) => value.as_i64().unwrap_or(-1),
        None => 0,
    }
}

fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of.get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The tables that a batch's profiles refer to.
struct Dictionary<'a>(&'a Value);

impl<'a> Dictionary<'a> {
    fn entry(&self, table: &str, index: i64) -> Result<&'a Value> {
        let found = usize::try_from(index).ok();
        found
            .and_then(|index| list(self.0, table).get(index))
            .with_context(|| format!("{table} has no entry {index}"))
    }

    fn text(&self, of: &Value, key: &str) -> Result<&'a str> {
        let entry = self.entry("stringTable", number(of, key))?;
        entry.as_str().context("a string")
    }

    /// Attributes by name; both forms of key and value.
    fn attributes(&self, all: impl Iterator<Item = &'a Value>) -> Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for attribute in all {
            let key = match attribute.get("key").and_then(Value::as_str) {
                Some(key) => key,
                None => self.text(attribute, "keyStrindex")?,
            };
            let value = attribute.get("value").context("a value")?;
            let value = match value.get("stringValueStrindex") {
                Some(_) => self.text(value, "stringValueStrindex")?.to_owned(),
                None => match value.get("stringValue").or_else(|| value.get("intValue")) {
                    Some(Value::String(text)) => text.clone(),
                    other => format!("{other:?}"),
                },
            };
            found.insert(key.to_owned(), value);
        }
        Ok(found)
    }

    fn referred(&self, of: &'a Value) -> Result<BTreeMap<String, String>> {
        let indices = list(of, "attributeIndices").iter();
        let entries: Result<Vec<&Value>> = indices
            .map(|index| self.entry("attributeTable", index.as_i64().unwrap_or(-1)))
            .collect();
        self.attributes(entries?.into_iter())
    }

    /// Functions of a sample's stack, the leaf first; checks that it has a location, and each a mapping and an address or
    /// a function: what has no name, as the first instruction of a program interpreter without symbols, has an address.
    fn functions(&self, sample: &Value) -> Result<Vec<&'a str>> {
        let stack = self.entry("stackTable", number(sample, "stackIndex"))?;
        let locations = list(stack, "locationIndices");
        ensure!(!locations.is_empty(), "a stack without a frame: {sample}");
        let mut functions = Vec::new();
        for index in locations {
            let location = self.entry("locationTable", index.as_i64().unwrap_or(-1))?;
            self.entry("mappingTable", number(location, "mappingIndex"))?;
            let lines = list(location, "lines");
            ensure!(
                !lines.is_empty() || number(location, "address") != 0,
                "neither named nor a place: {location}"
            );
            for line in lines {
                let function = self.entry("functionTable", number(line, "functionIndex"))?;
                functions.push(self.text(function, "nameStrindex")?);
            }
        }
        Ok(functions)
    }
}

/// What all batches say.
#[derive(Default)]
struct Seen {
    /// Samples by window, by its start.
    windows: BTreeMap<i64, i64>,
    /// Functions by the thread's name.
    functions: BTreeMap<String, BTreeSet<String>>,
    build_ids: BTreeSet<String>,
}

impl Seen {
    fn add(&mut self, batch: &Value) -> Result<()> {
        let dictionary = Dictionary(batch.get("dictionary").context("no dictionary")?);
        for table in [
            "mappingTable",
            "locationTable",
            "functionTable",
            "linkTable",
            "stackTable",
        ] {
            let first = dictionary.entry(table, 0)?;
            ensure!(
                first.as_object().is_some_and(serde_json::Map::is_empty),
                "{table} begins with {first}"
            );
        }
        ensure!(dictionary.entry("stringTable", 0)?.as_str() == Some(""));
        for mapping in list(dictionary.0, "mappingTable") {
            let attributes = dictionary.referred(mapping)?;
            self.build_ids
                .extend(attributes.get("process.executable.build_id.gnu").cloned());
        }
        for resource in list(batch, "resourceProfiles") {
            let attributes = resource
                .get("resource")
                .map(|resource| list(resource, "attributes"))
                .unwrap_or_default();
            let attributes = dictionary.attributes(attributes.iter())?;
            ensure!(
                attributes.get("host.name").map(String::as_str) == Some("otel-node"),
                "{attributes:?}"
            );
            for scope in list(resource, "scopeProfiles") {
                for profile in list(scope, "profiles") {
                    self.add_profile(&dictionary, profile)?;
                }
            }
        }
        Ok(())
    }

    fn add_profile<'a>(&mut self, dictionary: &Dictionary<'a>, profile: &'a Value) -> Result<()> {
        let kind = |key: &str| -> Result<(&str, &str)> {
            let of = profile.get(key).context(key.to_owned())?;
            let name = dictionary.text(of, "typeStrindex")?;
            Ok((name, dictionary.text(of, "unitStrindex")?))
        };
        ensure!(kind("sampleType")? == ("samples", "count"));
        ensure!(kind("periodType")? == ("cpu", "nanoseconds"));
        ensure!(number(profile, "period") == PERIOD, "{profile}");
        let start = number(profile, "timeUnixNano");
        for sample in list(profile, "samples") {
            let values = list(sample, "values").iter();
            let count: i64 = values
                .filter_map(|value| value.as_str()?.parse::<i64>().ok())
                .sum();
            ensure!(count > 0, "{sample}");
            *self.windows.entry(start).or_default() += count;
            let attributes = dictionary.referred(sample)?;
            let thread = attributes.get("thread.name").context("no thread.name")?;
            ensure!(attributes.contains_key("thread.id"), "{attributes:?}");
            let functions = dictionary.functions(sample)?;
            let known = self.functions.entry(thread.clone()).or_default();
            known.extend(functions.into_iter().map(str::to_owned));
        }
        Ok(())
    }
}

#[test]
fn profiles_are_understood_through_their_dictionary() -> Result<()> {
    let _machine = Machine::lock()?;
    let Some(collector) = OpenTelemetry::start()? else {
        return Ok(());
    };
    let _workload = Workload::start("chains-O2", &["600"])?;
    let up = Up::start_with_remote_store(
        2,
        &collector.grpc.to_string(),
        &[
            "--remote-store-protocol=otlp",
            "--remote-store-insecure",
            "--node=otel-node",
        ],
    )?;
    until("profiles arrive", SOON, || {
        Ok((collector.batches("resourceProfiles")?.len() > 4).then_some(()))
    })?;
    let (output, directory) = up.stop(Signal::TERM)?;
    ensure!(output.code() == Some(0), "{}", output.stderr);
    let mut seen = Seen::default();
    for batch in collector.batches("resourceProfiles")? {
        seen.add(&batch)?;
    }
    let functions = seen.functions.get("w-plain");
    let functions = functions.context("no thread w-plain")?;
    for function in ["w_spin", "w_plain_c"] {
        ensure!(functions.contains(function), "{functions:?}");
    }
    ensure!(!seen.build_ids.is_empty(), "no build ID");
    // Window by window what the local store has; the last may still be in the spool.
    let mut compared = 0;
    for entry in std::fs::read_dir(directory.path().join("store"))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".pb.gz") {
            let profile = Profile::read(&path)?;
            if let Some(samples) = seen.windows.remove(&profile.time_nanos) {
                let local = profile.count(|_| true);
                ensure!(samples == local, "{samples} of {local} samples arrived");
                compared += 1;
            }
        }
    }
    ensure!(compared >= 3, "{compared} windows are in both");
    ensure!(
        seen.windows.is_empty(),
        "windows that the local store does not have: {:?}",
        seen.windows
    );
    Ok(())
}

#[test]
fn traces_are_understood_by_both_ways() -> Result<()> {
    let _machine = Machine::lock()?;
    let Some(collector) = OpenTelemetry::start()? else {
        return Ok(());
    };
    for (exporter, address) in [("grpc", collector.grpc), ("http", collector.http)] {
        let before = collector.batches("resourceSpans")?.len();
        let up = Up::start(
            1,
            &[
                &format!("--otlp-exporter={exporter}"),
                &format!("--otlp-address={address}"),
            ],
        )?;
        until(&format!("a window's trace by {exporter}"), SOON, || {
            let batches = collector.batches("resourceSpans")?;
            let mut spans = batches.iter().skip(before).flat_map(spans);
            let is_window = |(service, span): (String, &Value)| {
                service == "leadsman-shipper"
                    && span.get("name").and_then(Value::as_str) == Some("window")
            };
            Ok(spans.any(is_window).then_some(()))
        })?;
        let (output, _directory) = up.stop(Signal::TERM)?;
        ensure!(output.code() == Some(0), "{}", output.stderr);
    }
    Ok(())
}

/// A batch's spans and whose they are.
fn spans(batch: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for resource in list(batch, "resourceSpans") {
        let attributes = resource
            .get("resource")
            .map(|resource| list(resource, "attributes"))
            .unwrap_or_default();
        let name = attributes
            .iter()
            .find(|attribute| attribute.get("key").and_then(Value::as_str) == Some("service.name"));
        let service = name.and_then(|name| name.pointer("/value/stringValue")?.as_str());
        let service = service.unwrap_or_default().to_owned();
        for scope in list(resource, "scopeSpans") {
            found.extend(
                list(scope, "spans")
                    .iter()
                    .map(|span| (service.clone(), span)),
            );
        }
    }
    found
}
