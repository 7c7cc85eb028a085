//! Where a store is: `HOST:PORT`, as gRPC clients take it. Looks nothing up.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipc_endpoint::lockdown::Plan;
use thiserror::Error;

/// Port of an address without one.
const DEFAULT_PORT: u16 = 443;
/// Where names are looked up; large answers come by TCP.
const DNS_PORT: u16 = 53;

/// A host, by name or number, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

/// Not an address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Nothing in it that could be a host and a port.
    #[error("{0:?} is no HOST:PORT such as parca.example.com:7070 or [::1]:7070")]
    Malformed(String),
    /// A URL.
    #[error("{0:?} is a URL: say HOST:PORT, and --remote-store-insecure where there is no TLS")]
    Url(String),
}

impl Address {
    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Reads `HOST:PORT`, or `HOST` for its `default_port`.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        // gRPC's way to name its own resolver.
        let rest = text
            .strip_prefix("dns:///")
            .or_else(|| text.strip_prefix("dns:"))
            .unwrap_or(text);
        if rest.contains("://") {
            return Err(AddressError::Url(text.to_owned()));
        }
        let (host, port) = if let Some(inside) = rest.strip_prefix('[') {
            let (host, behind) = inside.split_once(']').ok_or_else(malformed)?;
            let address: std::net::Ipv6Addr = host.parse().map_err(|_no_address| malformed())?;
            (address.to_string(), behind)
        } else {
            let (host, behind) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
            (host.to_owned(), behind)
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => digits.parse().map_err(|_no_number| malformed())?,
            None if port.is_empty() => default_port,
            None => return Err(malformed()),
        };
        // RFC 1123 names and dotted numbers; `_` is met in service discovery.
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        let fits = !host.is_empty() && host.len() <= 253 && host.bytes().all(sound);
        (fits && port != 0)
            .then_some(Self { host, port })
            .ok_or_else(malformed)
    }

    /// Adds what the way there needs after the lockdown: its port, names' resolution.
    pub fn allow(&self, plan: &mut Plan) {
        plan.connect.extend([self.port, DNS_PORT]);
        // resolv.conf, hosts and nsswitch.conf are replaced as whole files, which only their directory outlives;
        // resolv.conf is often a link.
        plan.read.push(PathBuf::from("/etc"));
        let linked = std::fs::canonicalize("/etc/resolv.conf").ok();
        plan.read
            .extend(linked.as_deref().and_then(Path::parent).map(PathBuf::from));
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text, DEFAULT_PORT)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(formatter, "[{host}]:{port}")
        } else {
            write!(formatter, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_grpc_reads_them() {
        for (text, shown) in [
            ("parca.example.com:7070", "parca.example.com:7070"),
            ("dns:///parca:7070", "parca:7070"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:7070", "[::1]:7070"),
            ("parca", "parca:443"),
            ("[fe80::1]", "[fe80::1]:443"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn anything_else_is_named() {
        for text in [
            "", ":7070", "a:0", "a:65536", "a:b", "a b:1", "[::1", "[a]:1", "::1:7070", "a/b:1",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error, AddressError::Malformed(text.to_owned()));
        }
        let url = "http://parca:7070".parse::<Address>().unwrap_err();
        assert!(url.to_string().contains("--remote-store-insecure"), "{url}");
    }
}
