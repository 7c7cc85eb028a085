//! Owns the bytes of a file that somebody else may change or cut at any moment: read by position into owned, bounded
//! buffers. It never maps a file (a truncated mapping kills the process) and never moves the file's own position,
//! which is shared with whoever handed the descriptor over.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::reason::Reason;

/// Bytes of one read: everything larger is refused before it is allocated.
pub const MAX_READ: usize = 256 << 20;

/// Read-only bytes: a file's, or owned ones (the vDSO, an expanded section).
#[derive(Debug)]
pub struct FileBytes {
    source: Source,
    len: u64,
}

#[derive(Debug)]
enum Source {
    File(File),
    Memory(Box<[u8]>),
}

impl FileBytes {
    /// Takes a file's size now; reads behind a later, smaller size say [`Reason::Truncated`].
    pub fn of_file(file: File) -> Result<Self, Reason> {
        let metadata = file.metadata().map_err(|_error| Reason::Unreadable)?;
        if !metadata.is_file() {
            return Err(Reason::NotElf);
        }
        Ok(Self {
            len: metadata.len(),
            source: Source::File(file),
        })
    }

    /// Takes bytes that are in memory already.
    #[must_use]
    pub fn of_memory(bytes: impl Into<Box<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self {
            len: bytes.len() as u64,
            source: Source::Memory(bytes),
        }
    }

    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory this holds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match &self.source {
            Source::File(_) => 0,
            Source::Memory(bytes) => bytes.len(),
        }
    }

    /// Exactly `len` bytes from `offset` on.
    pub fn read(&self, offset: u64, len: u64) -> Result<Cow<'_, [u8]>, Reason> {
        let end = offset.checked_add(len).ok_or(Reason::Malformed)?;
        if end > self.len {
            return Err(Reason::Truncated);
        }
        let size = usize::try_from(len).map_err(|_error| Reason::TooLarge)?;
        match &self.source {
            Source::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(|_error| Reason::Malformed)?;
                let end = usize::try_from(end).map_err(|_error| Reason::Malformed)?;
                Ok(Cow::Borrowed(
                    bytes.get(start..end).ok_or(Reason::Truncated)?,
                ))
            }
            Source::File(file) => {
                if size > MAX_READ {
                    return Err(Reason::TooLarge);
                }
                let mut buffer = vec![0; size];
                file.read_exact_at(&mut buffer, offset)
                    .map_err(|error| match error.kind() {
                        std::io::ErrorKind::UnexpectedEof => Reason::Truncated,
                        _ => Reason::Unreadable,
                    })?;
                Ok(Cow::Owned(buffer))
            }
        }
    }

    /// Up to `len` bytes from `offset` on: fewer where the file ends, none behind its end.
    pub fn read_up_to(&self, offset: u64, len: u64) -> Result<Cow<'_, [u8]>, Reason> {
        let left = self.len.saturating_sub(offset);
        self.read(offset.min(self.len), len.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_that_is_cut_later_is_truncated_not_a_crash() {
        let mut file = tempfile::tempfile().expect("temporary file");
        file.write_all(&[7; 10_000]).expect("write");
        let bytes = FileBytes::of_file(file.try_clone().expect("clone")).expect("file");
        assert_eq!(bytes.read(9_000, 1_000).as_deref(), Ok(&[7; 1_000][..]));
        file.set_len(100).expect("cut");
        assert_eq!(bytes.read(9_000, 1_000), Err(Reason::Truncated));
    }

    #[test]
    fn bounds_hold_before_anything_is_allocated() {
        let bytes = FileBytes::of_memory(vec![1, 2, 3]);
        assert_eq!(bytes.read(1, 2).as_deref(), Ok(&[2, 3][..]));
        assert_eq!(bytes.read(2, 2), Err(Reason::Truncated));
        assert_eq!(bytes.read(u64::MAX, 2), Err(Reason::Malformed));
        assert_eq!(bytes.read(0, u64::MAX), Err(Reason::Truncated));
        assert_eq!(bytes.read_up_to(2, 9).as_deref(), Ok(&[3][..]));
        assert_eq!(bytes.read_up_to(9, 9).as_deref(), Ok(&[][..]));
    }

    #[test]
    fn a_directory_is_no_elf_file() {
        let directory = File::open("/").expect("open /");
        assert_eq!(FileBytes::of_file(directory).err(), Some(Reason::NotElf));
    }
}
