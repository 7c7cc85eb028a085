//! The pprof format: build a profile ([`Builder`]), write it ([`write_gzip`]), read anybody's ([`read()`]), look at its
//! stacks ([`Frames`]) and show them otherwise ([`Tree`], [`Summary`], [`folded`], [`speedscope`], [`svg`], [`text`]).
//!
//! Works on bytes and values: opens no file, knows no process and no clock.
#![forbid(unsafe_code)]

pub mod builder;
pub mod proto;
mod reader;
mod writer;

pub use builder::{Builder, FunctionId, Labels, Line, LocationId, Mapping, MappingId, Meta};
pub use proto::Profile;
pub use reader::{Limits, ReadError, read, read_within};
pub use writer::{encode, write_gzip, write_gzip_to};
