//! The viewer's arguments.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipc_endpoint::arguments::Common;
use lexopt::ValueExt as _;

/// Where the page is when not said otherwise: this machine only.
const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7071);

/// What the viewer was told.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// What every process is told.
    pub(crate) common: Common,
    /// `--local-store-directory DIR`: the local store. Without one there is no page to look at, only metrics.
    pub(crate) store_directory: Option<PathBuf>,
    /// `--http-address ADDRESS:PORT`.
    pub(crate) http_address: SocketAddr,
}

impl Config {
    /// Parses the arguments.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, lexopt::Error> {
        let mut store_directory = None;
        let mut http_address = DEFAULT_ADDRESS;
        let common = Common::parse(arguments, |name, parser| {
            match name {
                "local-store-directory" => store_directory = Some(parser.value()?.into()),
                "http-address" => http_address = parser.value()?.parse_with(address)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self {
            common,
            store_directory,
            http_address,
        })
    }
}

/// Reads `ADDRESS:PORT` or `:PORT`; a name isn't looked up.
fn address(text: &str) -> Result<SocketAddr, String> {
    let text = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None if text.starts_with(':') => format!("[::]{text}"),
        None => text.to_owned(),
    };
    text.parse()
        .map_err(|_malformed| format!("{text:?} is no ADDRESS:PORT such as 127.0.0.1:7071"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Config, String> {
        Config::parse(arguments.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_are_read() {
        let config =
            parse(&["--local-store-directory", "/s", "--http-address=0.0.0.0:80"]).expect("valid");
        assert_eq!(config.store_directory, Some("/s".into()));
        assert_eq!(config.http_address.to_string(), "0.0.0.0:80");
        assert_eq!(
            parse(&[]).expect("valid").http_address.to_string(),
            "127.0.0.1:7071"
        );
        let port = |text: &str| {
            parse(&["--http-address", text])
                .expect(text)
                .http_address
                .to_string()
        };
        assert_eq!(port("localhost:1"), "127.0.0.1:1");
        assert_eq!(port(":7071"), "[::]:7071");
        assert!(
            parse(&["--http-address", "node:1"])
                .expect_err("a name")
                .contains("127.0.0.1:7071")
        );
        assert!(parse(&["--http"]).is_err());
    }
}
