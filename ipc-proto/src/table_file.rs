//! Owns the format of a whole unwind table in one piece of bytes: what the symbolizer hands to the sampler in a sealed
//! memfd and keeps in its cache. It never trusts a count: what [`TableFile::open`] accepts can be looked up safely
//! once each chunk it hands out passed [`Chunk::check`].
//!
//! Little endian, without gaps; regions ascend by number, starts within a region ascend from their region's start:
//!
//! ```text
//! magic 8 | version u32 | region count R u32 | chunk count C u32 | zero u32
//! R x { region number u32, chunks up to and with this region u32 }
//! C x chunk's start u32, bytes from its region's start | zero u32 when C is odd
//! C x chunk
//! ```
//!
//! A region without chunks says that the table knows this part of the file and has no row there.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::ops::Range;

use leadsman_ebpf::limits::{CHUNK_BYTES, REGION_BITS, REGION_CHUNKS};
use leadsman_ebpf::rule::Rule;
use leadsman_ebpf::table::{Chunk, ChunkFault, Region, region_of};

/// The first bytes of a table.
pub const MAGIC: [u8; 8] = *b"LMUNWIND";
/// The format described above; also changes with the meaning of a rule.
pub const VERSION: u32 = 4;
/// Chunks of one table: 32 MB, six million rows.
pub const MAX_CHUNKS: usize = 1 << 14;
/// Regions of one table: 8 GiB of a file.
pub const MAX_REGIONS: usize = 1 << 13;
/// Bytes of the largest table.
pub const MAX_TABLE_BYTES: usize = HEADER_BYTES + 8 * MAX_REGIONS + (4 + CHUNK_BYTES) * MAX_CHUNKS;

const HEADER_BYTES: usize = 24;

/// Why bytes are no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableFault {
    /// The bytes do not begin as a table does.
    #[error("not an unwind table")]
    Magic,
    /// Written by another version of this program.
    #[error("unwind table version {0}, this program knows version {VERSION}")]
    Version(u32),
    /// More regions or chunks than a table may have.
    #[error("unwind table of {regions} regions and {chunks} chunks")]
    Counts { regions: u32, chunks: u32 },
    /// The bytes are more or fewer than the counts say.
    #[error("unwind table of {found} bytes, its counts say {expected}")]
    Length { expected: usize, found: usize },
    /// Bytes that must be zero are not.
    #[error("unwind table with padding that is not zero")]
    Padding,
    /// A region does not come behind the one before it, or has too many chunks.
    #[error("region {nth} of the unwind table is out of order")]
    Region { nth: usize },
    /// A chunk does not start behind the one before it, or outside of its region.
    #[error("chunk {nth} of the unwind table is out of order")]
    Start { nth: usize },
    /// A chunk's own bytes are unsound.
    #[error("chunk {nth} of the unwind table is unsound: {fault:?}")]
    Chunk { nth: usize, fault: ChunkFault },
}

/// A table whose directory was checked; its bytes stay where they are.
#[derive(Clone, Copy, Debug)]
pub struct TableFile<'a> {
    regions: &'a [[u8; 8]],
    starts: &'a [[u8; 4]],
    chunks: &'a [[u8; CHUNK_BYTES]],
}

impl<'a> TableFile<'a> {
    /// Checks the directory: counts, order and bounds. The chunks themselves are not looked at.
    ///
    /// # Errors
    /// The first fault found.
    pub fn open(bytes: &'a [u8]) -> Result<Self, TableFault> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(TableFault::Magic)?;
        let (magic, fields) = header.split_first_chunk::<8>().ok_or(TableFault::Magic)?;
        if *magic != MAGIC {
            return Err(TableFault::Magic);
        }
        let (fields, _) = fields.as_chunks::<4>();
        let &[version, regions, chunks, zero] = fields else {
            return Err(TableFault::Magic);
        };
        let version = u32::from_le_bytes(version);
        if version != VERSION {
            return Err(TableFault::Version(version));
        }
        if zero != [0; 4] {
            return Err(TableFault::Padding);
        }
        let table = Self::split(
            rest,
            u32::from_le_bytes(regions),
            u32::from_le_bytes(chunks),
        )?;
        table.check_directory()?;
        Ok(table)
    }

    fn split(rest: &'a [u8], regions: u32, chunks: u32) -> Result<Self, TableFault> {
        let (region_count, chunk_count) = (regions as usize, chunks as usize);
        if region_count > MAX_REGIONS || chunk_count > MAX_CHUNKS {
            return Err(TableFault::Counts { regions, chunks });
        }
        // No product of counts below their bounds overflows.
        let region_bytes = region_count.saturating_mul(8);
        let start_bytes = chunk_count.saturating_mul(4);
        let padding_bytes = start_bytes & 4;
        let expected = region_bytes
            .saturating_add(start_bytes)
            .saturating_add(padding_bytes)
            .saturating_add(chunk_count.saturating_mul(CHUNK_BYTES));
        let length = TableFault::Length {
            expected: expected.saturating_add(HEADER_BYTES),
            found: rest.len().saturating_add(HEADER_BYTES),
        };
        if rest.len() != expected {
            return Err(length);
        }
        let (regions, rest) = rest.split_at_checked(region_bytes).ok_or(length)?;
        let (starts, rest) = rest.split_at_checked(start_bytes).ok_or(length)?;
        let (padding, chunks) = rest.split_at_checked(padding_bytes).ok_or(length)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(TableFault::Padding);
        }
        Ok(Self {
            regions: regions.as_chunks().0,
            starts: starts.as_chunks().0,
            chunks: chunks.as_chunks().0,
        })
    }

    fn check_directory(&self) -> Result<(), TableFault> {
        let mut previous = None;
        let mut first = 0;
        for nth in 0..self.regions.len() {
            let fault = TableFault::Region { nth };
            let (number, end) = self.region_record(nth).ok_or(fault)?;
            if previous.is_some_and(|previous| number <= previous) {
                return Err(fault);
            }
            let starts = self.starts.get(first..end).ok_or(fault)?;
            if starts.len() > REGION_CHUNKS {
                return Err(fault);
            }
            let mut behind = 0;
            for (chunk, start) in (first..end).zip(starts) {
                let start = u32::from_le_bytes(*start);
                if start < behind || start >> REGION_BITS != 0 {
                    return Err(TableFault::Start { nth: chunk });
                }
                behind = start.saturating_add(1);
            }
            previous = Some(number);
            first = end;
        }
        if first != self.chunks.len() {
            return Err(TableFault::Region {
                nth: self.regions.len(),
            });
        }
        Ok(())
    }

    /// A region's number and the index behind its last chunk.
    fn region_record(&self, nth: usize) -> Option<(u32, usize)> {
        let [a, b, c, d, e, f, g, h] = *self.regions.get(nth)?;
        let number = u32::from_le_bytes([a, b, c, d]);
        let end = u32::from_le_bytes([e, f, g, h]) as usize;
        Some((number, end))
    }

    fn region_chunks(&self, nth: usize) -> Option<(u32, Range<usize>)> {
        let (number, end) = self.region_record(nth)?;
        let first = match nth.checked_sub(1) {
            Some(previous) => self.region_record(previous)?.1,
            None => 0,
        };
        Some((number, first..end))
    }

    /// Number of regions.
    #[must_use]
    pub fn region_count(&self) -> usize {
        self.regions.len()
    }

    /// Number of chunks.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The regions, ascending by number. `chunks` of each are indexes for [`TableFile::chunk`].
    pub fn regions(&self) -> impl Iterator<Item = (u32, Region)> + '_ {
        (0..self.regions.len()).filter_map(|nth| {
            let (number, range) = self.region_chunks(nth)?;
            let mut region = Region::EMPTY;
            region.count = u32::try_from(range.len()).ok()?;
            let starts = self.starts.get(range.clone())?;
            let places = region.starts.iter_mut().zip(region.chunks.iter_mut());
            for ((start, chunk), (from, index)) in places.zip(starts.iter().zip(range)) {
                *start = u32::from_le_bytes(*from);
                *chunk = u32::try_from(index).ok()?;
            }
            Some((number, region))
        })
    }

    /// The nth chunk, unchecked: call [`Chunk::check`] before the kernel sees it.
    #[must_use]
    pub fn chunk(&self, nth: usize) -> Option<Chunk> {
        self.chunks.get(nth).copied().map(Chunk)
    }

    /// Checks every chunk, for readers that look up rules themselves.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check_chunks(&self) -> Result<(), TableFault> {
        for (nth, bytes) in self.chunks.iter().enumerate() {
            Chunk(*bytes)
                .check()
                .map_err(|fault| TableFault::Chunk { nth, fault })?;
        }
        Ok(())
    }

    /// The rule in force at a file offset; `None` where the table has no region or no row before it.
    ///
    /// The twin of the BPF programs' look-up.
    #[must_use]
    pub fn find(&self, file_offset: u64) -> Option<Rule> {
        let region = self
            .regions
            .binary_search_by_key(&u64::from(region_of(file_offset)), |record| {
                let [a, b, c, d, ..] = *record;
                u64::from(u32::from_le_bytes([a, b, c, d]))
            })
            .ok()?;
        if file_offset >> REGION_BITS > u64::from(u32::MAX) {
            return None;
        }
        let (_, range) = self.region_chunks(region)?;
        let within = file_offset & ((1 << REGION_BITS) - 1);
        let starts = self.starts.get(range.clone())?;
        let behind =
            starts.partition_point(|start| u64::from(u32::from_le_bytes(*start)) <= within);
        let nth = behind.checked_sub(1)?;
        let start = u64::from(u32::from_le_bytes(*starts.get(nth)?));
        self.chunk(range.start.checked_add(nth)?)?
            .find(within.checked_sub(start)?)
    }
}

/// Writes a table: regions ascending, each with its chunks ascending.
#[derive(Clone, Debug, Default)]
pub struct TableWriter {
    regions: Vec<(u32, u32)>,
    starts: Vec<u32>,
    chunks: Vec<u8>,
}

impl TableWriter {
    /// Begins a region; the chunks pushed next belong to it.
    pub fn begin_region(&mut self, number: u32) {
        self.regions.push((number, self.starts.len() as u32));
    }

    /// Adds a chunk that starts `start` bytes behind its region's start.
    pub fn push_chunk(&mut self, start: u32, chunk: &[u8; CHUNK_BYTES]) {
        self.starts.push(start);
        self.chunks.extend_from_slice(chunk);
        if let Some((_, end)) = self.regions.last_mut() {
            *end = self.starts.len() as u32;
        }
    }

    /// Number of regions so far.
    #[must_use]
    pub fn region_count(&self) -> usize {
        self.regions.len()
    }

    /// Number of chunks so far.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.starts.len()
    }

    /// The table's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let directory = self
            .regions
            .len()
            .saturating_add(self.starts.len())
            .saturating_mul(8);
        let mut bytes = Vec::with_capacity(
            directory
                .saturating_add(HEADER_BYTES)
                .saturating_add(self.chunks.len()),
        );
        bytes.extend_from_slice(&MAGIC);
        for field in [
            VERSION,
            self.regions.len() as u32,
            self.starts.len() as u32,
            0,
        ] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        for (number, end) in &self.regions {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        for start in &self.starts {
            bytes.extend_from_slice(&start.to_le_bytes());
        }
        if self.starts.len() & 1 == 1 {
            bytes.extend_from_slice(&[0; 4]);
        }
        bytes.extend_from_slice(&self.chunks);
        bytes
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests may panic"
)]
mod tests;
