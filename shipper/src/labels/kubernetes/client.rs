//! Requests to the Kubernetes API: its address, authority and token, and responses as lines or one document. Knows no
//! objects.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig};

/// Bytes of a list's page; 500 pods of the largest kind.
const MAX_DOCUMENT: u64 = 64 << 20;
/// Bytes of one line of a watch: etcd keeps no object above 1.5 MB.
const MAX_LINE: u64 = 4 << 20;
/// Bytes of a token or certificate file.
const MAX_FILE: u64 = 1 << 20;
/// How long a watch is asked to last, and how long the rest of a response may take at most.
pub(super) const WATCH_SECONDS: u64 = 240;
const BODY_PATIENCE: Duration = Duration::from_secs(WATCH_SECONDS + 30);
const PATIENCE: Duration = Duration::from_secs(15);

/// How to reach the API.
#[derive(Clone, Debug)]
pub struct Access {
    /// `https://HOST:PORT`; `http://` on the loopback only.
    pub server: String,
    /// The authority of the server's certificate.
    pub authority: Option<PathBuf>,
    /// The token; read again for each request, since the kubelet renews it.
    pub token: Option<PathBuf>,
    /// This node's name.
    pub node: String,
}

impl Access {
    /// The TCP port of a server's address; `None`: it has none that can be read.
    #[must_use]
    pub fn port(server: &str) -> Option<u16> {
        let (scheme, rest) = server.split_once("://")?;
        let host = rest.split('/').next()?;
        // The colons within `[::1]` are no port's.
        let behind_host = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
        match behind_host.rsplit_once(':') {
            Some((_, port)) => port.parse().ok(),
            None if scheme == "https" => Some(443),
            None => Some(80),
        }
    }
}

/// Why a request failed.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The address is of no use.
    #[error("{0:?} is no address of a Kubernetes API: give https://HOST:PORT")]
    Address(String),
    /// A token over an open network.
    #[error(
        "{0} is not encrypted and not on this machine: the token is not sent there; use https://"
    )]
    Plain(String),
    /// Nobody vouches for the server.
    #[error("{0} needs the authority of its certificate: give --kubernetes-ca-file PATH")]
    NoAuthority(String),
    /// A file can't be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No certificate in it.
    #[error("{0} holds no certificate")]
    NoCertificate(PathBuf),
    /// The request did not get through.
    #[error("{server}: {source}")]
    Request {
        /// Whom.
        server: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The server refused.
    #[error("{server} answered {status}: {hint}")]
    Status {
        /// Whom.
        server: String,
        /// HTTP's.
        status: u16,
        /// What to do.
        hint: &'static str,
    },
    /// The response broke off.
    #[error("the answer broke off: {0}")]
    Broken(std::io::Error),
    /// More than anybody should send.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
    /// Not what was asked for.
    #[error("the answer is malformed: {0}")]
    Malformed(serde_json::Error),
    /// What was asked for is too old: list again.
    #[error("the resource version is too old")]
    Expired,
}

/// A client for one access.
#[derive(Debug)]
pub(super) struct Client<'a> {
    access: &'a Access,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub(super) fn new(access: &'a Access) -> Result<Self, AccessError> {
        let loopback = ["http://127.0.0.1:", "http://[::1]:", "http://localhost:"];
        if !access.server.starts_with("https://") {
            if !access.server.starts_with("http://") {
                return Err(AccessError::Address(access.server.clone()));
            }
            if access.token.is_some()
                && !loopback
                    .iter()
                    .any(|start| access.server.starts_with(start))
            {
                return Err(AccessError::Plain(access.server.clone()));
            }
        }
        if access.server.starts_with("https://") && access.authority.is_none() {
            return Err(AccessError::NoAuthority(access.server.clone()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        if let Some(path) = &access.authority {
            let text = read(path)?;
            let certificates: Vec<_> = ureq::tls::parse_pem(&text)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if certificates.is_empty() {
                return Err(AccessError::NoCertificate(path.clone()));
            }
            tls = tls.root_certs(RootCerts::from(certificates));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_recv_body(Some(BODY_PATIENCE))
            .user_agent(concat!("leadsman/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self {
            access,
            agent: config.into(),
        })
    }

    fn get(&self, path_and_query: &str) -> Result<ureq::Body, AccessError> {
        let server = self.access.server.trim_end_matches('/');
        let mut request = self
            .agent
            .get(format!("{server}{path_and_query}"))
            .header("Accept", "application/json");
        if let Some(path) = &self.access.token {
            let token = String::from_utf8_lossy(&read(path)?).trim().to_owned();
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(|source| AccessError::Request {
            server: server.to_owned(),
            source: Box::new(source),
        })?;
        let status = response.status().as_u16();
        match status {
            200 => Ok(response.into_body()),
            410 => Err(AccessError::Expired),
            _ => Err(AccessError::Status {
                server: server.to_owned(),
                status,
                hint: match status {
                    401 => "the token is not accepted: check --kubernetes-token-file",
                    403 => "the service account needs get, list and watch of pods and nodes",
                    429 => "it has too much to do: it is asked again later",
                    _ => "it is asked again later",
                },
            }),
        }
    }

    /// One JSON document.
    pub(super) fn document<T: serde::de::DeserializeOwned>(
        &self,
        path_and_query: &str,
    ) -> Result<T, AccessError> {
        let body = self
            .get(path_and_query)?
            .into_reader()
            .take(MAX_DOCUMENT + 1);
        let mut text = Vec::new();
        let mut body = body;
        body.read_to_end(&mut text).map_err(AccessError::Broken)?;
        if text.len() as u64 > MAX_DOCUMENT {
            return Err(AccessError::TooLarge(MAX_DOCUMENT));
        }
        serde_json::from_slice(&text).map_err(AccessError::Malformed)
    }

    /// JSON documents line by line, until the response ends.
    pub(super) fn lines(
        &self,
        path_and_query: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        let mut body = BufReader::new(self.get(path_and_query)?.into_reader());
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = (&mut body).take(MAX_LINE);
            let length = limited
                .read_until(b'\n', &mut line)
                .map_err(AccessError::Broken)?;
            if length == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') && length as u64 == MAX_LINE {
                return Err(AccessError::TooLarge(MAX_LINE));
            }
            if !line.trim_ascii().is_empty() {
                take(&line)?;
            }
        }
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, AccessError> {
    let failed = |source| AccessError::File {
        path: path.clone(),
        source,
    };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(server: &str, token: bool) -> Access {
        Access {
            server: server.to_owned(),
            authority: None,
            token: token.then(|| PathBuf::from("/token")),
            node: "n".to_owned(),
        }
    }

    #[test]
    fn a_token_is_never_sent_in_the_open_or_to_anybody() {
        for (server, token, sound) in [
            ("https://10.0.0.1:443", true, false),
            ("http://127.0.0.1:8001", true, true),
            ("http://[::1]:8001", true, true),
            ("http://10.0.0.1:8080", false, true),
            ("http://10.0.0.1:8080", true, false),
            ("http://127.0.0.1.evil.example:80", true, false),
            ("ftp://x", false, false),
            ("10.0.0.1:443", false, false),
        ] {
            let access = access(server, token);
            assert_eq!(Client::new(&access).is_ok(), sound, "{server}");
        }
    }

    #[test]
    fn the_port_is_the_schemes_unless_it_is_named() {
        for (server, port) in [
            ("https://10.0.0.1:6443", Some(6443)),
            ("https://api.example/", Some(443)),
            ("http://[::1]:8001", Some(8001)),
            ("https://[fd00::1]", Some(443)),
            ("http://localhost", Some(80)),
            ("https://x:port", None),
            ("x:1", None),
        ] {
            assert_eq!(Access::port(server), port, "{server}");
        }
    }

    #[test]
    fn an_authority_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let access = Access {
            authority: Some(file.path().to_owned()),
            ..access("https://10.0.0.1", false)
        };
        let refused = Client::new(&access).unwrap_err();
        assert!(
            matches!(refused, AccessError::NoCertificate(_)),
            "{refused}"
        );
    }
}
