//! Owns the reading of the GNU build-id note: the identity of a build across hosts. It never computes one.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::fmt::Write as _;

use gimli::{EndianSlice, LittleEndian, Reader};

/// Bytes of the longest build ID that is taken (linkers write 8, 16 or 20).
pub const MAX_BUILD_ID: usize = 32;
/// `NT_GNU_BUILD_ID` (include/elf/common.h of binutils).
const NT_GNU_BUILD_ID: u32 = 3;

/// A build ID: 1 to [`MAX_BUILD_ID`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(Box<[u8]>);

impl BuildId {
    /// Takes the bytes if their number is one a build ID may have.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty() && bytes.len() <= MAX_BUILD_ID).then(|| Self(bytes.into()))
    }

    /// Finds the build ID in a note section or segment (`Elf64_Nhdr`: name size, descriptor size, type; then name and
    /// descriptor, each padded to four bytes).
    #[must_use]
    pub fn of_notes(notes: &[u8]) -> Option<Self> {
        let mut rest = EndianSlice::new(notes, LittleEndian);
        while !rest.is_empty() {
            let name_size = rest.read_u32().ok()?;
            let descriptor_size = rest.read_u32().ok()?;
            let kind = rest.read_u32().ok()?;
            let name = padded(&mut rest, name_size)?;
            let descriptor = padded(&mut rest, descriptor_size)?;
            if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
                return Self::new(descriptor);
            }
        }
        None
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
