//! Spans as OTLP JSON on standard output, as OpenTelemetry's file exporter writes and its collector reads them: one object a
//! line. One span an object: a line shorter than a pipe's atomic write (PIPE_BUF) is not mixed with another process's.

use std::io::{self, Write};

use opentelemetry_proto::tonic::trace::v1::TracesData;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;

/// Writes the spans of the process that `resource` describes.
///
/// # Errors
/// Nobody reads standard output.
pub(crate) fn write(
    spans: Vec<SpanData>,
    resource: &ResourceAttributesWithSchema,
) -> io::Result<()> {
    for span in spans {
        let data = TracesData {
            resource_spans: group_spans_by_resource_and_scope(vec![span], resource),
        };
        let mut line = serde_json::to_vec(&data)?;
        line.push(b'\n');
        io::stdout().write_all(&line)?;
    }
    io::stdout().flush()
}
