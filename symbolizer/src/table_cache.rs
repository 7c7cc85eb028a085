//! Unwind tables on disk, by build ID, each with a checksum. Owns the files of one directory, opened before the
//! lockdown; a file that is not what its checksum says is removed and never used.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ipc_proto::table_file::{MAX_TABLE_BYTES, TableFile, VERSION};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Timespec};
use rustix::io::Errno;

/// Bytes of all tables on disk; beyond it the oldest go.
const MAX_CACHE_BYTES: u64 = 256 << 20;
/// Version of this file's header and of the code that builds tables: older files are built anew.
const CACHE_VERSION: u32 = 3;
const MAGIC: [u8; 8] = *b"LMTABLE\0";
const HEADER_BYTES: usize = 24;
const SUFFIX: &str = ".table";

/// The cache; one without a directory finds and keeps nothing.
#[derive(Debug)]
pub(crate) struct TableCache {
    directory: Option<OwnedFd>,
    bytes: u64,
}

impl TableCache {
    /// Opens the directory and removes what is left half written, or is too much.
    ///
    /// # Errors
    /// The directory can't be made, opened or listed.
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let mut cache = Self {
            directory: Some(directory),
            bytes: 0,
        };
        cache.shrink()?;
        Ok(cache)
    }

    /// A cache that keeps nothing.
    pub(crate) fn none() -> Self {
        Self {
            directory: None,
            bytes: 0,
        }
    }

    /// The directory, if there is one.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// The table of a build ID, or of what identifies a file without one.
    pub(crate) fn load(&self, build_id: &[u8]) -> Option<Vec<u8>> {
        let directory = self.directory.as_ref()?;
        let name = file_name(build_id)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(directory, &*name, flags, Mode::empty()).ok()?;
        let table = read(fd);
        if table.is_none() {
            log::warn!("the cached unwind table {name} is damaged or of another version: removed");
            let _gone = rustix::fs::unlinkat(directory, &*name, AtFlags::empty());
        }
        table
    }

    /// Keeps a table; failing costs time later, nothing else.
    pub(crate) fn store(&mut self, build_id: &[u8], table: &[u8]) {
        let Some(name) = file_name(build_id) else {
            return;
        };
        if let Err(error) = self.write(&name, table) {
            log::warn!("cannot keep an unwind table in the cache directory: {error}");
        }
        if self.bytes > MAX_CACHE_BYTES && self.shrink().is_err() {
            // Listing failed: what is there stays, and nothing is added.
            self.directory = None;
        }
    }

    fn write(&mut self, name: &str, table: &[u8]) -> Result<(), Errno> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let temporary = format!(".{name}.tmp");
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let mut file = File::from(rustix::fs::openat(directory, &*temporary, flags, mode)?);
        let written = file
            .write_all(&header(table))
            .and_then(|()| file.write_all(table))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .and_then(|()| rustix::fs::renameat(directory, &*temporary, directory, name));
        if written.is_err() {
            let _gone = rustix::fs::unlinkat(directory, &*temporary, AtFlags::empty());
        }
        self.bytes = self.bytes.saturating_add(table.len() as u64);
        written
    }

    /// Removes half written files, then the oldest tables until the rest is half of what is allowed, if it is too much.
    fn shrink(&mut self) -> Result<(), Errno> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let mut tables = Vec::new();
        let mut bytes = 0u64;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name.starts_with('.') && name.ends_with(".table.tmp") {
                rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            } else if name.ends_with(SUFFIX) {
                let status = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let modified = Timespec {
                    tv_sec: status.st_mtime,
                    tv_nsec: 0,
                };
                bytes = bytes.saturating_add(status.st_size as u64);
                tables.push((modified.tv_sec, name.to_owned(), status.st_size as u64));
            }
        }
        if bytes > MAX_CACHE_BYTES {
            tables.sort();
            for (_, name, size) in tables {
                if bytes <= MAX_CACHE_BYTES / 2 {
                    break;
                }
                rustix::fs::unlinkat(directory, &*name, AtFlags::empty())?;
                bytes = bytes.saturating_sub(size);
            }
        }
        self.bytes = bytes;
        Ok(())
    }
}

/// `HEX.table`; nothing for an absent build ID.
fn file_name(build_id: &[u8]) -> Option<String> {
    if build_id.is_empty() {
        return None;
    }
    let mut name: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    name.push_str(SUFFIX);
    Some(name)
}

/// Magic, cache version, table version, length, checksum.
fn header(table: &[u8]) -> [u8; HEADER_BYTES] {
    let fields = [
        CACHE_VERSION,
        VERSION,
        u32::try_from(table.len()).unwrap_or(u32::MAX),
        checksum(table),
    ];
    let mut header = [0; HEADER_BYTES];
    let bytes = MAGIC
        .into_iter()
        .chain(fields.into_iter().flat_map(u32::to_le_bytes));
    for (place, byte) in header.iter_mut().zip(bytes) {
        *place = byte;
    }
    header
}

fn checksum(table: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(table);
    crc.sum()
}

fn read(fd: OwnedFd) -> Option<Vec<u8>> {
    let file = File::from(fd);
    let size = file.metadata().ok()?.len();
    let length = usize::try_from(size).ok()?.checked_sub(HEADER_BYTES)?;
    if length > MAX_TABLE_BYTES {
        return None;
    }
    let mut found = [0; HEADER_BYTES];
    (&file).read_exact(&mut found).ok()?;
    let mut table = vec![0; length];
    (&file).read_exact(&mut table).ok()?;
    if found != header(&table) {
        return None;
    }
    TableFile::open(&table).ok()?.check_chunks().ok()?;
    Some(table)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use ipc_proto::table_file::TableWriter;

    use super::*;

    fn table() -> Vec<u8> {
        let mut writer = TableWriter::default();
        writer.begin_region(0);
        writer.encode()
    }

    #[test]
    fn a_table_comes_back_also_after_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("cache");
        let mut cache = TableCache::open(&path).unwrap();
        assert_eq!(cache.load(b"\x01\xab"), None);
        cache.store(b"\x01\xab", &table());
        assert_eq!(cache.load(b"\x01\xab"), Some(table()));
        assert!(path.join("01ab.table").exists());
        std::fs::write(path.join(".02.table.tmp"), b"half").unwrap();
        let cache = TableCache::open(&path).unwrap();
        assert_eq!(cache.load(b"\x01\xab"), Some(table()));
        assert!(!path.join(".02.table.tmp").exists());
        assert!(cache.bytes > 0);
    }

    #[test]
    fn damage_anywhere_is_found_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let mut cache = TableCache::open(root.path()).unwrap();
        let path = root.path().join("01.table");
        for at in 0..HEADER_BYTES + table().len() {
            cache.store(&[1], &table());
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let mut byte = [0];
            file.read_at(&mut byte, at as u64).unwrap();
            file.write_at(&[byte[0] ^ 0x10], at as u64).unwrap();
            assert_eq!(cache.load(&[1]), None, "byte {at}");
            assert!(!path.exists(), "byte {at}");
        }
        cache.store(&[1], &table());
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(7)
            .unwrap();
        assert_eq!(cache.load(&[1]), None);
    }

    #[test]
    fn without_a_directory_or_a_build_id_nothing_is_kept() {
        let mut cache = TableCache::none();
        cache.store(&[1], &table());
        assert_eq!(cache.load(&[1]), None);
        let root = tempfile::tempdir().unwrap();
        let mut cache = TableCache::open(root.path()).unwrap();
        cache.store(&[], &table());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
