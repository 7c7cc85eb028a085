//! The local store's directory, read-only: lists its windows, reads their files. Holds the directory itself, so that nothing
//! outside it can be named; never follows a link, never writes.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::windows::WindowId;

/// Bytes of a window's file; the shipper writes a few hundred KiB for a busy large machine.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// A directory's time stamps move in steps of the kernel's tick: a change this recent may not be the last with its stamp.
const SETTLED: Duration = Duration::from_millis(100);
/// Entries looked at in one listing.
const MAX_ENTRIES: usize = 200_000;

/// What went wrong with the store.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// The directory can't be opened.
    #[error(
        "cannot open the store directory {path}: {error}; create it or name another one with --local-store-directory"
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: Errno,
    },
    /// The directory can't be listed.
    #[error("cannot list the store directory: {0}")]
    List(Errno),
    /// A window's file can't be opened or read.
    #[error("{name}: {error}")]
    Read {
        /// The file.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// A window's file is no regular file or too large.
    #[error("{name}: not a regular file of at most {MAX_FILE} bytes")]
    Unfit {
        /// The file.
        name: String,
    },
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    directory: OwnedFd,
    /// When the directory last changed since 1970 UTC, as of the last listing.
    changed: Option<Duration>,
}

impl Store {
    /// Opens the directory.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| StoreError::Open {
                path: path.to_owned(),
                error,
            })?;
        Ok(Self {
            directory,
            changed: None,
        })
    }

    /// The windows present with their files' bytes, if the directory changed since the last call. `now`: since 1970 UTC.
    ///
    /// # Errors
    /// [`StoreError::List`]; the next call tries again.
    pub(crate) fn list_if_changed(
        &mut self,
        now: Duration,
    ) -> Result<Option<Vec<(WindowId, u64)>>, StoreError> {
        let stat = rustix::fs::fstat(&self.directory).map_err(StoreError::List)?;
        let changed = Duration::new(
            u64::try_from(stat.st_mtime).unwrap_or_default(),
            u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        );
        if self.changed == Some(changed) {
            return Ok(None);
        }
        let windows = self.list()?;
        self.changed = (now.saturating_sub(changed) > SETTLED).then_some(changed);
        Ok(Some(windows))
    }

    fn list(&self) -> Result<Vec<(WindowId, u64)>, StoreError> {
        let mut windows = Vec::new();
        let entries = Dir::read_from(&self.directory).map_err(StoreError::List)?;
        for entry in entries.take(MAX_ENTRIES) {
            let entry = entry.map_err(StoreError::List)?;
            let Some(id) = entry
                .file_name()
                .to_str()
                .ok()
                .and_then(WindowId::from_file_name)
            else {
                continue;
            };
            // Gone between listing and looking: retired by the shipper.
            let Ok(stat) = rustix::fs::statat(
                &self.directory,
                entry.file_name(),
                AtFlags::SYMLINK_NOFOLLOW,
            ) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                windows.push((id, u64::try_from(stat.st_size).unwrap_or_default()));
            }
        }
        Ok(windows)
    }

    /// A window's file.
    ///
    /// # Errors
    /// [`StoreError::Read`] or [`StoreError::Unfit`].
    pub(crate) fn read(&self, id: WindowId) -> Result<Vec<u8>, StoreError> {
        let name = id.file_name();
        let failed = |error: io::Error| StoreError::Read {
            name: name.clone(),
            error,
        };
        // Non-blocking: a FIFO by that name must not hold up everyone.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name.as_str(), flags, Mode::empty())
            .map_err(|error| failed(error.into()))?;
        let stat = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
        let length = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || length > MAX_FILE {
            return Err(StoreError::Unfit { name });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        File::from(file)
            .take(MAX_FILE)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_windows_are_listed_and_read_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(directory.path().join(name), bytes).expect("written");
        };
        let mut store = Store::open(directory.path()).expect("a store");
        let later = Duration::from_secs(1 << 40);
        assert_eq!(
            store.list_if_changed(Duration::ZERO).expect("listed"),
            Some(vec![])
        );
        write("leadsman-20261124T124500.000Z.pb.gz", b"one");
        write(".leadsman-20261124T124510.000Z.pb.gz", b"being written");
        write("other", b"");
        std::os::unix::fs::symlink(
            "/etc/passwd",
            directory.path().join("leadsman-20261124T124520.000Z.pb.gz"),
        )
        .expect("linked");
        std::fs::create_dir(directory.path().join("leadsman-20261124T124530.000Z.pb.gz"))
            .expect("made");
        let windows = store
            .list_if_changed(later)
            .expect("listed")
            .expect("changed");
        assert_eq!(
            windows.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(),
            [3]
        );
        assert_eq!(store.list_if_changed(later).expect("listed"), None);
        assert_eq!(store.read(windows[0].0).expect("read"), b"one");
        let id = |text| WindowId::parse(text).expect("an id");
        let linked = store.read(id("20261124T124520.000Z")).expect_err("a link");
        assert!(matches!(linked, StoreError::Read { .. }), "{linked}");
        let directory = store
            .read(id("20261124T124530.000Z"))
            .expect_err("a directory");
        assert!(matches!(directory, StoreError::Unfit { .. }), "{directory}");
        let absent = store.read(id("20261124T124540.000Z")).expect_err("nothing");
        assert!(
            absent
                .to_string()
                .contains("leadsman-20261124T124540.000Z.pb.gz"),
            "{absent}"
        );
    }

    #[test]
    fn a_missing_directory_says_what_to_do() {
        let error = Store::open(Path::new("/nonexistent/store")).expect_err("nothing there");
        assert!(
            error.to_string().contains("--local-store-directory"),
            "{error}"
        );
    }
}
