//! Unwind tables as the kernel side holds them: regions of 1 MiB of text, each a directory of chunks of rows.
//!
//! Addresses are *file offsets* of the executable, so neither load addresses nor program headers are needed to
//! look a pc up: offset = pc - mapping start + mapping's file offset.
//!
//! ```text
//! Region (file offset >> 20)            Chunk (1984 bytes)
//! count | starts[119] | chunks[119] --> long rules l | short rules s | row count n | l rules (u64) | s short rules (u32)
//!                                       | n addresses (u16, from the chunk's start) | n rule numbers (u8)
//! ```
//!
//! A row holds from its address until the next row's, a chunk's last row until the next chunk's start, and a
//! region's last row until the region's end. A chunk carries its own rules, the long ones numbered before the short
//! ones: a table can mislead only itself.

use crate::limits::{CHUNK_BYTES, CHUNK_SPAN, REGION_BITS, REGION_CHUNKS};
use crate::rule::Rule;
use crate::short_rule::ShortRule;

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
/// Header: `u8` count of long rules, `u8` of short ones, `u16` row count, `u32` zero in a file and the chunk's own number
/// in the kernel.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Chunk(pub [u8; CHUNK_BYTES]);

/// Most rules of a chunk, long and short.
pub const MAX_RULES: usize = u8::MAX as usize;

/// Bytes that rules and rows take in a chunk.
#[must_use]
pub const fn chunk_bytes(long_rules: usize, short_rules: usize, rows: usize) -> usize {
    CHUNK_HEADER + 8 * long_rules + 4 * short_rules + 3 * rows
}

/// Why bytes are no sound chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkFault {
    /// The counts are zero or say more than the chunk can hold.
    Counts {
        long_rules: u8,
        short_rules: u8,
        rows: u16,
    },
    /// The first row does not start at the chunk's start, or a row does not start behind the one before it.
    Order { row: u16 },
    /// A row names a rule that is not there.
    RuleNumber { row: u16 },
    /// A rule is of no known kind.
    Rule { rule: u8 },
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

    /// Number of rules of 64 bits.
    #[must_use]
    pub fn long_rule_count(&self) -> u8 {
        self.0[0]
    }

    /// Number of rules of 32 bits.
    #[must_use]
    pub fn short_rule_count(&self) -> u8 {
        self.0[1]
    }

    /// Number of rows.
    #[must_use]
    pub fn row_count(&self) -> u16 {
        u16::from_le_bytes([self.0[2], self.0[3]])
    }

    /// The rule of that number.
    #[must_use]
    pub fn rule(&self, number: u8) -> Option<Rule> {
        let (long, number) = (usize::from(self.long_rule_count()), usize::from(number));
        if number < long {
            let rules = self.0.get(CHUNK_HEADER..)?.as_chunks().0;
            return Some(Rule(u64::from_le_bytes(*rules.get(number)?)));
        }
        let short = number - long;
        if short >= usize::from(self.short_rule_count()) {
            return None;
        }
        let rules = self.0.get(chunk_bytes(long, 0, 0)..)?.as_chunks().0;
        Some(ShortRule(u32::from_le_bytes(*rules.get(short)?)).rule())
    }

    /// Bytes before the addresses.
    fn rule_bytes(&self) -> usize {
        let (long, short) = (self.long_rule_count(), self.short_rule_count());
        chunk_bytes(long.into(), short.into(), 0)
    }

    /// The nth row: its address relative to the chunk's start, and its rule.
    #[must_use]
    pub fn row(&self, index: usize) -> Option<(u16, Rule)> {
        if index >= usize::from(self.row_count()) {
            return None;
        }
        let addresses = self.rule_bytes();
        let address = self.u16_at(addresses.checked_add(2 * index)?)?;
        let numbers = addresses.checked_add(2 * usize::from(self.row_count()))?;
        let rule = *self.0.get(numbers.checked_add(index)?)?;
        Some((address, self.rule(rule)?))
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
        let (long_rules, short_rules) = (self.long_rule_count(), self.short_rule_count());
        let rows = self.row_count();
        let counts = ChunkFault::Counts {
            long_rules,
            short_rules,
            rows,
        };
        let Some(rules @ 1..) = long_rules.checked_add(short_rules) else {
            return Err(counts);
        };
        let bytes = chunk_bytes(long_rules.into(), short_rules.into(), rows.into());
        if rows == 0 || bytes > CHUNK_BYTES {
            return Err(counts);
        }
        for rule in 0..rules {
            if !self.rule(rule).is_some_and(Rule::is_valid) {
                return Err(ChunkFault::Rule { rule });
            }
        }
        let mut previous = None;
        for row in 0..rows {
            let Some((address, _)) = self.row(usize::from(row)) else {
                return Err(ChunkFault::RuleNumber { row });
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
