//! Leadsman's settings. One [`table`] says what there is; from it follow the flags, the environment variables, the YAML
//! file, `--help`, the documentation, and which process is told what. Reads what it is handed; applies nothing.
#![forbid(unsafe_code)]

pub mod document;
pub mod environment;
pub mod flags;
mod kind;
mod node;
pub mod render;
mod rules;
pub mod settings;
mod suggest;
pub mod table;
pub mod watch;

pub use document::{Document, Problem};
pub use kind::{Kind, pairs};
pub use node::Place;
pub use settings::{Origin, Settings};
pub use table::{Group, SETTINGS, Setting, Use, find};

/// What a fuzzer feeds: any text is a document or a list of problems, never a panic.
pub fn fuzz(text: &str) {
    let _read = Document::read(text);
}
