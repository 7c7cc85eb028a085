//! The way to a remote store: its settings, the channel to it (TLS, token, headers, keep-alive), calls with retries under one
//! time limit, what became of them, and their spans. What is sent, and what happens to it when it can't be sent, is the caller's.
#![forbid(unsafe_code)]

pub mod address;
mod attempts;
mod connector;
mod credentials;
pub mod generated;
mod headers;
mod metrics;
pub mod settings;
mod span;
mod store;
mod tls;
pub mod verdict;
mod watched;

pub use address::Address;
pub use credentials::Secret;
pub use headers::Wire;
pub use metrics::CallMetrics;
pub use settings::Settings;
pub use store::{CallError, RemoteStore, SetupError};
pub use tls::{TlsError, https};
pub use verdict::Verdict;
