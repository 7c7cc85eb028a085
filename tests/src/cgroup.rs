//! cgroup2 directories named as container engines and systemd name theirs, and short programs in them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::run_ok;

/// A cgroup; it and its parents are removed with the value, as far as they are empty.
#[derive(Debug)]
pub struct Cgroup {
    root: PathBuf,
    directory: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup of that path.
    pub fn make(path: &str) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .and_then(|fields| fields.get(1).map(PathBuf::from))
            .context("no cgroup2 tree is mounted")?;
        let directory = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { root, directory })
    }

    /// Computes in it for that many seconds, as a shell whose name is `comm`; both are gone when this returns.
    pub fn compute(self, comm: &str, seconds: &str) -> Result<()> {
        let script = format!(
            "echo $$ > '{}/cgroup.procs' && printf '{comm}' > /proc/$$/comm && \
             end=$(($(date +%s%N) + {seconds}000000)) && \
             while i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; [ $(date +%s%N) -lt $end ]; do :; done",
            self.directory.display()
        );
        run_ok(
            Command::new("sh").args(["-c", &script]),
            Duration::from_secs(60),
        )?;
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let mut directory: &Path = &self.directory;
        while directory != self.root && std::fs::remove_dir(directory).is_ok() {
            match directory.parent() {
                Some(parent) => directory = parent,
                None => return,
            }
        }
    }
}
