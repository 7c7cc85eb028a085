//! The spool: one directory with a file for each parcel that could not be sent yet, bounded in bytes and age. A file is there
//! whole or not at all; its name says which parcel it is and how many samples it holds, so that nothing need be read to
//! count them. Sends nothing.

pub mod record;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

use super::engine::Shelf;
use super::parcel::{Key, Parcel};
use crate::store::OpenError;
use crate::whole_file;
use record::RecordFault;

const PREFIX: &str = "leadsman-spool-";
const SUFFIX: &str = ".rec";
const TEMPORARY: &str = ".leadsman-spool.tmp";
/// Bytes of a record that is read back at most.
const MAX_RECORD: u64 = 80 << 20;

/// How much the spool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together.
    pub max_bytes: u64,
    /// Age of a window's start, nanoseconds.
    pub max_age: u64,
}

/// Why a parcel was not spooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SpoolError {
    /// The parcel alone is over the bound.
    #[error("it is larger than --remote-store-spool-max-bytes")]
    Bound,
    /// No space, inodes or quota left.
    #[error("the disk is full ({0})")]
    Full(Errno),
    /// Anything else: read-only, gone, an I/O error.
    #[error("{0}")]
    Unwritable(Errno),
}

impl SpoolError {
    /// Name of the drop cause in metrics.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Bound => "spool_bytes",
            Self::Full(_) => "spool_disk_full",
            Self::Unwritable(_) => "spool_unwritable",
        }
    }
}

/// Why a parcel can't be had back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// Its record is damaged.
    #[error(transparent)]
    Damaged(#[from] RecordFault),
    /// It can't be read.
    #[error("{0}")]
    Unreadable(Errno),
}

/// A file of the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Samples in it.
    pub samples: u64,
    /// Its size.
    pub bytes: u64,
}

/// A parcel given up, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Which.
    pub key: Key,
    /// Name of the cause in metrics.
    pub cause: &'static str,
    /// Its samples.
    pub samples: u64,
}

/// The open spool.
#[derive(Debug)]
pub struct Spool {
    directory: OwnedFd,
    path: PathBuf,
    limits: Limits,
    entries: BTreeMap<Key, Entry>,
    bytes: u64,
    torn: u64,
}

impl Spool {
    /// Opens the directory, making it when it is not there, removes what a killed run left half written and learns
    /// what there is.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, limits: Limits) -> Result<Self, OpenError> {
        let directory =
            whole_file::open_directory(path, 0o700).map_err(|error| OpenError::Open {
                path: path.to_owned(),
                option: "--remote-store-spool-directory",
                error,
            })?;
        let mut spool = Self {
            directory,
            path: path.to_owned(),
            limits,
            entries: BTreeMap::new(),
            bytes: 0,
            torn: 0,
        };
        spool.list().map_err(|error| OpenError::List {
            path: path.to_owned(),
            error,
        })?;
        Ok(spool)
    }

    fn list(&mut self) -> Result<(), Errno> {
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name == TEMPORARY {
                rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?;
                self.torn += 1;
                continue;
            }
            let Some((key, samples)) = parse_name(name) else {
                continue;
            };
            let status = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(status.st_mode) == FileType::RegularFile {
                let bytes = status.st_size as u64;
                self.entries.insert(key, Entry { samples, bytes });
                self.bytes += bytes;
            }
        }
        Ok(())
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Samples in all files.
    #[must_use]
    pub fn samples(&self) -> u64 {
        let counts = self.entries.values().map(|entry| entry.samples);
        counts.fold(0, u64::saturating_add)
    }

    /// Half-written files found at the start.
    #[must_use]
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// Writes a parcel: durable when this returns. A parcel of the same key is replaced. The oldest ones make room.
    fn try_append(
        &mut self,
        key: Key,
        parcel: &Parcel,
        dropped: &mut Vec<Dropped>,
    ) -> Result<(), SpoolError> {
        let record = record::encode(parcel).map_err(|_too_large| SpoolError::Bound)?;
        let bytes = record.len() as u64;
        if bytes > self.limits.max_bytes {
            return Err(SpoolError::Bound);
        }
        self.forget(key);
        while self.bytes.saturating_add(bytes) > self.limits.max_bytes {
            let Some((&oldest, entry)) = self.entries.first_key_value() else {
                break;
            };
            dropped.push(Dropped {
                key: oldest,
                cause: "spool_bytes",
                samples: entry.samples,
            });
            self.forget(oldest);
        }
        let samples = parcel.samples();
        let name = file_name(key, samples);
        let written = whole_file::write(&self.directory, TEMPORARY, &name, &record, 0o600);
        written.map_err(|error| match error {
            Errno::NOSPC | Errno::DQUOT => SpoolError::Full(error),
            _ => SpoolError::Unwritable(error),
        })?;
        self.entries.insert(key, Entry { samples, bytes });
        self.bytes += bytes;
        Ok(())
    }

    /// Reads a parcel back.
    ///
    /// # Errors
    /// [`LoadError`]; the file stays.
    fn read(&self, key: Key) -> Result<Parcel, LoadError> {
        let Some(entry) = self.entries.get(&key) else {
            return Err(LoadError::Unreadable(Errno::NOENT));
        };
        let name = file_name(key, entry.samples);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty())
            .map_err(LoadError::Unreadable)?;
        let mut bytes = Vec::new();
        std::fs::File::from(file)
            .take(MAX_RECORD)
            .read_to_end(&mut bytes)
            .map_err(|error| {
                LoadError::Unreadable(Errno::from_io_error(&error).unwrap_or(Errno::IO))
            })?;
        let parcel = record::decode(&bytes)?;
        // The count was taken from the name: they must agree, or the account would not add up.
        if parcel.samples() == entry.samples {
            Ok(parcel)
        } else {
            Err(RecordFault::Content.into())
        }
    }

    /// Forgets a parcel: it was delivered or given up.
    fn forget(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.bytes;
            let name = file_name(key, entry.samples);
            // What can't be removed is sent again by the next run: better twice than never.
            let _ = rustix::fs::unlinkat(&self.directory, name, AtFlags::empty());
        }
    }

    /// Gives up what is older than the bound at `now` (CLOCK_REALTIME nanoseconds).
    pub fn expire(&mut self, now: u64) -> Option<Dropped> {
        let oldest_allowed = now.saturating_sub(self.limits.max_age);
        let (&key, entry) = self.entries.first_key_value()?;
        if key.start >= oldest_allowed {
            return None;
        }
        let samples = entry.samples;
        self.forget(key);
        Some(Dropped {
            key,
            cause: "spool_age",
            samples,
        })
    }
}

fn file_name(key: Key, samples: u64) -> String {
    format!("{PREFIX}{key}-{samples}{SUFFIX}")
}

fn parse_name(name: &str) -> Option<(Key, u64)> {
    let text = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let mut numbers = text.split('-').map(|digits| digits.parse::<u64>().ok());
    let key = Key {
        start: numbers.next()??,
        window: numbers.next()??,
        part: numbers.next()??.try_into().ok()?,
    };
    let samples = numbers.next()??;
    (file_name(key, samples) == name).then_some((key, samples))
}

impl Shelf for Spool {
    fn entries(&self) -> &BTreeMap<Key, Entry> {
        &self.entries
    }

    fn append(&mut self, key: Key, parcel: &Parcel) -> (Result<(), SpoolError>, Vec<Dropped>) {
        let mut dropped = Vec::new();
        let result = self.try_append(key, parcel, &mut dropped);
        (result, dropped)
    }

    fn load(&self, key: Key) -> Result<Parcel, LoadError> {
        self.read(key)
    }

    fn remove(&mut self, key: Key) {
        self.forget(key);
    }
}

#[cfg(test)]
mod tests;
