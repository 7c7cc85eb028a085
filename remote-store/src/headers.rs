//! The layer next to the channel: token and extra headers on each call.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

use crate::credentials::Token;

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
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Wire {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let added = request.headers_mut();
        for (name, value) in self.headers.iter() {
            added.append(name, value.clone());
        }
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = token.header() {
            added.insert(AUTHORIZATION, value);
        }
        drop(token);
        self.channel.call(request)
    }
}
