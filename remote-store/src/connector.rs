//! One connection to the store: name, TCP, TLS.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::Service;

use crate::address::Address;
use crate::tls::Tls;

/// The kernel asks a silent peer whether it is still there after so long, and so often.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_PROBES: u32 = 3;
/// Bytes that nobody acknowledges for so long end the connection, milliseconds.
const UNACKNOWLEDGED: u32 = 30_000;

/// What can be read and written.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections to one address.
#[derive(Clone)]
pub(crate) struct Connector {
    address: Address,
    tls: Option<(Arc<Mutex<Tls>>, ServerName<'static>)>,
    timeout: Duration,
}

impl Connector {
    /// # Errors
    /// The host can't stand in a certificate.
    pub(crate) fn new(
        address: &Address,
        tls: Option<Tls>,
        timeout: Duration,
    ) -> Result<Self, rustls::pki_types::InvalidDnsNameError> {
        let tls = match tls {
            Some(tls) => {
                let name = ServerName::try_from(address.host().to_owned())?;
                Some((Arc::new(Mutex::new(tls)), name))
            }
            None => None,
        };
        Ok(Self {
            address: address.clone(),
            tls,
            timeout,
        })
    }

    /// Reads TLS's files again if they changed: whether new connections are made otherwise than those there are.
    pub(crate) fn refresh(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|(tls, _)| locked(tls).refresh())
    }

    async fn connect(self) -> io::Result<TokioIo<Box<dyn Stream>>> {
        let within = |what: &'static str| {
            move |_elapsed| io::Error::new(io::ErrorKind::TimedOut, format!("{what} timed out"))
        };
        let target = (self.address.host(), self.address.port());
        let tcp = tokio::time::timeout(self.timeout, TcpStream::connect(target))
            .await
            .map_err(within("connecting"))??;
        tcp.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&tcp, true)?;
        sockopt::set_tcp_keepidle(&tcp, KEEP_ALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&tcp, KEEP_ALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&tcp, KEEP_ALIVE_PROBES)?;
        sockopt::set_tcp_user_timeout(&tcp, UNACKNOWLEDGED)?;
        let Some((tls, name)) = self.tls else {
            return Ok(TokioIo::new(Box::new(tcp)));
        };
        let connector = TlsConnector::from(locked(&tls).configuration());
        let tls = tokio::time::timeout(self.timeout, connector.connect(name, tcp))
            .await
            .map_err(within("the TLS handshake"))??;
        Ok(TokioIo::new(Box::new(tls)))
    }
}

fn locked(tls: &Mutex<Tls>) -> MutexGuard<'_, Tls> {
    tls.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}
