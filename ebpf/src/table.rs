//! Unwind tables as the kernel side holds them: regions of 1 MiB of text, each a directory of chunks of rows.
//!
//! Addresses are *file offsets* of the executable, so neither load addresses nor program headers are needed to
//! look a pc up: offset = pc - mapping start + mapping's file offset.
//!
//! ```text
//! Region (file offset >> 20)            Chunk (1984 bytes)
//! count | starts[119] | chunks[119] --> rule count m | row count n | m rules (u64)
//!                                       | n addresses (u16, from the chunk's start) | n rule indices (u8)
//! ```
//!
//! A row holds from its address until the next row's, a chunk's last row until the next chunk's start, and a
//! region's last row until the region's end. A chunk carries its own rules: a table can mislead only itself.

use crate::limits::{CHUNK_BYTES, CHUNK_SPAN, REGION_BITS, REGION_CHUNKS};
use crate::rule::Rule;

/// Key of a region in the `REGIONS` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RegionKey {
    /// Number of the table, given by the sampler.
    pub table: u32,
    /// File offset >> [`REGION_BITS`].
    pub region: u32,
}

/// Directory of the chunks of 1 MiB of text.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Region {
    /// Chunks in use.
    pub count: u32,
    /// Explicit padding, zero.
    pub reserved: u32,
    /// Where each chunk starts, bytes from the region's start, ascending; `u32::MAX` behind the last.
    pub starts: [u32; REGION_CHUNKS],
    /// Keys into the `CHUNKS` map.
    pub chunks: [u32; REGION_CHUNKS],
}

impl Region {
    /// A region without rows.
    pub const EMPTY: Self = Self {
        count: 0,
        reserved: 0,
        starts: [u32::MAX; REGION_CHUNKS],
        chunks: [0; REGION_CHUNKS],
    };
}

/// Bytes before the rules of a chunk.
pub const CHUNK_HEADER: usize = 8;

/// Rows of at most 64 KiB of text with their rules, in the layout of the module's drawing, little endian.
///
/// Header: `u16` rule count, `u16` row count, `u32` zero in a file and the chunk's own number in the kernel.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Chunk(pub [u8; CHUNK_BYTES]);

/// Bytes that `rules` rules and `rows` rows take in a chunk.
#[must_use]
pub const fn chunk_bytes(rules: usize, rows: usize) -> usize {
    CHUNK_HEADER + 8 * rules + 3 * rows
}

/// Why bytes are no sound chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkFault {
    /// The counts are zero or say more than the chunk can hold.
    Counts { rules: u16, rows: u16 },
    /// The first row does not start at the chunk's start, or a row does not start behind the one before it.
    Order { row: u16 },
    /// A row names a rule that is not there.
    RuleIndex { row: u16 },
    /// A rule is of no known kind.
    Rule { rule: u16 },
}

impl Chunk {
    /// The chunk as the kernel holds it under `number`: a reader that finds another number in it lost it on the way.
    #[must_use]
    pub fn numbered(mut self, number: u32) -> Self {
        self.0[4..CHUNK_HEADER].copy_from_slice(&number.to_le_bytes());
        self
    }

    fn u16_at(&self, offset: usize) -> Option<u16> {
        let bytes = self.0.get(offset..offset.checked_add(2)?)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Number of rules.
    #[must_use]
    pub fn rule_count(&self) -> u16 {
        u16::from_le_bytes([self.0[0], self.0[1]])
    }

    /// Number of rows.
    #[must_use]
    pub fn row_count(&self) -> u16 {
        u16::from_le_bytes([self.0[2], self.0[3]])
    }

    /// The nth rule.
    #[must_use]
    pub fn rule(&self, index: usize) -> Option<Rule> {
        let offset = CHUNK_HEADER.checked_add(index.checked_mul(8)?)?;
        let bytes = self.0.get(offset..offset.checked_add(8)?)?;
        Some(Rule(u64::from_le_bytes(bytes.try_into().ok()?)))
    }

    /// The nth row: its address relative to the chunk's start, and its rule.
    #[must_use]
    pub fn row(&self, index: usize) -> Option<(u16, Rule)> {
        if index >= usize::from(self.row_count()) {
            return None;
        }
        let addresses = CHUNK_HEADER + 8 * usize::from(self.rule_count());
        let address = self.u16_at(addresses.checked_add(2 * index)?)?;
        let indices = addresses.checked_add(2 * usize::from(self.row_count()))?;
        let rule = *self.0.get(indices.checked_add(index)?)?;
        Some((address, self.rule(usize::from(rule))?))
    }

    /// The rule in force `distance` bytes behind the chunk's start.
    ///
    /// The checked twin of the BPF programs' search, for user space.
    #[must_use]
    pub fn find(&self, distance: u64) -> Option<Rule> {
        let distance = distance.min(CHUNK_SPAN - 1) as u16;
        let (mut low, mut high) = (0, usize::from(self.row_count()));
        while low < high {
            let middle = low.midpoint(high);
            if self.row(middle)?.0 <= distance {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.row(low.checked_sub(1)?).map(|(_, rule)| rule)
    }

    /// Checks everything a look-up relies on, so that no chunk can lead one outside its bounds.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self) -> Result<(), ChunkFault> {
        let (rules, rows) = (self.rule_count(), self.row_count());
        let counts = ChunkFault::Counts { rules, rows };
        if rules == 0 || rows == 0 || rules > 256 {
            return Err(counts);
        }
        if chunk_bytes(usize::from(rules), usize::from(rows)) > CHUNK_BYTES {
            return Err(counts);
        }
        for rule in 0..rules {
            if !self.rule(usize::from(rule)).is_some_and(Rule::is_valid) {
                return Err(ChunkFault::Rule { rule });
            }
        }
        let mut previous = None;
        let indices = CHUNK_HEADER + 8 * usize::from(rules) + 2 * usize::from(rows);
        for row in 0..rows {
            let index = self.0.get(indices + usize::from(row)).copied();
            if index.is_none_or(|index| u16::from(index) >= rules) {
                return Err(ChunkFault::RuleIndex { row });
            }
            let Some((address, _)) = self.row(usize::from(row)) else {
                return Err(counts);
            };
            if previous.map_or(address != 0, |previous| address <= previous) {
                return Err(ChunkFault::Order { row });
            }
            previous = Some(address);
        }
        Ok(())
    }
}

/// The region that holds a file offset.
#[inline(always)]
#[must_use]
pub fn region_of(file_offset: u64) -> u32 {
    (file_offset >> REGION_BITS) as u32
}
