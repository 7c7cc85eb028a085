//! The shipper, which watches the configuration file, to every other process: what changes while they run.

use crate::{messages, wire_struct};

messages! {
    /// What the shipper says.
    pub enum SettingsMessage {
        /// Replaces the last one; the first comes with the link.
        Settings(Settings) = 1,
    }
}

wire_struct! {
    /// Settings at run time.
    pub struct Settings {
        /// Samples a second and CPU; 0: as the sampler was told at its start.
        pub frequency: u32,
        /// How much a process logs: 1 errors, 2 warnings too, 3 what happened, 4 and why; 0: as it was told at its start.
        pub log_level: u8,
    }
}

/// Most samples a second and CPU.
pub const MAX_FREQUENCY: u32 = 1000;
