//! Owns the executable PT_LOAD segments of a file and the way from ELF addresses to file offsets. It never reads.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

/// A part of the file that is mapped executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// ELF address of its first byte.
    pub address: u64,
    /// Its place in the file.
    pub file_offset: u64,
    /// Bytes of it that the file has.
    pub length: u64,
}

impl Segment {
    /// ELF address behind its last byte.
    #[must_use]
    #[inline]
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.length)
    }

    /// File offset behind its last byte.
    #[must_use]
    pub fn file_end(&self) -> u64 {
        self.file_offset.saturating_add(self.length)
    }

    /// The file offset of an ELF address inside.
    #[must_use]
    #[inline]
    pub fn to_file_offset(&self, address: u64) -> u64 {
        address
            .wrapping_sub(self.address)
            .wrapping_add(self.file_offset)
    }
}

/// The executable segments of a file, ascending by file offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    segments: Vec<Segment>,
}

/// Executable segments that are looked at; compilers and linkers make one or two.
pub(super) const MAX_SEGMENTS: usize = 64;
/// A file offset above this is in no table: region numbers have 32 bits.
const MAX_FILE_OFFSET: u64 = 1 << 51;

impl Segments {
    /// Takes executable segments; empty ones, ones that wrap around and those behind [`MAX_SEGMENTS`] are left.
    pub(super) fn new(segments: impl IntoIterator<Item = Segment>) -> Self {
        let mut segments: Vec<_> = segments
            .into_iter()
            .filter(|segment| {
                segment.length != 0
                    && segment.address.checked_add(segment.length).is_some()
                    && segment.file_end() <= MAX_FILE_OFFSET
            })
            .take(MAX_SEGMENTS)
            .collect();
        segments.sort_by_key(|segment| segment.file_offset);
        Self { segments }
    }

    /// The segments, ascending by file offset.
    #[must_use]
    pub fn all(&self) -> &[Segment] {
        &self.segments
    }

    /// The segment that holds an ELF address.
    #[must_use]
    #[inline]
    pub fn containing(&self, address: u64) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|segment| address.wrapping_sub(segment.address) < segment.length)
    }

    /// The file offset of an ELF address in an executable segment.
    #[must_use]
    pub fn to_file_offset(&self, address: u64) -> Option<u64> {
        self.containing(address)
            .map(|segment| segment.to_file_offset(address))
    }

    /// The ELF address of a file offset in an executable segment.
    #[must_use]
    pub fn to_address(&self, file_offset: u64) -> Option<u64> {
        self.segments
            .iter()
            .find(|segment| file_offset.wrapping_sub(segment.file_offset) < segment.length)
            .map(|segment| {
                file_offset
                    .wrapping_sub(segment.file_offset)
                    .wrapping_add(segment.address)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_file_offsets_go_both_ways() {
        let segments = Segments::new([
            Segment {
                address: 0x40_2000,
                file_offset: 0x1000,
                length: 0x500,
            },
            Segment {
                address: 0x10,
                file_offset: 0,
                length: 0,
            },
            Segment {
                address: u64::MAX - 8,
                file_offset: 0,
                length: 0x100,
            },
            Segment {
                address: 0x40_0000,
                file_offset: 0x10,
                length: 0x100,
            },
        ]);
        assert_eq!(segments.all().len(), 2);
        assert_eq!(segments.to_file_offset(0x40_24ff), Some(0x14ff));
        assert_eq!(segments.to_file_offset(0x40_2500), None);
        assert_eq!(segments.to_address(0x10), Some(0x40_0000));
        assert_eq!(segments.to_address(0xf), None);
    }
}
