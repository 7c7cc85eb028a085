//! A strict stand-in for a Parca server, written from the wire contracts and from what a real one was measured to do, and a
//! client for the questions of either. Must share no code with what it judges: not the shipper's, not the uploader's, and
//! not the crate `pprof`.

pub mod answer;
pub mod client;
pub mod executable;
pub mod gate;
pub mod ingest;
pub mod refusal;
pub mod selector;
pub mod server;
pub mod services;
pub mod signed;
pub mod stand_in;
pub mod store;
pub mod uploads;

pub use client::{CPU, Client};
pub use gate::Fault;
pub use server::Server;
pub use stand_in::{Options, StandIn};
