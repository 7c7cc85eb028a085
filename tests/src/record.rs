//! Runs `leadsman record`. Knows its command line and that its file is a pprof; the numbers are the tests' matter.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::binaries;
use crate::process::{Output, run};
use crate::profile::Profile;

/// Longest that a recording of a few seconds may take in all, start and symbolization included.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// `leadsman record ARGUMENTS`, whatever comes of it.
pub fn record(arguments: &[impl AsRef<OsStr>]) -> Result<Output> {
    run(
        Command::new(binaries::leadsman()?)
            .arg("record")
            .args(arguments),
        DEADLINE,
    )
}

/// A recording that worked.
#[derive(Debug)]
pub struct Recording {
    pub profile: Profile,
    pub output: Output,
    /// Holds the file while the value lives.
    pub directory: tempfile::TempDir,
}

impl Recording {
    /// The profile's file.
    #[must_use]
    pub fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("profile.pb.gz")
    }
}

/// `leadsman record -o FILE ARGUMENTS`, read back. Exit codes other than 0 are an error that shows what it said.
pub fn record_profile(arguments: &[impl AsRef<OsStr>]) -> Result<Recording> {
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let file = directory.path().join("profile.pb.gz");
    let mut command = Command::new(binaries::leadsman()?);
    command.arg("record").arg("-o").arg(&file).args(arguments);
    let output = run(&mut command, DEADLINE)?;
    ensure!(
        output.code() == Some(0),
        "{command:?} ended with {}: {}",
        output.status,
        output.stderr
    );
    let profile = Profile::read(&file)?;
    Ok(Recording {
        profile,
        output,
        directory,
    })
}
