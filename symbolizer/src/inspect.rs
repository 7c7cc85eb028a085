//! Owns the inspection commands: the symbolizer's own code on a file that the caller names, with nothing but the
//! caller's rights, and without those of root.

mod executable;
mod json;
mod symbolize;
mod unwind_table;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ipc_endpoint::lockdown::{self, Plan};

/// Why an inspection did not happen.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The command line is wrong.
    #[error(
        "{0}; usage: leadsman symbolize --exe FILE ADDRESS..., leadsman unwind-table FILE --format json"
    )]
    Usage(String),
    /// The command line is right, its file or addresses are not.
    #[error("{0}")]
    Failed(String),
}

impl From<lexopt::Error> for InspectError {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Gives up all rights but that of reading what is open and what lies in these directories. Called before the first
/// foreign byte is looked at.
fn lock_down(read: Vec<PathBuf>) -> Result<(), InspectError> {
    let plan = Plan {
        read,
        ..Plan::default()
    };
    lockdown::parse_only(&plan)
        .map_err(|error| InspectError::Failed(format!("cannot give up rights: {error}")))
}

/// Opens a file for reading; a FIFO does not block.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Runs an inspection command: `symbolize`, `unwind-table` or `executable` and its arguments. Exit codes: 0, 1 failed, 2 usage.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let command = arguments.next().unwrap_or_default();
    let result = match command.to_str() {
        Some("symbolize") => symbolize::run(arguments),
        Some("unwind-table") => unwind_table::run(arguments),
        Some("executable") => executable::run(arguments),
        _ => Err(InspectError::Usage(format!(
            "there is no inspection {command:?}"
        ))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leadsman: {error}");
            match error {
                InspectError::Usage(_) => ExitCode::from(2),
                InspectError::Failed(_) => ExitCode::FAILURE,
            }
        }
    }
}
