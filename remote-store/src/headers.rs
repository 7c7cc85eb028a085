//! The layer next to the channel: token and extra headers on each call; answers that are no gRPC, told by their status.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::Service;

use crate::credentials::Token;
use crate::span;

/// A channel that adds headers: what generated clients are made with.
#[derive(Clone)]
pub struct Wire {
    channel: Channel,
    headers: Arc<Vec<(HeaderName, HeaderValue)>>,
    token: Arc<Mutex<Token>>,
}

impl Wire {
    pub(crate) fn new(
        channel: Channel,
        headers: Vec<(HeaderName, HeaderValue)>,
        token: Token,
    ) -> Self {
        Self {
            channel,
            headers: Arc::new(headers),
            token: Arc::new(Mutex::new(token)),
        }
    }

    /// The same over another channel.
    pub(crate) fn on(&self, channel: Channel) -> Self {
        Self {
            channel,
            ..self.clone()
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let added = request.headers_mut();
        span::send(&path, added);
        for (name, value) in self.headers.iter() {
            added.append(name, value.clone());
        }
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = token.header() {
            added.insert(AUTHORIZATION, value);
        }
        drop(token);
        let answer = self.channel.call(request);
        Box::pin(async move { answer.await.map(in_grpc) })
    }
}

/// A proxy's page as the status that it stands for, by gRPC's own table (doc/http-grpc-status-mapping.md): read as messages
/// its text would be nonsense.
fn in_grpc(answer: Response<Body>) -> Response<Body> {
    let kind = answer.headers().get(CONTENT_TYPE);
    let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let http = answer.status();
    if is_grpc && http == StatusCode::OK {
        return answer;
    }
    let code = match http {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    let kind = kind.map_or_else(
        || "of no type".to_owned(),
        |kind| format!("of type {kind:?}"),
    );
    Status::new(code, format!("no gRPC but HTTP {http}, {kind}")).into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(http: u16, kind: &'static str) -> Option<Code> {
        let answer = Response::builder()
            .status(http)
            .header(CONTENT_TYPE, kind)
            .body(Body::default())
            .expect("an answer");
        Some(Status::from_header_map(in_grpc(answer).headers())?.code())
    }

    #[test]
    fn pages_become_statuses_and_answers_pass() {
        assert_eq!(code(200, "application/grpc"), None);
        assert_eq!(code(200, "application/grpc+proto"), None);
        assert_eq!(code(200, "text/html"), Some(Code::Unknown));
        assert_eq!(code(401, "text/html"), Some(Code::Unauthenticated));
        assert_eq!(code(502, "text/html"), Some(Code::Unavailable));
    }
}
