//! `--remote-store-*` of `leadsman up`: which process is told which of them. The token goes by the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::error::Failure;
use crate::store_directory;
use crate::users::User;

/// Environment variable that holds the bearer token, for us and for those we start.
pub(crate) const TOKEN_VARIABLE: &str = "PARCA_BEARER_TOKEN";

/// The remote store's settings, as those who use them read them.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Remote store")]
pub(crate) struct RemoteOptions {
    /// Send profiles to this store
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    remote_store_address: Option<String>,
    /// What the store understands: parca, otlp or pyroscope
    #[arg(long, value_name = "PROTOCOL", default_value = "parca", value_parser = ["parca", "otlp", "pyroscope"])]
    remote_store_protocol: String,
    /// Bearer token; seen by whoever sees command lines, so better use the file
    #[arg(long, value_name = "TOKEN", env = TOKEN_VARIABLE, hide_env_values = true)]
    remote_store_bearer_token: Option<String>,
    /// Bearer token: a file, read again when it changes
    #[arg(long, value_name = "FILE")]
    remote_store_bearer_token_file: Option<PathBuf>,
    /// No TLS
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    remote_store_insecure: bool,
    /// TLS with whoever answers
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    remote_store_insecure_skip_verify: bool,
    /// Trust these certificate authorities (PEM) instead of the system's
    #[arg(long, value_name = "FILE")]
    remote_store_ca_file: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "remote_store_client_key")]
    remote_store_client_cert: Option<PathBuf>,
    /// Client certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "remote_store_client_cert")]
    remote_store_client_key: Option<PathBuf>,
    /// Headers of every call: NAME=VALUE;...
    #[arg(long, value_name = "NAME=VALUE;...")]
    remote_store_grpc_headers: Option<String>,
    /// Log every call
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    remote_store_rpc_logging_enable: bool,
    /// Longest that a call may take with all its retries
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    remote_store_rpc_unary_timeout: String,
    /// Send profiles so often
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    remote_store_batch_write_interval: String,
    /// Send names of native functions, too, which Parca finds itself from uploaded debug information
    #[arg(long, value_name = "BOOL", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    remote_store_symbolize: Option<bool>,
    /// Keep here what can't be sent yet
    #[arg(long, value_name = "DIR", default_value = "/var/lib/leadsman/spool")]
    remote_store_spool_directory: PathBuf,
    /// Drop the oldest of it beyond this many bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    remote_store_spool_max_bytes: u64,
    /// Drop what is older than this
    #[arg(long, value_name = "DURATION", default_value = "2d", value_parser = duration)]
    remote_store_spool_max_age: String,
}

/// What the processes that reach the store are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemoteArguments {
    /// Those of everyone who reaches it; empty without a store.
    pub(crate) shared: Vec<OsString>,
    /// The shipper's.
    pub(crate) shipper: Vec<OsString>,
    /// The bearer token.
    pub(crate) token: Option<OsString>,
}

impl RemoteArguments {
    /// Whether there is a store.
    pub(crate) fn is_configured(&self) -> bool {
        !self.shared.is_empty()
    }
}

impl RemoteOptions {
    /// Makes the spool as the shipper's own directory, where there is a store.
    ///
    /// # Errors
    /// One line with the path.
    pub(crate) fn prepare(&self, shipper: Option<User>) -> Result<(), Failure> {
        match (&self.remote_store_address, shipper) {
            (Some(_), Some(shipper)) => {
                let option = "--remote-store-spool-directory";
                let directory = &self.remote_store_spool_directory;
                store_directory::prepare(directory, shipper, option).map(|_path| ())
            }
            _ => Ok(()),
        }
    }

    /// Who is told what; nothing without an address.
    pub(crate) fn arguments(&self) -> RemoteArguments {
        let Some(address) = &self.remote_store_address else {
            return RemoteArguments::default();
        };
        let mut shared = Vec::new();
        option(&mut shared, "address", address);
        for (name, on) in [
            ("insecure", self.remote_store_insecure),
            (
                "insecure-skip-verify",
                self.remote_store_insecure_skip_verify,
            ),
            ("rpc-logging-enable", self.remote_store_rpc_logging_enable),
        ] {
            option(&mut shared, name, if on { "true" } else { "false" });
        }
        for (name, path) in [
            ("bearer-token-file", &self.remote_store_bearer_token_file),
            ("ca-file", &self.remote_store_ca_file),
            ("client-cert", &self.remote_store_client_cert),
            ("client-key", &self.remote_store_client_key),
        ] {
            if let Some(path) = path {
                option(&mut shared, name, absolute(path));
            }
        }
        if let Some(headers) = &self.remote_store_grpc_headers {
            option(&mut shared, "grpc-headers", headers);
        }
        let timeout = &self.remote_store_rpc_unary_timeout;
        option(&mut shared, "rpc-unary-timeout", timeout);
        let mut shipper = Vec::new();
        option(&mut shipper, "protocol", &self.remote_store_protocol);
        let interval = &self.remote_store_batch_write_interval;
        option(&mut shipper, "batch-write-interval", interval);
        if let Some(symbolize) = self.remote_store_symbolize {
            option(&mut shipper, "symbolize", symbolize.to_string());
        }
        option(
            &mut shipper,
            "spool-directory",
            absolute(&self.remote_store_spool_directory),
        );
        let bytes = self.remote_store_spool_max_bytes.to_string();
        option(&mut shipper, "spool-max-bytes", bytes);
        option(
            &mut shipper,
            "spool-max-age",
            &self.remote_store_spool_max_age,
        );
        RemoteArguments {
            shared,
            shipper,
            token: self.remote_store_bearer_token.as_ref().map(OsString::from),
        }
    }
}

/// Processes start in another directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_no_directory| path.to_owned())
}

fn option(arguments: &mut Vec<OsString>, name: &str, value: impl Into<OsString>) {
    let mut argument = OsString::from(format!("--remote-store-{name}="));
    argument.push(value.into());
    arguments.push(argument);
}

fn address(text: &str) -> Result<String, String> {
    if text.contains("://") && !text.starts_with("dns:///") {
        return Err(format!(
            "{text:?} is a URL: say HOST:PORT, and --remote-store-insecure where there is no TLS"
        ));
    }
    Ok(text.to_owned())
}

fn duration(text: &str) -> Result<String, String> {
    ipc_endpoint::duration::parse_positive(text).map(|_sound| text.to_owned())
}
