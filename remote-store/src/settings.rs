//! How to reach the store: the `--remote-store-*` arguments that every process with a way to it takes. Opens nothing; the
//! token of the environment is handed in.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipc_endpoint::duration;
use ipc_endpoint::lockdown::Plan;
use lexopt::{Parser, ValueExt};

use crate::address::Address;
use crate::credentials::Secret;

/// Environment variable that holds the bearer token.
pub const TOKEN_VARIABLE: &str = "PARCA_BEARER_TOKEN";

/// Headers at most.
const MAX_HEADERS: usize = 64;

/// The settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--remote-store-address HOST:PORT`; without one there is no remote store.
    pub address: Option<Address>,
    /// `--remote-store-insecure`: no TLS.
    pub insecure: bool,
    /// `--remote-store-insecure-skip-verify`: TLS with whoever answers.
    pub insecure_skip_verify: bool,
    /// `--remote-store-ca-file PEM`: trust these authorities instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// `--remote-store-client-cert PEM`.
    pub client_certificate: Option<PathBuf>,
    /// `--remote-store-client-key PEM`.
    pub client_key: Option<PathBuf>,
    /// From [`TOKEN_VARIABLE`]; goes before the file.
    pub bearer_token: Option<Secret>,
    /// `--remote-store-bearer-token-file FILE`, read again when it changes.
    pub bearer_token_file: Option<PathBuf>,
    /// `--remote-store-grpc-headers NAME=VALUE;...`: sent with every call.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `--remote-store-rpc-logging-enable`.
    pub rpc_logging: bool,
    /// `--remote-store-rpc-unary-timeout`: for one call with all its retries.
    pub unary_timeout: Duration,
    /// `--remote-store-grpc-connection-timeout`: for one attempt to connect.
    pub connection_timeout: Duration,
    /// `--remote-store-grpc-max-call-send-msg-size`, bytes.
    pub max_send_bytes: usize,
    /// `--remote-store-grpc-max-call-recv-msg-size`, bytes.
    pub max_receive_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: None,
            insecure: false,
            insecure_skip_verify: false,
            ca_file: None,
            client_certificate: None,
            client_key: None,
            bearer_token: None,
            bearer_token_file: None,
            headers: Vec::new(),
            rpc_logging: false,
            unary_timeout: Duration::from_secs(300),
            connection_timeout: Duration::from_secs(3),
            max_send_bytes: 32 << 20,
            max_receive_bytes: 32 << 20,
        }
    }
}

impl Settings {
    /// Takes the argument `--NAME` with its value from the parser, if it is one of these; whether it was.
    ///
    /// # Errors
    /// One line on what is wrong with the value.
    pub fn argument(&mut self, name: &str, parser: &mut Parser) -> Result<bool, lexopt::Error> {
        match name {
            "remote-store-address" => {
                let text = parser.value()?.string()?;
                self.address = (!text.is_empty())
                    .then(|| text.parse().map_err(|error| format!("--{name}: {error}")))
                    .transpose()?;
            }
            "remote-store-insecure" => self.insecure = boolean(parser)?,
            "remote-store-insecure-skip-verify" => self.insecure_skip_verify = boolean(parser)?,
            "remote-store-ca-file" => self.ca_file = path(parser)?,
            "remote-store-client-cert" => self.client_certificate = path(parser)?,
            "remote-store-client-key" => self.client_key = path(parser)?,
            "remote-store-bearer-token-file" => self.bearer_token_file = path(parser)?,
            "remote-store-grpc-headers" => {
                self.headers
                    .extend(headers(&parser.value()?.string()?).map_err(lexopt::Error::from)?);
                if self.headers.len() > MAX_HEADERS {
                    return Err(format!("--{name}: more than {MAX_HEADERS} headers").into());
                }
            }
            "remote-store-rpc-logging-enable" => self.rpc_logging = boolean(parser)?,
            "remote-store-rpc-unary-timeout" => {
                self.unary_timeout = parser.value()?.parse_with(duration::parse_positive)?;
            }
            "remote-store-grpc-connection-timeout" => {
                self.connection_timeout = parser.value()?.parse_with(duration::parse_positive)?;
            }
            "remote-store-grpc-max-call-send-msg-size" => {
                self.max_send_bytes = parser.value()?.parse()?;
            }
            "remote-store-grpc-max-call-recv-msg-size" => {
                self.max_receive_bytes = parser.value()?.parse()?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes the token that the environment holds. An empty one is none.
    ///
    /// # Errors
    /// It is not text.
    pub fn take_token(&mut self, token: Option<std::ffi::OsString>) -> Result<(), lexopt::Error> {
        let Some(token) = token else { return Ok(()) };
        let text = token
            .into_string()
            .map_err(|_not_text| format!("{TOKEN_VARIABLE} is not text"))?;
        self.bearer_token = Secret::new(&text);
        Ok(())
    }

    /// Checks what single settings can't say.
    ///
    /// # Errors
    /// One line on which settings contradict each other.
    pub fn check(&self) -> Result<(), lexopt::Error> {
        let contradiction = match (&self.client_certificate, &self.client_key) {
            (Some(_), None) => Some("--remote-store-client-cert needs --remote-store-client-key"),
            (None, Some(_)) => Some("--remote-store-client-key needs --remote-store-client-cert"),
            (Some(_), Some(_)) if self.insecure => Some(
                "a client certificate needs TLS: leave out --remote-store-insecure or --remote-store-client-cert",
            ),
            _ if self.insecure && self.ca_file.is_some() => {
                Some("--remote-store-ca-file needs TLS: leave out --remote-store-insecure or this")
            }
            _ => None,
        };
        match contradiction {
            Some(contradiction) => Err(contradiction.into()),
            None => Ok(()),
        }
    }

    /// The files that TLS is made of.
    pub(crate) fn tls_files(&self) -> impl Iterator<Item = &PathBuf> {
        let files = [&self.ca_file, &self.client_certificate, &self.client_key];
        files.into_iter().flatten()
    }

    /// Adds what the way to the store needs after the lockdown: its port, names' resolution, the files that are read again.
    pub fn allow(&self, plan: &mut Plan) {
        let Some(address) = &self.address else { return };
        address.allow(plan);
        for file in self.tls_files().chain(&self.bearer_token_file) {
            // It may be a link, and be replaced: its directories.
            let files = [Some(file.clone()), std::fs::canonicalize(file).ok()];
            let directories = files.iter().flatten().filter_map(|file| file.parent());
            let directories = directories.filter(|directory| directory.is_dir());
            plan.read.extend(directories.map(PathBuf::from));
        }
    }
}

/// Reads `--x` or `--x=BOOL`.
///
/// # Errors
/// One line on what it is instead.
pub fn boolean(parser: &mut Parser) -> Result<bool, lexopt::Error> {
    match parser.optional_value() {
        None => Ok(true),
        Some(value) => value.parse_with(|text| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        }),
    }
}

/// A path; an empty one is none.
fn path(parser: &mut Parser) -> Result<Option<PathBuf>, lexopt::Error> {
    let value = parser.value()?;
    Ok((!value.is_empty()).then(|| PathBuf::from(value)))
}

/// Reads `NAME=VALUE;...`. gRPC's own headers can't be overwritten.
fn headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    const RESERVED: [&str; 5] = ["content-type", "te", "host", "user-agent", "authorization"];
    let parts = text
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| "a header is no NAME=VALUE".to_owned())?;
            let name: HeaderName = name
                .trim()
                .parse()
                .map_err(|_malformed| format!("{name:?} is no header name"))?;
            if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("grpc-") {
                return Err(format!("header {name} is not for setting"));
            }
            // Its value may be a secret: it is neither shown here nor in logs.
            let mut value = HeaderValue::from_str(value.trim())
                .map_err(|_malformed| format!("the value of header {name} is malformed"))?;
            value.set_sensitive(true);
            Ok((name, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use lexopt::Arg;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, lexopt::Error> {
        let mut settings = Settings::default();
        let mut parser = Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            let Arg::Long(name) = argument else {
                return Err(argument.unexpected());
            };
            let name = name.to_owned();
            if !settings.argument(&name, &mut parser)? {
                return Err(format!("--{name}?").into());
            }
        }
        settings.check()?;
        Ok(settings)
    }

    #[test]
    fn everything_can_be_said() {
        let settings = parse(&[
            "--remote-store-address=parca:7070",
            "--remote-store-insecure=false",
            "--remote-store-insecure-skip-verify",
            "--remote-store-ca-file=/ca",
            "--remote-store-client-cert=/c",
            "--remote-store-client-key=/k",
            "--remote-store-bearer-token-file=/t",
            "--remote-store-grpc-headers=X-Scope=a=b; y=2",
            "--remote-store-rpc-logging-enable",
            "--remote-store-rpc-unary-timeout=1m30s",
            "--remote-store-grpc-connection-timeout=5s",
            "--remote-store-grpc-max-call-send-msg-size=7",
            "--remote-store-grpc-max-call-recv-msg-size=8",
        ])
        .unwrap();
        assert_eq!(settings.address.unwrap().to_string(), "parca:7070");
        assert!(!settings.insecure && settings.insecure_skip_verify && settings.rpc_logging);
        assert_eq!(settings.unary_timeout, Duration::from_secs(90));
        assert_eq!(
            (settings.max_send_bytes, settings.max_receive_bytes),
            (7, 8)
        );
        let headers: Vec<_> = settings
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(headers, [("x-scope", "a=b"), ("y", "2")]);
    }

    #[test]
    fn nonsense_is_named() {
        for bad in [
            &["--remote-store-address=http://x"][..],
            &["--remote-store-insecure=maybe"],
            &["--remote-store-rpc-unary-timeout=0s"],
            &["--remote-store-grpc-headers=authorization=x"],
            &["--remote-store-grpc-headers=a b=x"],
            &["--remote-store-client-cert=/c"],
            &["--remote-store-insecure", "--remote-store-ca-file=/ca"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut settings = parse(&["--remote-store-grpc-headers=x=hush"]).unwrap();
        settings.take_token(Some("hush".into())).unwrap();
        assert!(!format!("{settings:?}").contains("hush"));
        settings.take_token(Some(" \n".into())).unwrap();
        assert!(settings.bearer_token.is_none());
    }
}
