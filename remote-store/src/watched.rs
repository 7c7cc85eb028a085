//! Files that somebody may replace while they are in use: whether they hold something else than what was read of them.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Pause between two looks at the files.
const PAUSE: Duration = Duration::from_secs(1);

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// What the files are like at one moment; `None` for one that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look(Vec<Option<Stamp>>);

/// The files that belong together, and what they were like when they were read last.
#[derive(Debug)]
pub(crate) struct Watched {
    files: Vec<PathBuf>,
    read: Look,
    looked: Instant,
    failing: bool,
}

impl Watched {
    /// To be made before the files are read: what changes meanwhile is a change.
    pub(crate) fn new(files: Vec<PathBuf>) -> Self {
        let read = look(&files);
        Self {
            files,
            read,
            looked: Instant::now(),
            failing: false,
        }
    }

    /// What the files are like now, if that is not what was read of them. Looks once a second at most.
    pub(crate) fn changed(&mut self) -> Option<Look> {
        if self.looked.elapsed() < PAUSE {
            return None;
        }
        self.looked = Instant::now();
        let now = look(&self.files);
        (now != self.read).then_some(now)
    }

    /// They were read again, after that look.
    pub(crate) fn taken(&mut self, look: Look) {
        (self.read, self.failing) = (look, false);
        for file in &self.files {
            log::info!("{} is read again", file.display());
        }
    }

    /// They can't be read: said once until they can.
    pub(crate) fn failed(&mut self, error: &dyn Display) {
        if !self.failing {
            log::warn!("{error}; what was read before stays in use");
        }
        self.failing = true;
    }

    /// The next question is not too early.
    #[cfg(test)]
    pub(crate) fn force_look(&mut self) {
        self.looked = Instant::now().checked_sub(PAUSE).unwrap_or(self.looked);
    }
}

fn look(files: &[PathBuf]) -> Look {
    Look(files.iter().map(|file| stamp(file)).collect())
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}
