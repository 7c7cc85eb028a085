//! The server that a suite asks: the stand-in, unless LEADSMAN_PARCA_ADDRESS names another one.

use anyhow::{Result, bail};

use super::client::Client;
use super::stand_in::{Options, StandIn};

/// Which server.
#[derive(Debug)]
pub enum Server {
    StandIn(Box<StandIn>),
    /// Somebody's, which may hold other data.
    Other(String),
}

impl Server {
    /// The one that the environment asks for.
    pub fn under_test() -> Result<Self> {
        match std::env::var("LEADSMAN_PARCA_ADDRESS") {
            Err(_) => Ok(Self::StandIn(Box::new(StandIn::start(Options::default())?))),
            Ok(address) if address.contains(':') => Ok(Self::Other(address)),
            Ok(address) => bail!("LEADSMAN_PARCA_ADDRESS={address} is no HOST:PORT"),
        }
    }

    /// HOST:PORT.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::StandIn(server) => server.address.to_string(),
            Self::Other(address) => address.clone(),
        }
    }

    /// The stand-in, where it is one.
    #[must_use]
    pub fn stand_in(&self) -> Option<&StandIn> {
        match self {
            Self::StandIn(server) => Some(server),
            Self::Other(_) => None,
        }
    }

    /// A client of its questions.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.address())
    }
}
