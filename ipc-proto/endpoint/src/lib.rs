//! How a Leadsman process becomes an end of a channel: sockets, fd passing, arguments, logs, statistics, rights.
//!
//! I/O of the protocol lives here, once for all processes; what the messages say lives in `ipc_proto`.
#![deny(unsafe_code)]

pub mod arguments;
pub mod clock;
pub mod confine;
pub mod connect;
pub mod crash;
pub mod duration;
pub mod histogram;
pub mod inherited;
pub mod link;
pub mod listener;
pub mod lockdown;
pub mod logger;
pub mod memfd;
mod peer_uid;
pub mod peers;
pub mod rights;
pub mod service_manager;
pub mod settings;
pub mod signals;
pub mod statistics;
