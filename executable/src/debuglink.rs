//! Owns the ways from a stripped file to its separate debug file: by build ID, or by the name and checksum in
//! `.gnu_debuglink`. It says what is wanted and checks what came; it opens nothing.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use crate::build_id::BuildId;
use crate::elf::Elf;
use crate::file_bytes::FileBytes;
use crate::reason::Reason;

/// Bytes of the largest debug file whose checksum is computed; with a build ID none is needed.
const MAX_CHECKED: u64 = 1 << 30;
/// Bytes that are checksummed at a time.
const CHUNK: u64 = 1 << 20;
/// Bytes of the longest name.
const MAX_FILE_NAME: usize = 255;

/// A debug file that somebody should look for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DebugFileWanted {
    /// `DEBUGDIR/.build-id/xx/yyyy.debug`.
    ByBuildId(BuildId),
    /// `NAME` beside the executable, in `.debug` beside it, or below the debug directories.
    ByName {
        /// One path component.
        name: String,
        /// CRC-32 of the whole debug file.
        crc: u32,
    },
}

impl DebugFileWanted {
    /// Below a debug directory, the path of a debug file by build ID; nothing for other ways.
    #[must_use]
    pub fn build_id_path(&self) -> Option<String> {
        let Self::ByBuildId(build_id) = self else {
            return None;
        };
        let hex = build_id.to_hex();
        let (directory, file) = hex.split_at_checked(2)?;
        Some(format!(".build-id/{directory}/{file}.debug"))
    }
}

/// What to look for on behalf of a file, best first.
pub fn wanted(file: &FileBytes, elf: &Elf) -> Vec<DebugFileWanted> {
    let by_build_id = elf.build_id().cloned().map(DebugFileWanted::ByBuildId);
    by_build_id.into_iter().chain(by_name(file, elf)).collect()
}

/// Reads `.gnu_debuglink`: a zero-terminated name, padding to four bytes, CRC-32.
fn by_name(file: &FileBytes, elf: &Elf) -> Option<DebugFileWanted> {
    let header = elf.section(b".gnu_debuglink")?;
    let bytes = file.read(header.offset, header.size.min(4096)).ok()?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(bytes.get(..end)?).ok()?;
    // The name comes from a foreign file and becomes part of a path: one plain component or nothing.
    if name.is_empty()
        || name.len() > MAX_FILE_NAME
        || matches!(name, "." | "..")
        || name.contains(|character: char| character == '/' || character.is_control())
    {
        return None;
    }
    let crc = bytes.get(end.checked_add(1)?.checked_next_multiple_of(4)?..)?;
    Some(DebugFileWanted::ByName {
        name: name.to_owned(),
        crc: u32::from_le_bytes(*crc.first_chunk::<4>()?),
    })
}

/// Checks that a debug file is the one that was wanted.
pub fn check(
    wanted: &DebugFileWanted,
    executable: &Elf,
    file: &FileBytes,
    elf: &Elf,
) -> Result<(), Reason> {
    if let (Some(ours), Some(theirs)) = (executable.build_id(), elf.build_id()) {
        return if ours == theirs {
            Ok(())
        } else {
            Err(Reason::DebugFileMismatch)
        };
    }
    match wanted {
        DebugFileWanted::ByName { crc, .. } if checksum(file)? == *crc => Ok(()),
        _ => Err(Reason::DebugFileMismatch),
    }
}

fn checksum(file: &FileBytes) -> Result<u32, Reason> {
    if file.len() > MAX_CHECKED {
        return Err(Reason::DebuginfoTooLarge);
    }
    let mut crc = flate2::Crc::new();
    let mut offset = 0_u64;
    while offset < file.len() {
        let bytes = file.read_up_to(offset, CHUNK)?;
        crc.update(&bytes);
        offset = offset.saturating_add(CHUNK);
    }
    Ok(crc.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_ids_become_paths() {
        let build_id = BuildId::new(&[0xab, 0xcd, 0x01]).expect("build ID");
        let wanted = DebugFileWanted::ByBuildId(build_id);
        assert_eq!(
            wanted.build_id_path().as_deref(),
            Some(".build-id/ab/cd01.debug")
        );
    }

    #[test]
    fn the_checksum_is_zlibs() {
        let file = FileBytes::of_memory(&b"123456789"[..]);
        assert_eq!(checksum(&file), Ok(0xcbf4_3926));
    }
}
