//! Which executables made this process die: a mark in the cache directory while a file is parsed, removed after it. A
//! file whose mark was left behind four times is not parsed again for an hour. Never looks into files.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

/// Deaths while a file was parsed until it is held to be the cause: whoever kills us for another reason also kills us
/// while we parse something.
const DEATHS: u32 = 4;
/// Seconds that deaths are remembered.
const MEMORY: i64 = 3600;
const MARK: &str = "parsing-";
const SUSPECT: &str = "suspect-";

/// What is known of an executable's file: its build ID, or else device and inode, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey(String);

impl FileKey {
    /// The key of a build ID; of device and inode where there is none.
    pub(crate) fn new(build_id: &[u8], device: u64, inode: u64) -> Self {
        if build_id.is_empty() {
            return Self(format!("{device:x}-{inode:x}"));
        }
        Self(build_id.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The marks and what they tell.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    directory: Option<OwnedFd>,
    deaths: HashMap<String, u32>,
    marked: HashSet<String>,
}

impl Quarantine {
    /// Reads what the last runs left in `directory`; `now`: seconds since 1970 UTC.
    ///
    /// # Errors
    /// The directory can't be listed or written.
    pub(crate) fn open(directory: OwnedFd, now: i64) -> Result<Self, Errno> {
        let mut deaths = HashMap::new();
        let mut left = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if let Some(key) = name.strip_prefix(MARK) {
                left.push(key.to_owned());
                rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
            } else if let Some(key) = name.strip_prefix(SUSPECT) {
                let status = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if now.saturating_sub(status.st_mtime) > MEMORY {
                    rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
                } else {
                    deaths.insert(key.to_owned(), read_count(&directory, name));
                }
            }
        }
        for key in left {
            let count = deaths.entry(key.clone()).or_insert(0);
            *count = count.saturating_add(1);
            write(&directory, &format!("{SUSPECT}{key}"), &count.to_string())?;
        }
        Ok(Self {
            directory: Some(directory),
            deaths,
            marked: HashSet::new(),
        })
    }

    /// Whether the file must not be parsed.
    pub(crate) fn holds(&self, key: &FileKey) -> bool {
        self.deaths
            .get(&key.0)
            .is_some_and(|count| *count >= DEATHS)
    }

    /// Files that must not be parsed.
    pub(crate) fn len(&self) -> usize {
        self.deaths
            .values()
            .filter(|count| **count >= DEATHS)
            .count()
    }

    /// The file is parsed from now on.
    pub(crate) fn mark(&mut self, key: &FileKey) {
        if let Some(directory) = &self.directory {
            // Without a mark a death can't be traced to the file, nothing else is lost.
            let _untraced = write(directory, &format!("{MARK}{}", key.0), "");
            self.marked.insert(key.0.clone());
        }
    }

    /// The file was parsed.
    pub(crate) fn clear(&mut self, key: &FileKey) {
        if self.marked.remove(&key.0) {
            self.remove(&key.0);
        }
    }

    /// The process ends in order: nothing that it parses now killed it.
    pub(crate) fn clear_all(&mut self) {
        for key in std::mem::take(&mut self.marked) {
            self.remove(&key);
        }
    }

    fn remove(&self, key: &str) {
        if let Some(directory) = &self.directory {
            let _gone = rustix::fs::unlinkat(directory, format!("{MARK}{key}"), AtFlags::empty());
        }
    }
}

fn read_count(directory: &OwnedFd, name: &str) -> u32 {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut text = String::new();
    if let Ok(fd) = rustix::fs::openat(directory, name, flags, Mode::empty()) {
        let read = std::fs::File::from(fd).take(16).read_to_string(&mut text);
        if read.is_err() {
            return 0;
        }
    }
    text.trim().parse().unwrap_or(0)
}

fn write(directory: &OwnedFd, name: &str, text: &str) -> Result<(), Errno> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?;
    rustix::io::write(&fd, text.as_bytes()).map(|_written| ())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn now() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        since.as_secs() as i64
    }

    fn open(path: &Path, now: i64) -> Quarantine {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = rustix::fs::open(path, flags, Mode::empty()).unwrap();
        Quarantine::open(directory, now).unwrap()
    }

    #[test]
    fn a_file_that_was_being_parsed_at_four_deaths_is_held() {
        let root = tempfile::tempdir().unwrap();
        let (bad, good) = (FileKey::new(&[0xba, 0xd0], 0, 0), FileKey::new(&[], 8, 17));
        for death in 1..=DEATHS {
            let mut quarantine = open(root.path(), now());
            assert!(!quarantine.holds(&bad), "after {} deaths", death - 1);
            quarantine.mark(&good);
            quarantine.clear(&good);
            quarantine.mark(&bad);
        }
        let quarantine = open(root.path(), now());
        assert!(quarantine.holds(&bad) && !quarantine.holds(&good));
        assert_eq!(quarantine.len(), 1);
        let later = open(root.path(), now() + MEMORY + 5);
        assert!(!later.holds(&bad), "forgotten after an hour");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_orderly_end_accuses_nobody() {
        let root = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            let mut quarantine = open(root.path(), now());
            let key = FileKey::new(&[1], 0, 0);
            quarantine.mark(&key);
            quarantine.clear_all();
            assert!(!quarantine.holds(&key));
        }
    }

    #[test]
    fn without_a_directory_nothing_is_held() {
        let mut quarantine = Quarantine::default();
        let key = FileKey::new(&[1], 0, 0);
        quarantine.mark(&key);
        quarantine.clear(&key);
        assert!(!quarantine.holds(&key));
    }
}
