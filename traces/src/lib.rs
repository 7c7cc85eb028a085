//! Traces of Leadsman's own work, for processes that reach the network: windows, uploads, calls to the store. Spans are made
//! with the `opentelemetry` API wherever the work is; without [`prepare`] they cost next to nothing and go nowhere.
#![forbid(unsafe_code)]

mod exporter;
mod lines;
mod queue;
mod sender;
mod settings;
mod work;

pub use sender::{Prepared, SetupError, Traces, prepare};
pub use settings::{Settings, Way};
pub use work::Work;
