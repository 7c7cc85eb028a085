//! The way to the remote store: profiles by label set, the spool, when to send what.

pub mod engine;
mod links;
pub mod parcel;
pub mod protocol;
pub mod runtime;
pub mod series;
pub mod spool;

use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Parser, ValueExt};
use remote_store::{RemoteStore, Settings};

use engine::Engine;
use protocol::Kind;
use runtime::Prepared;
use series::Style;
use spool::{Limits, Spool};

/// Bytes of a request before compression: gRPC servers take four mebibytes when nobody told them otherwise.
const REQUEST_BYTES: usize = (4 << 20) - (64 << 10);
/// Spooled by default: a day of a busy machine.
const DEFAULT_SPOOL_BYTES: u64 = 1 << 30;
const DEFAULT_SPOOL_AGE: Duration = Duration::from_secs(48 * 3600);

/// What the shipper is told of the remote store.
#[derive(Clone, Debug)]
pub struct RemoteArguments {
    /// How to reach it.
    pub settings: Settings,
    /// `--remote-store-protocol parca|otlp|pyroscope`.
    pub protocol: Kind,
    /// `--remote-store-symbolize`: send names of native functions; by default where the store has no way to find them.
    pub symbolize: Option<bool>,
    /// `--remote-store-batch-write-interval`.
    pub interval: Duration,
    /// `--remote-store-spool-directory`.
    pub spool_directory: Option<PathBuf>,
    /// `--remote-store-spool-max-bytes`.
    pub spool_max_bytes: u64,
    /// `--remote-store-spool-max-age`.
    pub spool_max_age: Duration,
}

impl Default for RemoteArguments {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            protocol: Kind::default(),
            symbolize: None,
            interval: Duration::from_secs(10),
            spool_directory: None,
            spool_max_bytes: DEFAULT_SPOOL_BYTES,
            spool_max_age: DEFAULT_SPOOL_AGE,
        }
    }
}

impl RemoteArguments {
    /// Takes the argument `--NAME` with its value from the parser, if it is one of these; whether it was.
    ///
    /// # Errors
    /// One line on what is wrong with the value.
    pub fn argument(&mut self, name: &str, parser: &mut Parser) -> Result<bool, lexopt::Error> {
        let duration = ipc_endpoint::duration::parse_positive;
        match name {
            "remote-store-protocol" => self.protocol = parser.value()?.parse()?,
            "remote-store-symbolize" => {
                self.symbolize = Some(remote_store::settings::boolean(parser)?);
            }
            "remote-store-batch-write-interval" => {
                self.interval = parser.value()?.parse_with(duration)?;
            }
            "remote-store-spool-directory" => self.spool_directory = Some(parser.value()?.into()),
            "remote-store-spool-max-bytes" => self.spool_max_bytes = parser.value()?.parse()?,
            "remote-store-spool-max-age" => {
                self.spool_max_age = parser.value()?.parse_with(duration)?;
            }
            _ => return self.settings.argument(name, parser),
        }
        Ok(true)
    }

    /// Makes what the thread needs: opens files, so call it before the lockdown. `None` without an address.
    ///
    /// # Errors
    /// One line on what is missing.
    pub fn prepare(&self) -> Result<Option<Prepared>, Box<dyn std::error::Error>> {
        if self.settings.address.is_none() {
            return Ok(None);
        }
        let directory = self.spool_directory.as_ref().ok_or(
            "--remote-store-spool-directory is missing: name where to keep what can't be sent",
        )?;
        let limits = Limits {
            max_bytes: self.spool_max_bytes,
            max_age: u64::try_from(self.spool_max_age.as_nanos()).unwrap_or(u64::MAX),
        };
        let spool = Spool::open(directory, limits)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(2)
            .build()?;
        let store = {
            let _inside = runtime.enter();
            RemoteStore::new(&self.settings)?
        };
        let request_bytes = REQUEST_BYTES.min(self.settings.max_send_bytes);
        let symbolize = self.symbolize.unwrap_or(!self.protocol.symbolizes());
        Ok(Some(Prepared {
            store,
            protocol: self.protocol.protocol(),
            engine: Engine::new(self.interval, request_bytes, &spool),
            spool,
            style: Style { symbolize },
            runtime,
        }))
    }
}
