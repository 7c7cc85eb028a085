//! Owns the identity of a build across hosts: what the linker wrote, or what stands in for it.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::fmt::Write as _;
use std::hash::Hasher;

use gimli::{EndianSlice, LittleEndian, Reader};
use twox_hash::XxHash64;

use crate::elf::Elf;
use crate::file_bytes::FileBytes;

/// Bytes of the longest build ID that is taken: Go's text of 83, with room.
pub const MAX_BUILD_ID: usize = 128;
/// Bytes of the longest GNU build ID that is taken (linkers write 8, 16 or 20).
const MAX_GNU_BUILD_ID: usize = 32;
/// `NT_GNU_BUILD_ID` (include/elf/common.h of binutils).
const NT_GNU_BUILD_ID: u32 = 3;
/// Go's note type (cmd/link/internal/ld/elf.go, `ELF_NOTE_GOBUILDID_TAG`).
const NT_GO_BUILD_ID: u32 = 4;
/// Bytes of code that are hashed at a time, and at most.
const CHUNK: u64 = 1 << 20;
const MAX_HASHED: u64 = 1 << 30;

/// By what a store knows a file, as parca-agent tells it: the GNU note's bytes; else the text of Go's note; else the
/// xxHash64 of the code, its greatest byte first. Whoever sends profiles and whoever sends debuginfo must say the same.
#[must_use]
pub fn of(file: &FileBytes, elf: &Elf) -> Option<BuildId> {
    if let Some(build_id) = elf.build_id() {
        return Some(build_id.clone());
    }
    go_note(file, elf).or_else(|| hash_of_code(file, elf))
}

fn go_note(file: &FileBytes, elf: &Elf) -> Option<BuildId> {
    let section = elf.section(b".note.go.buildid")?;
    let notes = file.read(section.offset, section.size.min(4096)).ok()?;
    find_note(&notes, b"Go\0\0", NT_GO_BUILD_ID).and_then(BuildId::new)
}

fn hash_of_code(file: &FileBytes, elf: &Elf) -> Option<BuildId> {
    let code = elf.section(b".text")?;
    if code.size == 0 || code.size > MAX_HASHED {
        return None;
    }
    let mut hash = XxHash64::with_seed(0);
    let mut done = 0;
    while done < code.size {
        let length = CHUNK.min(code.size.saturating_sub(done));
        let bytes = file.read(code.offset.checked_add(done)?, length).ok()?;
        hash.write(&bytes);
        done = done.saturating_add(length);
    }
    BuildId::new(&hash.finish().to_be_bytes())
}

/// A build ID: 1 to [`MAX_BUILD_ID`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(Box<[u8]>);

impl BuildId {
    /// Takes the bytes if their number is one a build ID may have.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty() && bytes.len() <= MAX_BUILD_ID).then(|| Self(bytes.into()))
    }

    /// Finds the GNU build ID in a note section or segment.
    #[must_use]
    pub fn of_notes(notes: &[u8]) -> Option<Self> {
        let found = find_note(notes, b"GNU\0", NT_GNU_BUILD_ID)?;
        (found.len() <= MAX_GNU_BUILD_ID)
            .then(|| Self::new(found))
            .flatten()
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its bytes in hexadecimal, as the `.build-id` directories have it.
    #[must_use]
    pub fn to_hex(&self) -> String {
        let mut text = String::with_capacity(self.0.len().saturating_mul(2));
        for byte in &*self.0 {
            let _infallible = write!(text, "{byte:02x}");
        }
        text
    }
}

/// The descriptor of the first note of that name and type (`Elf64_Nhdr`: name size, descriptor size, type; then name and
/// descriptor, each padded to four bytes).
fn find_note<'a>(notes: &'a [u8], wanted: &[u8], wanted_kind: u32) -> Option<&'a [u8]> {
    let mut rest = EndianSlice::new(notes, LittleEndian);
    while !rest.is_empty() {
        let name_size = rest.read_u32().ok()?;
        let descriptor_size = rest.read_u32().ok()?;
        let kind = rest.read_u32().ok()?;
        let name = padded(&mut rest, name_size)?;
        let descriptor = padded(&mut rest, descriptor_size)?;
        if kind == wanted_kind && name == wanted {
            return Some(descriptor);
        }
    }
    None
}

fn padded<'a>(rest: &mut EndianSlice<'a, LittleEndian>, size: u32) -> Option<&'a [u8]> {
    let size = usize::try_from(size).ok()?;
    let bytes = rest.split(size).ok()?;
    let padding = size.checked_next_multiple_of(4)?.checked_sub(size)?;
    rest.skip(padding.min(rest.len())).ok()?;
    Some(bytes.slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_build_id_behind_another_note() {
        let mut notes = Vec::new();
        for word in [4_u32, 3, 1] {
            notes.extend(word.to_le_bytes());
        }
        notes.extend(b"GNU\0abc\0");
        for word in [4_u32, 2, 3] {
            notes.extend(word.to_le_bytes());
        }
        notes.extend(b"GNU\0\xab\xcd");
        let build_id = BuildId::of_notes(&notes).expect("build ID");
        assert_eq!(build_id.to_hex(), "abcd");
    }

    #[test]
    fn files_without_a_linkers_build_id_have_another_identity() {
        let file = FileBytes::of_file(std::fs::File::open("/proc/self/exe").expect("own"));
        let file = file.expect("file");
        let elf = Elf::read(&file).expect("ELF");
        let hash = hash_of_code(&file, &elf).expect("has code");
        assert_eq!(hash.as_bytes().len(), 8);
        assert_eq!(of(&file, &elf).as_ref(), elf.build_id().or(Some(&hash)));
        // xxHash64 of "abc" is 44bc2cf5ad770999 (the reference implementation's own test).
        let mut reference = XxHash64::with_seed(0);
        reference.write(b"abc");
        let reference = BuildId::new(&reference.finish().to_be_bytes()).expect("short");
        assert_eq!(reference.to_hex(), "44bc2cf5ad770999");
    }

    #[test]
    fn refuses_what_is_too_long_or_cut() {
        let mut notes = Vec::new();
        for word in [4_u32, 33, 3] {
            notes.extend(word.to_le_bytes());
        }
        notes.extend(b"GNU\0");
        notes.extend([0; 33]);
        assert_eq!(BuildId::of_notes(&notes), None);
        assert_eq!(BuildId::of_notes(notes.get(..20).expect("long")), None);
        assert_eq!(BuildId::of_notes(&[0xff; 64]), None);
    }
}
