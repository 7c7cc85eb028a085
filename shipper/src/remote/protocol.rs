//! How parcels are said in a store's own words. One implementation for each kind of store.

pub mod otlp;
pub mod parca;
pub mod pyroscope;

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use remote_store::{CallError, RemoteStore};
use tonic::Code;

use super::parcel::Parcel;

/// Answer of a store, later.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), CallError>> + 'a>>;

/// A kind of store.
pub trait Protocol: fmt::Debug + Send + Sync {
    /// Sends the parcels as one request, once, within `limit`.
    fn send<'a>(
        &'a self,
        store: &'a RemoteStore,
        parcels: &'a [Arc<Parcel>],
        limit: Duration,
    ) -> Sending<'a>;
}

/// `--remote-store-protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A Parca server.
    #[default]
    Parca,
    /// Whatever takes OTLP profiles.
    Otlp,
    /// A Pyroscope server.
    Pyroscope,
}

impl Kind {
    /// The implementation.
    #[must_use]
    pub fn protocol(self) -> Box<dyn Protocol> {
        match self {
            Self::Parca => Box::new(parca::Parca::default()),
            Self::Otlp => Box::new(otlp::Otlp::default()),
            Self::Pyroscope => Box::new(pyroscope::Pyroscope::default()),
        }
    }

    /// Whether the store itself names native functions, from debug information that it is given.
    #[must_use]
    pub fn symbolizes(self) -> bool {
        self == Self::Parca
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "parca" => Ok(Self::Parca),
            "otlp" => Ok(Self::Otlp),
            "pyroscope" => Ok(Self::Pyroscope),
            _ => Err(format!("{text:?} is none of parca, otlp, pyroscope")),
        }
    }
}

/// Whether the store takes compressed messages: tried, and left when it says that it knows no such thing. One compressed
/// message is smaller than many compressed profiles, whose tables repeat each other. Whoever sends compressed must accept such
/// answers: grpc-go gives them unasked, and to take one for a refusal would be to send everything twice.
#[derive(Debug)]
struct Compression(AtomicBool);

impl Default for Compression {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Compression {
    fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether the same is to be sent again, not compressed: the store does not know the encoding, or not the call.
    fn refused(&self, answer: &Result<(), CallError>) -> bool {
        let refused = matches!(answer, Err(error) if error.code() == Code::Unimplemented);
        refused && self.0.swap(false, Ordering::Relaxed)
    }
}
