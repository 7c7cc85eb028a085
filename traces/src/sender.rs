//! The thread that sends spans, in batches. A collector that is away costs its spans, counted, and nothing else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use ipc_proto::hello::Role;
use ipc_proto::statistics::Metric;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData};
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use crate::exporter::Exporter;
use crate::queue::{Counts, queue};
use crate::settings::{Settings, Way};

/// Spans of one batch.
const MAX_BATCH: usize = 512;
/// A batch is gathered for so long.
const GATHER: Duration = Duration::from_secs(1);
/// What is left at the end may take so long.
const LAST: Duration = Duration::from_secs(1);

/// Why there can be no traces.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The flags.
    #[error("{0}")]
    Settings(String),
    /// What runs the sending.
    #[error("cannot send traces: {0}")]
    Runtime(#[from] io::Error),
    /// The exporter.
    #[error("cannot send traces: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// Traces before their thread: made before the lockdown, which the thread is to inherit.
#[derive(Debug)]
pub struct Prepared {
    process: &'static str,
    way: Way,
    runtime: Runtime,
    exporter: Exporter,
    spans: Receiver<SpanData>,
    counts: Arc<Counts>,
}

/// From now on this process's spans are kept for sending; `None`: nobody asked for traces.
///
/// # Errors
/// [`SetupError`].
pub fn prepare(settings: &Settings, role: Role) -> Result<Option<Prepared>, SetupError> {
    let way = settings.way().map_err(SetupError::Settings)?;
    if way == Way::Off {
        return Ok(None);
    }
    let process = role.name();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(1)
        .build()?;
    let resource = resource(process);
    let exporter = {
        let _inside = runtime.enter();
        Exporter::new(&way, &resource)?
    };
    let Some(exporter) = exporter else {
        return Ok(None);
    };
    let counts = Arc::new(Counts::default());
    let (queue, spans) = queue(Arc::clone(&counts));
    let provider = SdkTracerProvider::builder()
        .with_span_processor(queue)
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(resource)
        .build();
    global::set_tracer_provider(provider);
    global::set_text_map_propagator(TraceContextPropagator::new());
    Ok(Some(Prepared {
        process,
        way,
        runtime,
        exporter,
        spans,
        counts,
    }))
}

/// Who made the spans, by OpenTelemetry's semantic conventions.
fn resource(process: &str) -> Resource {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    Resource::builder_empty()
        .with_service_name(format!("leadsman-{process}"))
        .with_attributes([
            KeyValue::new("service.namespace", "leadsman"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("host.name", host),
            KeyValue::new("process.pid", i64::from(std::process::id())),
        ])
        .build()
}

impl Prepared {
    /// Starts the thread: call after the lockdown.
    ///
    /// # Errors
    /// No thread.
    pub fn start(self) -> io::Result<Traces> {
        let (end, ended) = oneshot::channel();
        let (process, counts) = (self.process, Arc::clone(&self.counts));
        let thread = std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || {
                let sender = Sender {
                    way: self.way,
                    exporter: self.exporter,
                    counts: self.counts,
                    away: false,
                };
                self.runtime.block_on(sender.run(self.spans, ended));
                // A name that is being looked up is not waited for.
                self.runtime.shutdown_background();
            })?;
        Ok(Traces {
            process,
            counts,
            end: Some(end),
            thread: Some(thread),
        })
    }
}

/// The running thread. Dropped, it sends what waits and ends.
#[derive(Debug)]
pub struct Traces {
    process: &'static str,
    counts: Arc<Counts>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Traces {
    /// What became of the spans.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        self.counts.metrics(self.process)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // A panic aborts the process: there is no other failure.
            let _ = thread.join();
        }
    }
}

struct Sender {
    way: Way,
    exporter: Exporter,
    counts: Arc<Counts>,
    /// Whether the last batch did not arrive.
    away: bool,
}

impl Sender {
    async fn run(mut self, mut spans: Receiver<SpanData>, mut ended: oneshot::Receiver<()>) {
        let mut ends = false;
        while !ends {
            let mut batch = Vec::new();
            tokio::select! {
                _count = spans.recv_many(&mut batch, MAX_BATCH) => {}
                _dropped = &mut ended => ends = true,
            }
            if !ends {
                tokio::select! {
                    () = tokio::time::sleep(GATHER) => {}
                    _dropped = &mut ended => ends = true,
                }
            }
            if ends {
                self.send_rest(batch, &mut spans).await;
                return;
            }
            fill(&mut batch, &mut spans);
            self.send(batch).await;
        }
    }

    async fn send_rest(&mut self, mut batch: Vec<SpanData>, spans: &mut Receiver<SpanData>) {
        let all = async {
            loop {
                fill(&mut batch, spans);
                if batch.is_empty() {
                    return;
                }
                self.send(std::mem::take(&mut batch)).await;
            }
        };
        // Nobody waits longer for a collector that does not answer.
        let _late = tokio::time::timeout(LAST, all).await;
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                self.counts.exported.fetch_add(count, Ordering::Relaxed);
                if std::mem::take(&mut self.away) {
                    log::info!("traces are sent to {} again", self.way);
                }
            }
            Err(error) => {
                self.counts.refused.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut self.away, true) {
                    log::warn!(
                        "cannot send traces to {}: {error}; they are dropped and counted until it works again",
                        self.way
                    );
                }
            }
        }
    }
}

fn fill(batch: &mut Vec<SpanData>, spans: &mut Receiver<SpanData>) {
    while batch.len() < MAX_BATCH
        && let Ok(span) = spans.try_recv()
    {
        batch.push(span);
    }
}
