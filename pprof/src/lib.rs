//! The pprof format: build a profile ([`Builder`]), write it ([`write_gzip`]), read anybody's ([`read()`]), look at its
//! stacks ([`Frames`]) and show them otherwise ([`Tree`], [`Summary`], [`folded`], [`speedscope`], [`svg`], [`text`],
//! [`json`]).
//!
//! Works on bytes and values: opens no file, knows no process and no clock.
#![forbid(unsafe_code)]

pub mod builder;
#[cfg(test)]
mod example;
pub mod folded;
pub mod frames;
pub mod json;
pub mod proto;
mod reader;
pub mod speedscope;
mod summary;
pub mod svg;
pub mod text;
mod tree;
mod units;
mod writer;

pub use builder::{Builder, FunctionId, Labels, Line, LocationId, Mapping, MappingId, Meta};
pub use frames::Frames;
pub use proto::Profile;
pub use reader::{Limits, ReadError, read, read_within};
pub use summary::{FunctionValue, NamedProcesses, ProcessValue, Summary};
pub use tree::{Grouping, Node, NodeName, Tree};
pub use writer::{encode, gzip, write_gzip, write_gzip_to};
