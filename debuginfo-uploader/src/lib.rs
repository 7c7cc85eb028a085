//! What the debuginfo-uploader does with a file: says what its addresses can be named by, writes what that takes into a
//! file of its own, and checks the result against the original. It works on descriptors it was handed.

#![forbid(unsafe_code)]

mod check;
mod contents;
mod extract;
mod fault;
pub mod fuzz;
mod headers;
pub mod prepare;

pub use check::Checked;
pub use contents::Symbols;
pub use fault::Fault;
