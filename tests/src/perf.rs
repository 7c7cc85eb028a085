//! `perf record` as the other opinion: how many user samples it saw of each process. Knows nothing of Leadsman.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{Running, run_ok};
use crate::require_command;

/// A running `perf record` of the whole machine on cpu-clock.
#[derive(Debug)]
pub struct PerfRecording {
    running: Running,
    file: tempfile::NamedTempFile,
}

/// Samples with at least one user frame, by the thread's comm.
pub type UserSamples = BTreeMap<String, u64>;

impl PerfRecording {
    /// Starts recording at `rate` Hz for `seconds`.
    pub fn start(rate: u32, seconds: u32) -> Result<Self> {
        let file = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
        let running = Running::start(
            Command::new(require_command("perf")?)
                .args([
                    "record",
                    "--quiet",
                    "-a",
                    "-e",
                    "cpu-clock",
                    "-F",
                    &rate.to_string(),
                    "-g",
                    "-o",
                ])
                .arg(file.path())
                .args(["--", "sleep", &seconds.to_string()]),
        )?;
        Ok(Self { running, file })
    }

    /// Waits for the recording's end and counts.
    pub fn finish(self) -> Result<UserSamples> {
        self.running.wait(Duration::from_secs(60))?;
        read(self.file.path())
    }
}

fn read(file: &Path) -> Result<UserSamples> {
    let script = run_ok(
        Command::new(require_command("perf")?)
            .args(["script", "-F", "comm,ip", "-i"])
            .arg(file),
        Duration::from_secs(120),
    )?;
    Ok(count(&script.text()))
}

/// Counts in the text of `perf script -F comm,ip`: a line with the comm, then one indented address a line, leaf first, then
/// an empty line. User addresses have their top bit clear.
fn count(script: &str) -> UserSamples {
    let mut samples = UserSamples::new();
    for sample in script.split("\n\n") {
        let mut lines = sample.trim_start_matches('\n').lines();
        let Some(comm) = lines.next() else { continue };
        let is_user = lines.any(|line| {
            let address = line.trim();
            !address.is_empty() && (address.len() < 16 || address.as_bytes()[0] < b'8')
        });
        if is_user {
            *samples.entry(comm.trim().to_owned()).or_default() += 1;
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_samples_with_a_user_address_count() {
        let script = "swapper \n\tffffffff81a01234\n\tffffffff810ff1a0\n\nw-plain \n\t    55d0c0ffee11\n\t    7f0011223344\n\n\
                      cc1 \n\tffffffff810ff1a0\n\t    55d0c0ffee11\n\ncc1 \n\t55d0c0ffee11\n\nkworker/0:1 \n\tffffffff810ff1a0\n\n";
        let expected = [("cc1".to_owned(), 2), ("w-plain".to_owned(), 1)];
        assert_eq!(count(script), UserSamples::from(expected));
    }
}
