//! The opener's arguments.

use std::ffi::OsString;

use ipc_endpoint::arguments::Common;
use lexopt::ValueExt;

use crate::debug_directories::DebugDirectories;

/// What the opener is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments {
    /// What every process is told.
    pub(crate) common: Common,
    /// `--debuginfo-directories DIR,...`: where separate debug files are looked for.
    pub(crate) debug_directories: DebugDirectories,
}

impl Arguments {
    /// Parses the command line.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, lexopt::Error> {
        let mut directories = DebugDirectories::default();
        let common = Common::parse(arguments, |name, parser| {
            let known = name == "debuginfo-directories";
            if known {
                directories = parser.value()?.parse_with(str::parse)?;
            }
            Ok(known)
        })?;
        Ok(Self {
            common,
            debug_directories: directories,
        })
    }
}
