//! Leadsman's shipper as a library: what the process is made of, so that tests reach it.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod engine;
pub mod event_loop;
pub mod file_name;
pub mod fuzz;
pub mod labels;
mod metrics;
pub mod profile;
pub mod reload;
pub mod remote;
pub mod store;
mod whole_file;
mod window_span;
