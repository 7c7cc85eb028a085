//! Sends a file by HTTP PUT to a URL that the store chose, as object storages take it. Follows no redirect, repeats nothing.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::chunks::Chunks;
use crate::outcome::Again;

/// How `https:` is spoken; nothing where the store is reached without TLS and no authority is trusted.
pub(crate) type Https = Option<Arc<ClientConfig>>;

/// Why a file did not arrive.
#[derive(Debug, Error)]
pub(crate) enum PutError {
    /// The URL can't be used.
    #[error("the store's signed URL is none that files can be sent to: {0}")]
    Url(&'static str),
    /// The storage can't be reached.
    #[error("cannot reach the storage that the store names: {0}")]
    Connect(io::Error),
    /// The connection broke.
    #[error("the upload to the storage broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// The storage says no.
    #[error("the storage answers {0}")]
    Status(StatusCode),
}

impl PutError {
    /// The cause's name in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Url(_) => "signed_url",
            Self::Connect(_) => "storage_unreachable",
            Self::Broken(_) => "storage_broken",
            Self::Status(status) if status.is_server_error() => "storage_5xx",
            Self::Status(_) => "storage_4xx",
        }
    }

    /// When another try, with another URL, makes sense.
    pub(crate) fn again(&self) -> Again {
        match self {
            Self::Connect(_) | Self::Broken(_) => Again::Soon,
            Self::Status(status)
                if status.is_server_error() || matches!(status.as_u16(), 403 | 408 | 425 | 429) =>
            {
                Again::Soon
            }
            Self::Url(_) | Self::Status(_) => Again::Later,
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Sends all chunks, `size` bytes.
///
/// # Errors
/// They did not arrive, or not all of them.
pub(crate) async fn put(
    https: &Https,
    url: &str,
    chunks: Chunks,
    size: u64,
) -> Result<(), PutError> {
    let uri: Uri = url
        .parse()
        .map_err(|_malformed| PutError::Url("malformed"))?;
    let authority = uri.authority().ok_or(PutError::Url("without a host"))?;
    let host = authority.host().trim_matches(['[', ']']);
    let stream: Box<dyn Stream> = match uri.scheme_str() {
        Some("http") => {
            let port = authority.port_u16().unwrap_or(80);
            Box::new(connect(host, port).await?)
        }
        Some("https") => {
            let https = https.as_ref().ok_or(PutError::Url(
                "it needs TLS, and no certificate authority is trusted",
            ))?;
            let name = ServerName::try_from(host.to_owned())
                .map_err(|_unfit| PutError::Url("its host can be in no certificate"))?;
            let port = authority.port_u16().unwrap_or(443);
            let stream = connect(host, port).await?;
            let connector = TlsConnector::from(Arc::clone(https));
            let stream = connector.connect(name, stream).await;
            Box::new(stream.map_err(PutError::Connect)?)
        }
        _ => return Err(PutError::Url("neither http nor https")),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::builder()
        .method(Method::PUT)
        .uri(target)
        .header(HOST, authority.as_str())
        .header(CONTENT_LENGTH, size)
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(USER_AGENT, concat!("leadsman/", env!("CARGO_PKG_VERSION")))
        .body(chunks)
        .map_err(|_malformed| PutError::Url("malformed"))?;
    // The answer may come before the file is sent, as a refusal; the connection has to be driven meanwhile.
    let mut answer = pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answer => response?,
        // A storage that answers and closes at once ends the connection with the answer read.
        ended = connection => match answer.await {
            Ok(response) => response,
            Err(error) => {
                ended?;
                return Err(error.into());
            }
        },
    };
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(PutError::Status(status)),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, PutError> {
    TcpStream::connect((host, port))
        .await
        .map_err(PutError::Connect)
}
