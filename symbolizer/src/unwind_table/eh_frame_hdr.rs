//! Owns `.eh_frame_hdr` (LSB Core, 10.6.2): where `.eh_frame` is when there are no section headers, and where its
//! entries begin when the walk from one to the next is broken. Its addresses of functions are never believed.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use super::cursor::{Cursor, PointerBases, encoding};
use super::eh_frame::{MAX_FUNCTIONS, Section};

/// datarel | sdata4: what linkers write the search table in.
const TABLE_ENCODING: u8 = 0x3b;

/// The binary search table: pairs of function address and FDE address, both four bytes from the section's start.
#[derive(Clone, Copy, Debug)]
pub(super) struct SearchTable<'a> {
    pairs: &'a [[u8; 8]],
    /// ELF address of `.eh_frame_hdr`.
    address: u64,
}

/// The parts of `.eh_frame_hdr`.
#[derive(Clone, Copy, Debug)]
pub(super) struct EhFrameHdr<'a> {
    /// ELF address of `.eh_frame`.
    pub eh_frame: Option<u64>,
    pub search_table: Option<SearchTable<'a>>,
}

impl<'a> EhFrameHdr<'a> {
    pub(super) fn read(bytes: &'a [u8], address: u64) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let [version, frame_encoding, count_encoding, table_encoding] =
            [cursor.u8()?, cursor.u8()?, cursor.u8()?, cursor.u8()?];
        if version != 1 {
            return None;
        }
        let bases = PointerBases {
            text: None,
            data: Some(address),
        };
        let mut pointer = |encoding: u8| {
            if encoding == encoding::OMIT {
                return None;
            }
            let consumed = bytes.len().saturating_sub(cursor.rest().len());
            cursor.pointer(encoding, address.wrapping_add(consumed as u64), &bases)
        };
        let eh_frame = pointer(frame_encoding);
        let count = pointer(count_encoding);
        let search_table = (table_encoding == TABLE_ENCODING)
            .then(|| {
                let (pairs, _) = cursor.rest().as_chunks::<8>();
                let count = usize::try_from(count?).ok()?;
                Some(SearchTable {
                    pairs: pairs.get(..count.min(pairs.len()).min(MAX_FUNCTIONS))?,
                    address,
                })
            })
            .flatten();
        Some(Self {
            eh_frame,
            search_table,
        })
    }
}

impl SearchTable<'_> {
    /// The place in `section` of the first FDE behind `position` that the table knows.
    pub(super) fn next_entry(&self, section: &Section<'_>, position: usize) -> Option<usize> {
        self.pairs
            .iter()
            .filter_map(|&[_, _, _, _, a, b, c, d]| {
                let offset = i64::from(i32::from_le_bytes([a, b, c, d]));
                let entry = self.address.wrapping_add(offset as u64);
                usize::try_from(entry.wrapping_sub(section.address)).ok()
            })
            .filter(|&entry| entry > position && entry < section.bytes.len())
            .min()
    }
}
