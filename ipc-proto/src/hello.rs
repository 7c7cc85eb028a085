//! The first message on every link, both ways.

use crate::{wire_enum, wire_struct};

wire_enum! {
    /// Which process speaks.
    pub enum Role {
        /// Holds the BPF programs.
        Sampler = 1 => "sampler",
        /// Opens executables of sampled processes.
        Opener = 2 => "opener",
        /// Parses executables.
        Symbolizer = 3 => "symbolizer",
        /// Sends debug information to the store.
        DebuginfoUploader = 4 => "debuginfo-uploader",
        /// Builds profiles and stores or sends them.
        Shipper = 5 => "shipper",
        /// Serves the page.
        Viewer = 6 => "viewer",
        /// The front command.
        Leadsman = 7 => "leadsman",
    }
}

/// Number of the hello message on every channel.
pub const HELLO: u16 = 0;

wire_struct! {
    /// Who speaks, in which version.
    pub struct Hello {
        /// [`PROTOCOL_VERSION`](crate::limits::PROTOCOL_VERSION).
        pub version: u32,
        /// The speaker's [`Role`].
        pub role: u8,
    }
}
