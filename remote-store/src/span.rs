//! The span of a call, by OpenTelemetry's semantic conventions for RPC, and its context on the wire (W3C Trace Context): the
//! store's own spans of the call become its children.

use http::HeaderMap;
use opentelemetry::trace::{SpanKind, Status as SpanStatus, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_http::HeaderInjector;
use tonic::{Code, Status};

use crate::address::Address;

/// A call and its span. Dropped without an answer, it failed.
pub(crate) struct Call(Context);

impl Call {
    /// A call of `method` to `address` begins, as a part of what is under way.
    pub(crate) fn begin(method: &'static str, address: &Address) -> Self {
        let tracer = global::tracer("leadsman");
        let span = tracer
            .span_builder(method)
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("rpc.system", "grpc"),
                KeyValue::new("server.address", address.host().to_owned()),
                KeyValue::new("server.port", i64::from(address.port())),
            ])
            .start(&tracer);
        Self(Context::current_with_span(span))
    }

    /// What is under way meanwhile.
    pub(crate) fn context(&self) -> Context {
        self.0.clone()
    }

    /// It is answered.
    pub(crate) fn end(self, error: Option<&Status>) {
        let span = self.0.span();
        let code = error.map_or(Code::Ok, Status::code);
        span.set_attribute(KeyValue::new(
            "rpc.grpc.status_code",
            i64::from(code as i32),
        ));
        if let Some(error) = error {
            span.set_status(SpanStatus::error(error.message().to_owned()));
        }
        span.end();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Nothing changes a span that has ended.
        let span = self.0.span();
        span.set_status(SpanStatus::error("no answer within the time for it"));
        span.end();
    }
}

/// Names the call under way by its path, `/PACKAGE.SERVICE/METHOD`, and tells the callee of it.
pub(crate) fn send(path: &str, headers: &mut HeaderMap) {
    let context = Context::current();
    let span = context.span();
    if !span.span_context().is_valid() {
        return;
    }
    let name = path.trim_start_matches('/');
    span.update_name(name.to_owned());
    if let Some((service, method)) = name.split_once('/') {
        span.set_attributes([
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", method.to_owned()),
        ]);
    }
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut HeaderInjector(headers));
    });
}
