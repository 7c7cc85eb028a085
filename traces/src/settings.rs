//! `--otlp-address`, `--otlp-exporter`: parca-agent's flags. Traces travel without TLS, as with it.

use std::fmt;
use std::str::FromStr;

use ipc_endpoint::lockdown::Plan;
use lexopt::{Parser, ValueExt};
use remote_store::Address;

/// Ports of collectors (OTLP 1.x, "default port").
const GRPC_PORT: u16 = 4317;
const HTTP_PORT: u16 = 4318;

/// Where traces go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nowhere: there are none.
    Off,
    /// OTLP/gRPC.
    Grpc(Address),
    /// OTLP/HTTP, protobuf, to `/v1/traces`.
    Http(Address),
    /// OTLP JSON lines on standard output.
    Stdout,
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.write_str("nowhere"),
            Self::Grpc(address) | Self::Http(address) => address.fmt(formatter),
            Self::Stdout => formatter.write_str("standard output"),
        }
    }
}

/// `--otlp-exporter`.
#[derive(Clone, Copy, Debug, Default)]
enum Exporter {
    #[default]
    Grpc,
    Http,
    Stdout,
}

impl FromStr for Exporter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http" => Ok(Self::Http),
            "stdout" => Ok(Self::Stdout),
            _ => Err(format!("{text:?} is none of grpc, http, stdout")),
        }
    }
}

/// The flags.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--otlp-address HOST:PORT`; empty: no traces, but on standard output if that is asked for.
    address: String,
    /// `--otlp-exporter grpc|http|stdout`.
    exporter: Exporter,
}

impl Settings {
    /// Takes the argument `--NAME` with its value from the parser, if it is one of these; whether it was.
    ///
    /// # Errors
    /// One line on what is wrong with the value.
    pub fn argument(&mut self, name: &str, parser: &mut Parser) -> Result<bool, lexopt::Error> {
        match name {
            "otlp-address" => self.address = parser.value()?.string()?,
            "otlp-exporter" => self.exporter = parser.value()?.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What they say together.
    ///
    /// # Errors
    /// One line on what is no address.
    pub fn way(&self) -> Result<Way, String> {
        match self.exporter {
            Exporter::Stdout => Ok(Way::Stdout),
            _ if self.address.is_empty() => Ok(Way::Off),
            Exporter::Grpc => self.collector(GRPC_PORT).map(Way::Grpc),
            Exporter::Http => self.collector(HTTP_PORT).map(Way::Http),
        }
    }

    fn collector(&self, port: u16) -> Result<Address, String> {
        let address = &self.address;
        let text = address.strip_prefix("http://").unwrap_or(address);
        Address::parse(text.trim_end_matches('/'), port).map_err(|_not_one| {
            format!(
                "--otlp-address: {address:?} is no HOST:PORT such as localhost:{port}; traces are sent without TLS"
            )
        })
    }

    /// Adds what sending needs after the lockdown: the collector's port, names' resolution.
    pub fn allow(&self, plan: &mut Plan) {
        if let Ok(Way::Grpc(address) | Way::Http(address)) = self.way() {
            address.allow(plan);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(address: &str, exporter: &str) -> Result<Way, String> {
        let settings = Settings {
            address: address.to_owned(),
            exporter: exporter.parse()?,
        };
        settings.way()
    }

    #[test]
    fn addresses_have_the_protocols_port_and_no_scheme() {
        for (address, exporter, shown) in [
            ("a:1", "grpc", "a:1"),
            ("a", "grpc", "a:4317"),
            ("[::1]", "http", "[::1]:4318"),
            ("http://a:1/", "http", "a:1"),
        ] {
            assert_eq!(
                way(address, exporter).map(|way| way.to_string()),
                Ok(shown.to_owned())
            );
        }
        for wrong in ["https://a:1", "a b", "http://", "a:1/v1/traces"] {
            let error = way(wrong, "grpc").expect_err("no address");
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn nothing_is_sent_unasked_and_standard_output_needs_no_address() {
        assert_eq!(way("", "grpc"), Ok(Way::Off));
        assert_eq!(way("", "http"), Ok(Way::Off));
        assert_eq!(way("", "stdout"), Ok(Way::Stdout));
        assert!(way("", "http/json").is_err());
    }
}
