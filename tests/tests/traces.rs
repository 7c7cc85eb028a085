//! Traces of Leadsman's own work: what a collector is sent by each way, whose context the store is told, and what a collector
//! that is away costs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::Machine;
use leadsman_tests::collector::{Collector, Received, spans};
use leadsman_tests::parca::stand_in::{Options, StandIn};
use leadsman_tests::process::until;
use leadsman_tests::up::Up;
use leadsman_tests::workloads::Workload;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(30);
/// `SPAN_KIND_CLIENT` (opentelemetry/proto/trace/v1/trace.proto).
const CLIENT: i32 = 3;
const WRITE: &str = "parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw";
const UPLOAD: &str = "parca.debuginfo.v1alpha1.DebuginfoService/Upload";

fn named<'a>(spans: &'a [Received], name: &str) -> Vec<&'a Received> {
    spans.iter().filter(|one| one.span.name == name).collect()
}

fn children<'a>(spans: &'a [Received], parent: &Received) -> Vec<&'a str> {
    let is_child = |one: &&Received| {
        one.span.trace_id == parent.span.trace_id && one.span.parent_span_id == parent.span.span_id
    };
    let names = spans
        .iter()
        .filter(is_child)
        .map(|one| one.span.name.as_str());
    names.collect()
}

#[test]
fn windows_writes_and_uploads_are_traced_into_the_store() -> Result<()> {
    let _machine = Machine::lock()?;
    let (collector, store) = (Collector::start()?, StandIn::start(Options::default())?);
    let _workload = Workload::start("chains-O2", &["600"])?;
    let up = Up::start_with_remote_store(
        2,
        &store.address.to_string(),
        &[
            "--remote-store-insecure",
            "--otlp-address",
            &collector.grpc.to_string(),
        ],
    )?;
    until("writes and uploads are traced", SOON, || {
        let spans = collector.spans();
        Ok((named(&spans, WRITE).len() > 2 && named(&spans, UPLOAD).len() > 1).then_some(()))
    })?;
    let metrics = up.metrics()?;
    for process in ["shipper", "debuginfo-uploader"] {
        let labels = [("process", process), ("result", "exported")];
        let exported = metrics.must("leadsman_traces_spans_total", &labels)?;
        ensure!(exported > 0.0, "{process} counts no span");
    }
    let (output, _directory) = up.stop(Signal::TERM)?;
    ensure!(output.code() == Some(0), "{}", output.stderr);
    let spans = collector.spans();

    let window = named(&spans, "window");
    let window = window.first().context("no window is traced")?;
    ensure!(window.service == "leadsman-shipper", "{}", window.service);
    ensure!(
        window.span.parent_span_id.is_empty(),
        "a window has a parent"
    );
    let samples = window.attribute("leadsman.samples").unwrap_or_default();
    ensure!(samples.parse::<u64>()? > 0, "a window of {samples} samples");
    let parts = children(&spans, window);
    for part in ["sample", "symbolize", "labels", "profile", "store"] {
        ensure!(parts.contains(&part), "a window's trace is {parts:?}");
    }
    let took = window.span.end_time_unix_nano - window.span.start_time_unix_nano;
    ensure!(took > 2_000_000_000, "a window of 2 s took {took} ns");

    for (call, parent, service) in [
        (WRITE, "write", "leadsman-shipper"),
        (UPLOAD, "upload", "leadsman-debuginfo-uploader"),
    ] {
        let calls = named(&spans, call);
        let call = calls.first().context(call)?;
        ensure!(
            call.service == service && call.span.kind == CLIENT,
            "{call:?}"
        );
        ensure!(
            call.attribute("rpc.grpc.status_code").as_deref() == Some("0"),
            "{call:?}"
        );
        let of = named(&spans, parent);
        let of = of
            .iter()
            .find(|one| one.span.span_id == call.span.parent_span_id);
        ensure!(of.is_some(), "{call:?} is no part of {parent}");
    }
    let write = named(&spans, "write");
    let linked = write.iter().flat_map(|write| &write.span.links);
    let mut linked = linked.map(|link| &link.span_id);
    ensure!(
        linked.any(|id| *id == window.span.span_id),
        "nothing links to the first window"
    );

    // What the store was told last is a span that the collector was told of.
    let told = store
        .gate()
        .last_header("traceparent")
        .context("no traceparent")?;
    ensure!(
        spans
            .iter()
            .any(|one| one.traceparent() == told && one.span.kind == CLIENT),
        "{told} is no call's"
    );
    Ok(())
}

#[test]
fn http_and_standard_output_are_ways_too() -> Result<()> {
    let _machine = Machine::lock()?;
    let collector = Collector::start()?;
    let address = format!("http://{}", collector.http);
    let up = Up::start(1, &["--otlp-exporter=http", "--otlp-address", &address])?;
    until("a window is traced by HTTP", SOON, || {
        Ok((!named(&collector.spans(), "window").is_empty()).then_some(()))
    })?;
    let (output, _directory) = up.stop(Signal::TERM)?;
    ensure!(output.code() == Some(0), "{}", output.stderr);
    ensure!(
        !output.stderr.contains("cannot send traces"),
        "{}",
        output.stderr
    );

    let up = Up::start(1, &["--otlp-exporter=stdout"])?;
    until("a window is stored", SOON, || {
        Ok((!up.stored()?.is_empty()).then_some(()))
    })?;
    let (output, _directory) = up.stop(Signal::TERM)?;
    let mut printed = Vec::new();
    // The front command says there, too, what it started.
    let text = output.text();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let data: TracesData = serde_json::from_str(line).with_context(|| line.to_owned())?;
        printed.extend(spans(data.resource_spans));
    }
    ensure!(!named(&printed, "window").is_empty(), "{}", output.text());
    Ok(())
}

#[test]
fn a_collector_or_store_that_is_away_is_seen_and_costs_nothing_else() -> Result<()> {
    let _machine = Machine::lock()?;
    let collector = Collector::start()?;
    let (traced, nobody) = (collector.grpc.to_string(), "127.0.0.1:9");
    let up = Up::start(1, &["--otlp-address", nobody])?;
    until("refused spans are counted", SOON, || {
        let labels = [("process", "shipper"), ("result", "refused")];
        let refused = up.metrics()?.sum("leadsman_traces_spans_total", &labels);
        Ok((refused.unwrap_or(0.0) > 8.0).then_some(()))
    })?;
    let (output, _directory) = up.stop(Signal::TERM)?;
    ensure!(output.code() == Some(0), "{}", output.stderr);
    let warnings = output.stderr.matches("cannot send traces").count();
    ensure!(warnings == 1, "{warnings} warnings: {}", output.stderr);

    let arguments = ["--remote-store-insecure", "--otlp-address", &traced];
    let up = Up::start_with_remote_store(1, nobody, &arguments)?;
    until("a failed write is traced", SOON, || {
        let spans = collector.spans();
        let failed = |one: &&Received| {
            let status = one.span.status.as_ref();
            status.is_some_and(|status| status.code() == StatusCode::Error)
        };
        Ok(named(&spans, "write")
            .into_iter()
            .any(|one| failed(&one))
            .then_some(()))
    })?;
    up.stop(Signal::TERM)?;
    Ok(())
}
