//! Which `Host` headers are served. A page elsewhere whose name was re-pointed at this machine (DNS rebinding) sends its own
//! name there, so only names that no stranger can own pass. Never resolves a name.

use std::net::{IpAddr, SocketAddr};

/// The addresses and names under which the viewer may be asked.
#[derive(Clone, Debug)]
pub(crate) struct AllowedHosts {
    /// The address listened on.
    bound: IpAddr,
}

impl AllowedHosts {
    /// Hosts for a server that listens on `address`.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            bound: address.ip().to_canonical(),
        }
    }

    /// Whether a request with this `Host` header is served. The port isn't compared: a forwarded port (`ssh -L`) differs.
    ///
    /// Loopback names and addresses and the configured address pass. A server that listens on all addresses is asked by
    /// any of them: there every literal address passes, since a literal needs no DNS and can't be rebound.
    pub(crate) fn allows(&self, header: &str) -> bool {
        let Some(host) = without_port(header) else {
            return false;
        };
        if host.eq_ignore_ascii_case("localhost") || host.eq_ignore_ascii_case("localhost.") {
            return true;
        }
        let literal = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let Ok(address) = literal.parse::<IpAddr>() else {
            return false;
        };
        let address = address.to_canonical();
        address.is_loopback() || self.bound.is_unspecified() || address == self.bound
    }
}

/// The header without its port; nothing when it is no `host[:port]`.
fn without_port(header: &str) -> Option<&str> {
    let end_of_host = match header.strip_prefix('[') {
        Some(rest) => rest.find(']')?.checked_add(2)?,
        None => header.find(':').unwrap_or(header.len()),
    };
    let (host, port) = header.split_at_checked(end_of_host)?;
    let port_is_valid = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    port_is_valid.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts(address: &str) -> AllowedHosts {
        AllowedHosts::new(address.parse().expect("an address"))
    }

    #[test]
    fn loopback_names_and_addresses_pass() {
        let hosts = hosts("127.0.0.1:7071");
        for host in [
            "localhost",
            "LOCALHOST:7071",
            "localhost.",
            "127.0.0.1:7071",
            "127.0.0.1:9",
            "127.8.9.1",
            "[::1]:7071",
            "[::1]",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(hosts.allows(host), "{host}");
        }
    }

    #[test]
    fn strangers_do_not_pass() {
        let hosts = hosts("127.0.0.1:7071");
        for host in [
            "",
            "evil.example",
            "evil.example:7071",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost:7071@evil.example",
            "localhost:port",
            "localhost:",
            "10.0.0.1:7071",
            "[::1",
            "[::1]7071",
            "::1:7071:x",
            "0x7f000001",
        ] {
            assert!(!hosts.allows(host), "{host}");
        }
    }

    #[test]
    fn the_configured_address_passes() {
        assert!(hosts("10.0.0.1:7071").allows("10.0.0.1:7071"));
        assert!(!hosts("10.0.0.1:7071").allows("10.0.0.2:7071"));
        assert!(hosts("0.0.0.0:7071").allows("10.0.0.2:7071"));
        assert!(hosts("[::]:7071").allows("[fd00::1]:7071"));
        assert!(!hosts("0.0.0.0:7071").allows("node.example:7071"));
    }

    proptest! {
        #[test]
        fn a_name_never_passes_unless_it_is_localhost(name in "[a-z][a-z0-9.-]{0,30}(:[0-9]{1,5})?") {
            let bare = name.split(':').next().unwrap_or_default().trim_end_matches('.');
            prop_assume!(bare != "localhost");
            prop_assert!(!hosts("0.0.0.0:7071").allows(&name));
        }

        #[test]
        fn any_text_is_survived(text in any::<String>()) {
            let _ = hosts("127.0.0.1:1").allows(&text);
        }
    }
}
