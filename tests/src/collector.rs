//! A collector of traces: takes OTLP by gRPC on one port and by HTTP on another, keeps every span.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
pub use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// A span and who made it.
#[derive(Debug, Clone)]
pub struct Received {
    pub service: String,
    pub span: Span,
}

impl Received {
    /// An attribute as text.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<String> {
        text(&self.span.attributes, key)
    }

    /// Its context as the header `traceparent` says it (W3C Trace Context, version 00, sampled).
    #[must_use]
    pub fn traceparent(&self) -> String {
        let hexadecimal = |id: &[u8]| -> String {
            let digits = id.iter().map(|byte| format!("{byte:02x}"));
            digits.collect()
        };
        let (trace, span) = (&self.span.trace_id, &self.span.span_id);
        format!("00-{}-{}-01", hexadecimal(trace), hexadecimal(span))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The spans of a request, in its order.
#[must_use]
pub fn spans(resources: Vec<ResourceSpans>) -> Vec<Received> {
    let mut received = Vec::new();
    for resource in resources {
        let attributes = resource.resource.map(|resource| resource.attributes);
        let service = attributes.and_then(|attributes| text(&attributes, "service.name"));
        let service = service.unwrap_or_default();
        let spans = resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        received.extend(spans.map(|span| Received {
            service: service.clone(),
            span,
        }));
    }
    received
}

#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<Received>>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Vec<Received>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn post(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let fits = request.method() == Method::POST
            && request.uri().path() == "/v1/traces"
            && request
                .headers()
                .get("content-type")
                .is_some_and(|kind| kind == "application/x-protobuf");
        let body = request
            .into_body()
            .collect()
            .await
            .map(|body| body.to_bytes());
        let decoded = body
            .ok()
            .and_then(|body| ExportTraceServiceRequest::decode(body).ok());
        let mut response = Response::new(Full::default());
        match decoded.filter(|_| fits) {
            Some(request) => self.lock().extend(spans(request.resource_spans)),
            None => *response.status_mut() = StatusCode::BAD_REQUEST,
        }
        response
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.lock()
            .extend(spans(request.into_inner().resource_spans));
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    kept: Kept,
    _runtime: Runtime,
}

impl Collector {
    /// Starts on free ports.
    pub fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (grpc, http) = (listener()?, listener()?);
        let addresses = (grpc.local_addr()?, http.local_addr()?);
        let kept = Kept::default();
        let inside = runtime.enter();
        let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(grpc)?);
        let http = tokio::net::TcpListener::from_std(http)?;
        drop(inside);
        let service = TraceServiceServer::new(kept.clone());
        runtime.spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        runtime.spawn(serve(http, kept.clone()));
        Ok(Self {
            grpc: addresses.0,
            http: addresses.1,
            kept,
            _runtime: runtime,
        })
    }

    /// The spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Received> {
        self.kept.lock().clone()
    }
}

fn listener() -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve(listener: tokio::net::TcpListener, kept: Kept) {
    while let Ok((stream, _)) = listener.accept().await {
        let kept = kept.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let kept = kept.clone();
                async move { Ok::<_, Infallible>(kept.post(request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
