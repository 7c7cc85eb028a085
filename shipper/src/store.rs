//! The local store: one directory of finished profiles, retained by bytes and age. Owns the files it names; never opens
//! another path than the directory it was given, never leaves a half written profile under a finished name.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;
use thiserror::Error;

use crate::file_name::{WindowStart, is_temporary};
use crate::whole_file;

/// How much the store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of all profiles together; the newest is kept even when it alone is larger.
    pub max_bytes: u64,
    /// Age of a profile's start, milliseconds.
    pub max_age_millis: u64,
}

/// Why the directory can't be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It can't be made or opened.
    #[error(
        "cannot open the store directory {path}: {error}; name one that this user may write with {option}",
        path = path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// The argument that names it.
        option: &'static str,
        /// The kernel's answer.
        error: Errno,
    },
    /// It can't be listed.
    #[error("cannot list the store directory {path}: {error}", path = path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        error: Errno,
    },
}

/// Why a profile was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// No space, inodes or quota left.
    #[error("the disk is full ({0})")]
    Full(Errno),
    /// Anything else: read-only, gone, an I/O error.
    #[error("{0}")]
    Unwritable(Errno),
}

impl StoreError {
    /// Name of the drop cause in metrics.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Full(_) => "store_full",
            Self::Unwritable(_) => "store_unwritable",
        }
    }
}

impl From<Errno> for StoreError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOSPC | Errno::DQUOT => Self::Full(error),
            _ => Self::Unwritable(error),
        }
    }
}

/// The open store.
#[derive(Debug)]
pub struct LocalStore {
    directory: OwnedFd,
    path: PathBuf,
    retention: Retention,
    /// Finished profiles and their sizes, oldest first.
    profiles: BTreeMap<WindowStart, u64>,
    bytes: u64,
    removed: u64,
}

impl LocalStore {
    /// Opens the directory, making it when it is not there, removes what a killed run left half written and learns
    /// which profiles there are. Their age is judged with the next [`Self::write`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, retention: Retention) -> Result<Self, OpenError> {
        let directory =
            whole_file::open_directory(path, 0o755).map_err(|error| OpenError::Open {
                path: path.to_owned(),
                option: "--local-store-directory",
                error,
            })?;
        let mut store = Self {
            directory,
            path: path.to_owned(),
            retention,
            profiles: BTreeMap::new(),
            bytes: 0,
            removed: 0,
        };
        store.list().map_err(|error| OpenError::List {
            path: path.to_owned(),
            error,
        })?;
        Ok(store)
    }

    fn list(&mut self) -> Result<(), Errno> {
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if is_temporary(name) {
                rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?;
                continue;
            }
            let Some(start) = WindowStart::from_file_name(name) else {
                continue;
            };
            let status = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(status.st_mode) == FileType::RegularFile {
                self.add(start, status.st_size as u64);
            }
        }
        Ok(())
    }

    /// Writes a profile under its finished name: all of it or nothing, durable when this returns. A profile of the same
    /// start is replaced. Then removes the oldest ones beyond the retention, judged at `now_millis` (since 1970 UTC).
    ///
    /// # Errors
    /// [`StoreError`]; nothing is left behind.
    pub fn write(
        &mut self,
        start: WindowStart,
        profile: &[u8],
        now_millis: u64,
    ) -> Result<(), StoreError> {
        self.retain(profile.len() as u64, now_millis);
        let (temporary, name) = (start.temporary_name(), start.file_name());
        whole_file::write(&self.directory, &temporary, &name, profile, 0o644)?;
        self.add(start, profile.len() as u64);
        Ok(())
    }

    /// Removes the oldest profiles until `incoming` more bytes fit and all are young enough.
    fn retain(&mut self, incoming: u64, now_millis: u64) {
        let oldest_allowed = now_millis.saturating_sub(self.retention.max_age_millis);
        while let Some((&start, &bytes)) = self.profiles.first_key_value() {
            let fits = self.bytes.saturating_add(incoming) <= self.retention.max_bytes;
            if fits && start.millis() >= oldest_allowed {
                return;
            }
            let name = start.file_name();
            match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {
                    self.profiles.remove(&start);
                    self.bytes -= bytes;
                    self.removed += 1;
                }
                // The next write tries again.
                Err(_) => return,
            }
        }
    }

    fn add(&mut self, start: WindowStart, bytes: u64) {
        let replaced = self.profiles.insert(start, bytes).unwrap_or(0);
        self.bytes = self.bytes - replaced + bytes;
    }

    /// The directory, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Profiles kept.
    #[must_use]
    pub fn profiles(&self) -> usize {
        self.profiles.len()
    }

    /// Bytes of the profiles kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Profiles removed by retention since the start.
    #[must_use]
    pub fn removed(&self) -> u64 {
        self.removed
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const ALL: Retention = Retention {
        max_bytes: u64::MAX,
        max_age_millis: u64::MAX,
    };

    fn start(seconds: u64) -> WindowStart {
        WindowStart::from_nanos(seconds * 1_000_000_000)
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_profile_is_written_whole_and_read_only_for_others() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("store");
        let mut store = LocalStore::open(&path, ALL).unwrap();
        store.write(start(10), b"profile", 10_000).unwrap();
        assert_eq!(names(&path), [start(10).file_name()]);
        let file = path.join(start(10).file_name());
        assert_eq!(std::fs::read(&file).unwrap(), b"profile");
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o133, 0);
        // The same window again takes no second place.
        store.write(start(10), b"longer profile", 10_000).unwrap();
        assert_eq!((store.profiles(), store.bytes()), (1, 14));
    }

    #[test]
    fn a_new_start_removes_half_written_files_only() {
        let root = tempfile::tempdir().unwrap();
        let keep = ["other.pb.gz", "leadsman-notes.txt", ".hidden.tmp"];
        for name in keep {
            std::fs::write(root.path().join(name), b"x").unwrap();
        }
        std::fs::write(root.path().join(start(1).file_name()), b"12345").unwrap();
        std::fs::write(root.path().join(start(2).temporary_name()), b"123").unwrap();
        let store = LocalStore::open(root.path(), ALL).unwrap();
        assert_eq!((store.profiles(), store.bytes()), (1, 5));
        assert_eq!(names(root.path()).len(), 4);
        assert!(!root.path().join(start(2).temporary_name()).exists());
    }

    #[test]
    fn the_oldest_go_first_by_bytes() {
        let root = tempfile::tempdir().unwrap();
        let retention = Retention {
            max_bytes: 25,
            ..ALL
        };
        let mut store = LocalStore::open(root.path(), retention).unwrap();
        for second in 1..=4 {
            store.write(start(second), &[0; 10], 5_000).unwrap();
        }
        assert_eq!(
            names(root.path()),
            [start(3).file_name(), start(4).file_name()]
        );
        // Larger than the whole budget: kept alone.
        store.write(start(5), &[0; 100], 5_000).unwrap();
        assert_eq!(names(root.path()), [start(5).file_name()]);
        assert_eq!((store.bytes(), store.removed()), (100, 4));
    }

    #[test]
    fn the_oldest_go_first_by_age_also_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let retention = Retention {
            max_age_millis: 2_000,
            ..ALL
        };
        let mut store = LocalStore::open(root.path(), ALL).unwrap();
        for second in 1..=3 {
            store.write(start(second), b"x", second * 1000).unwrap();
        }
        drop(store);
        let mut store = LocalStore::open(root.path(), retention).unwrap();
        store.write(start(4), b"x", 4_500).unwrap();
        assert_eq!(
            names(root.path()),
            [start(3).file_name(), start(4).file_name()]
        );
    }

    #[test]
    fn a_directory_that_went_away_is_an_error_each_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("store");
        let mut store = LocalStore::open(&path, ALL).unwrap();
        std::fs::remove_dir(&path).unwrap();
        for _ in 0..2 {
            let error = store.write(start(1), b"x", 1_000).unwrap_err();
            assert_eq!(error.cause(), "store_unwritable");
        }
        assert_eq!(StoreError::from(Errno::NOSPC).cause(), "store_full");
        assert_eq!(store.profiles(), 0);
    }

    #[test]
    fn a_path_that_is_no_directory_is_refused_with_its_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, b"").unwrap();
        let error = LocalStore::open(&path, ALL).unwrap_err().to_string();
        assert!(
            error.contains("file") && error.contains("--local-store-directory"),
            "{error}"
        );
    }
}
