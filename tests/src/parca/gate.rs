//! Stands before all calls: asks for the token, counts, and does on demand what a real server does rarely: each status, slow
//! and broken answers. Knows no call's content.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// What is to happen instead of, or after, a call's own answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done.
    Status(Code),
    /// All is done, and the answer says otherwise: the caller can't know.
    DoneThen(Code),
    /// All is done, later.
    Slow(Duration),
    /// Nothing is done and no answer ever comes.
    Hang,
    /// All is done; the answer's message is no protobuf.
    Garbage,
    /// All is done; the answer ends in the middle of its message, without a status.
    HalfAnswer,
    /// A proxy's page with this HTTP status.
    Page(u16),
}

#[derive(Debug)]
struct Demand {
    method: &'static str,
    fault: Fault,
    times: u32,
}

#[derive(Debug, Default)]
struct State {
    demands: Vec<Demand>,
    tokens: Option<Vec<String>>,
    calls: BTreeMap<String, u64>,
    refused_tokens: u64,
    headers: Option<HeaderMap>,
    bytes: u64,
}

/// The handle of the tests; clones see the same.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    state: Arc<Mutex<State>>,
}

impl Gate {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `times` calls of a method (`WriteRaw` for instance) meet this fault.
    pub fn demand(&self, method: &'static str, fault: Fault, times: u32) {
        self.state().demands.push(Demand {
            method,
            fault,
            times,
        });
    }

    /// No more faults.
    pub fn relent(&self) {
        self.state().demands.clear();
    }

    /// From now on every call needs one of these tokens; `None` lets everybody pass.
    pub fn set_tokens(&self, tokens: Option<&[&str]>) {
        self.state().tokens =
            tokens.map(|tokens| tokens.iter().map(|token| (*token).to_owned()).collect());
    }

    /// How often a method was called, faults included.
    #[must_use]
    pub fn calls(&self, method: &str) -> u64 {
        self.state().calls.get(method).copied().unwrap_or(0)
    }

    /// Calls without a valid token.
    #[must_use]
    pub fn refused_tokens(&self) -> u64 {
        self.state().refused_tokens
    }

    /// Bytes of all request bodies, frames' heads included, as they came (compressed or not).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// A header of the last call.
    #[must_use]
    pub fn last_header(&self, name: &str) -> Option<String> {
        let state = self.state();
        let value = state.headers.as_ref()?.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// What is to happen to this call.
    fn judge(&self, method: &str, headers: &HeaderMap) -> Option<Fault> {
        let mut state = self.state();
        *state.calls.entry(method.to_owned()).or_default() += 1;
        state.headers = Some(headers.clone());
        let bearer = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let passes = state.tokens.as_ref().is_none_or(|tokens| {
            bearer.is_some_and(|bearer| tokens.iter().any(|token| token == bearer))
        });
        if !passes {
            state.refused_tokens += 1;
            return Some(Fault::Status(Code::Unauthenticated));
        }
        let index = state
            .demands
            .iter()
            .position(|demand| demand.method == method)?;
        let demand = state.demands.get_mut(index)?;
        let fault = demand.fault;
        demand.times -= 1;
        if demand.times == 0 {
            state.demands.remove(index);
        }
        Some(fault)
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            gate: self.clone(),
            inner,
        }
    }
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request
            .uri()
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let fault = self.gate.judge(&method, request.headers());
        let counter = self.gate.clone();
        let request = request.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(data) = frame.data_ref() {
                    counter.state().bytes += data.len() as u64;
                }
                frame
            }))
        });
        let request = answered_as_it_came(request);
        let inner = self.inner.clone();
        Box::pin(async move {
            Ok(match fault {
                None => served(inner, request).await,
                Some(Fault::Status(code)) => status(code, "on demand"),
                Some(Fault::DoneThen(code)) => {
                    let _ = served(inner, request).await;
                    status(code, "on demand, although it is done")
                }
                Some(Fault::Slow(duration)) => {
                    tokio::time::sleep(duration).await;
                    served(inner, request).await
                }
                Some(Fault::Hang) => std::future::pending().await,
                Some(Fault::Garbage) => {
                    let _ = served(inner, request).await;
                    // A field of the wire type 7, which does not exist.
                    framed(b"\0\0\0\0\x04\xff\xff\xff\xff", true)
                }
                Some(Fault::HalfAnswer) => {
                    let _ = served(inner, request).await;
                    framed(b"\0\0\0\x10\0half", false)
                }
                Some(Fault::Page(code)) => page(code),
            })
        })
    }
}

/// As grpc-go does: whoever sends compressed is answered compressed, whatever it says that it accepts.
fn answered_as_it_came(mut request: Request<Body>) -> Request<Body> {
    if let Some(encoding) = request.headers().get("grpc-encoding").cloned() {
        request
            .headers_mut()
            .insert("grpc-accept-encoding", encoding);
    }
    request
}

async fn served<S>(mut inner: S, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    match inner.call(request).await {
        Ok(response) => response,
        Err(impossible) => match impossible {},
    }
}

fn status(code: Code, message: &str) -> Response<Body> {
    Status::new(code, message).into_http()
}

fn framed(bytes: &'static [u8], ends_well: bool) -> Response<Body> {
    let body = Full::new(Bytes::from_static(bytes));
    let body = if ends_well {
        let trailers = async {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            Some(Ok(trailers))
        };
        Body::new(body.with_trailers(trailers))
    } else {
        Body::new(body)
    };
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn page(code: u16) -> Response<Body> {
    let text = "<html><body>not the server you look for</body></html>";
    let mut response = Response::new(Body::new(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::BAD_GATEWAY);
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("text/html"));
    response
}
