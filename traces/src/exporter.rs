//! The way out of the process: OTLP by gRPC or HTTP, or lines on standard output.

use std::time::Duration;

use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};

use crate::lines;
use crate::settings::Way;

/// A batch may take so long.
const LIMIT: Duration = Duration::from_secs(10);

/// One of the ways.
#[derive(Debug)]
pub(crate) enum Exporter {
    /// To a collector.
    Otlp(Box<SpanExporter>),
    /// To standard output.
    Lines(Box<ResourceAttributesWithSchema>),
}

impl Exporter {
    /// The one for `way`; `None` where that is off. Connects with the first batch. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The collector's address makes no URI.
    pub(crate) fn new(way: &Way, resource: &Resource) -> Result<Option<Self>, ExporterBuildError> {
        let builder = SpanExporter::builder();
        let mut exporter = match way {
            Way::Off => return Ok(None),
            Way::Stdout => return Ok(Some(Self::Lines(Box::new(resource.into())))),
            Way::Grpc(address) => {
                let builder = builder
                    .with_tonic()
                    .with_endpoint(format!("http://{address}"));
                builder.with_timeout(LIMIT).build()?
            }
            Way::Http(address) => {
                let endpoint = format!("http://{address}/v1/traces");
                let builder = builder.with_http().with_endpoint(endpoint);
                builder.with_timeout(LIMIT).build()?
            }
        };
        exporter.set_resource(resource);
        Ok(Some(Self::Otlp(Box::new(exporter))))
    }

    /// Sends a batch, once.
    ///
    /// # Errors
    /// One line on why it did not arrive.
    pub(crate) async fn export(&self, spans: Vec<SpanData>) -> Result<(), String> {
        match self {
            Self::Otlp(exporter) => {
                let sent = exporter.export(spans).await;
                sent.map_err(|error| error.to_string())
            }
            Self::Lines(resource) => {
                lines::write(spans, resource).map_err(|error| error.to_string())
            }
        }
    }
}
