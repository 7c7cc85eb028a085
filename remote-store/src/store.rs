//! The store as its callers see it: a wire for generated clients, and unary calls that are tried again within one time limit.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::trace::FutureExt as _;
use thiserror::Error;
use tokio::sync::Semaphore;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::retry::RetryLayer;
use tower::timeout::TimeoutLayer;
use tower::timeout::error::Elapsed;
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};

use crate::address::Address;
use crate::attempts::Attempts;
use crate::connector::Connector;
use crate::credentials::{Token, TokenError};
use crate::headers::Wire;
use crate::metrics::CallMetrics;
use crate::settings::Settings;
use crate::span::Call;
use crate::tls::{Tls, TlsError};
use crate::verdict::{Verdict, code_name};

/// Unary calls at once.
const MAX_CALLS: usize = 8;
/// One attempt may take so long: then the next one, over a new connection perhaps.
const ATTEMPT: Duration = Duration::from_secs(60);
/// Servers written in Go end a connection that is asked more often than every five minutes whether it is alive
/// (keepalive.EnforcementPolicy); the kernel asks more often (see the connector).
const PING: Duration = Duration::from_secs(310);
const PING_ANSWER: Duration = Duration::from_secs(20);

/// Why there can be no channel.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Nowhere to go.
    #[error("--remote-store-address is missing")]
    NoAddress,
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The host.
    #[error("{0} can be in no certificate: {1}")]
    Name(Address, rustls::pki_types::InvalidDnsNameError),
    /// The address makes no URI.
    #[error("{0}: {1}")]
    Endpoint(Address, tonic::transport::Error),
}

/// A call that failed for good, or for longer than the call may take.
#[derive(Debug, Error)]
pub enum CallError {
    /// What the store, or the way to it, says.
    #[error("{code}: {message}", code = code_name(.0.code()), message = explain(.0))]
    Status(Box<Status>),
    /// The time for the call and all its retries is over.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl CallError {
    /// What it means for what was sent.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Status(status) => Verdict::of(status),
            Self::Timeout(_) => Verdict::Retry,
        }
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Status(status) => status.code(),
            Self::Timeout(_) => Code::DeadlineExceeded,
        }
    }
}

/// The status's text with what lies below it: "transport error" alone helps nobody.
fn explain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    // A server's text goes to the log: one line of bounded length.
    text.chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take(500)
        .collect()
}

/// The way to the store: how connections are made, and the one that is used.
struct Line {
    endpoint: Endpoint,
    connector: Connector,
    wire: Mutex<Wire>,
}

/// The store.
#[derive(Clone)]
pub struct RemoteStore {
    line: Arc<Line>,
    settings: Arc<Settings>,
    address: Address,
    metrics: CallMetrics,
    calls: Arc<Semaphore>,
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("RemoteStore");
        shown
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl RemoteStore {
    /// Reads the files that `settings` name; connects with the first call and again whenever it must. To be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let address = settings.address.clone().ok_or(SetupError::NoAddress)?;
        let tls = match settings.insecure {
            true => None,
            false => Some(Tls::new(settings)?),
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let token = Token::new(
            settings.bearer_token.as_ref(),
            settings.bearer_token_file.as_deref(),
        )?;
        let connector = Connector::new(&address, tls, settings.connection_timeout)
            .map_err(|error| SetupError::Name(address.clone(), error))?;
        let unfit = |error| SetupError::Endpoint(address.clone(), error);
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(unfit)?
            .user_agent(concat!("leadsman/", env!("CARGO_PKG_VERSION")))
            .map_err(unfit)?
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PING_ANSWER)
            .keep_alive_while_idle(false);
        let channel = endpoint.connect_with_connector_lazy(connector.clone());
        Ok(Self {
            line: Arc::new(Line {
                endpoint,
                connector,
                wire: Mutex::new(Wire::new(channel, settings.headers.clone(), token)),
            }),
            settings: Arc::new(settings.clone()),
            address,
            metrics: CallMetrics::default(),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
        })
    }

    /// For generated clients: streams, and whatever is not to be tried again, by [`Self::attempt`].
    #[must_use]
    pub fn wire(&self) -> Wire {
        if self.line.connector.refresh() {
            self.renew();
        }
        let wire = self.line.wire.lock();
        wire.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next calls go over a new connection: one on which an answer did not come may be dead, or end at a proxy that is,
    /// without anybody saying so; one that was made with a certificate replaced since may be refused. Calls under way keep
    /// theirs.
    fn renew(&self) {
        let line = &self.line;
        let channel = line
            .endpoint
            .connect_with_connector_lazy(line.connector.clone());
        let mut wire = line.wire.lock().unwrap_or_else(PoisonError::into_inner);
        *wire = wire.on(channel);
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How it is reached.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What became of the calls so far.
    #[must_use]
    pub fn metrics(&self) -> &CallMetrics {
        &self.metrics
    }

    /// A unary call: `send` makes one attempt with a generated client on the wire. Attempts that failed in a way that may
    /// pass are repeated, within the time limit for all of them.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn unary<M, R, F, S>(
        &self,
        method: &'static str,
        message: M,
        send: F,
    ) -> Result<R, CallError>
    where
        M: Clone,
        F: Fn(Wire, Request<M>) -> S + Clone,
        S: Future<Output = Result<Response<R>, Status>>,
    {
        self.attempts(method, message, send, self.settings.unary_timeout, true)
            .await
    }

    /// A unary call of one attempt within `limit`: for callers that have better to do than to wait, such as those who
    /// keep what they send.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn unary_once<M, R, F, S>(
        &self,
        method: &'static str,
        message: M,
        send: F,
        limit: Duration,
    ) -> Result<R, CallError>
    where
        M: Clone,
        F: Fn(Wire, Request<M>) -> S + Clone,
        S: Future<Output = Result<Response<R>, Status>>,
    {
        self.attempts(method, message, send, limit, false).await
    }

    async fn attempts<M, R, F, S>(
        &self,
        method: &'static str,
        message: M,
        send: F,
        limit: Duration,
        again: bool,
    ) -> Result<R, CallError>
    where
        M: Clone,
        F: Fn(Wire, Request<M>) -> S + Clone,
        S: Future<Output = Result<Response<R>, Status>>,
    {
        let attempt = service_fn(|message: M| {
            let (store, send) = (self.clone(), send.clone());
            async move {
                let unanswered = Unanswered(&store);
                let call = send(store.wire(), Request::new(message));
                let result = store.attempt(method, call).await;
                std::mem::forget(unanswered);
                result.map(Response::into_inner)
            }
        });
        let retries = again.then(|| RetryLayer::new(Attempts::new()));
        let service = ServiceBuilder::new()
            .layer(TimeoutLayer::new(limit))
            .option_layer(retries)
            .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(
                &self.calls,
            )))
            .layer(TimeoutLayer::new(ATTEMPT.min(limit)))
            .service(attempt);
        service
            .oneshot(message)
            .await
            .map_err(|error| failure(error, limit))
    }

    /// Makes one attempt of a call on [`Self::wire`]: within a span that the store is told of, counted, and logged where
    /// that is asked for.
    ///
    /// # Errors
    /// The call's.
    pub async fn attempt<R>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<Response<R>, Status>>,
    ) -> Result<Response<R>, Status> {
        let start = Instant::now();
        let span = Call::begin(method, &self.address);
        let result = call.with_context(span.context()).await;
        let error = result.as_ref().err();
        span.end(error);
        let (code, took) = (error.map_or(Code::Ok, Status::code), start.elapsed());
        self.metrics.count(method, code, took);
        if self.settings.rpc_logging {
            let text = error.map(explain).unwrap_or_default();
            log::info!(
                "rpc: method={method} address={} code={} took={took:?} {text}",
                self.address,
                code_name(code)
            );
        }
        result
    }
}

/// An attempt that ends without an answer, because its time is over, takes the connection with it.
struct Unanswered<'a>(&'a RemoteStore);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.renew();
    }
}

fn failure(error: BoxError, limit: Duration) -> CallError {
    match error.downcast::<Status>() {
        Ok(status) => CallError::Status(status),
        Err(other) if other.is::<Elapsed>() => CallError::Timeout(limit),
        Err(other) => CallError::Status(Box::new(Status::unknown(other.to_string()))),
    }
}
