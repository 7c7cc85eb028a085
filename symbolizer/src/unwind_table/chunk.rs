//! Owns the packing of rows into the chunks and regions of the kernel's format, greedily and in one pass. It knows
//! file offsets and rules, nothing of ELF files.

use ipc_proto::table_file::{MAX_CHUNKS, MAX_REGIONS, TableWriter};
use leadsman_ebpf::limits::{CHUNK_BYTES, CHUNK_SPAN, REGION_BITS, REGION_CHUNKS};
use leadsman_ebpf::rule::Rule;
use leadsman_ebpf::short_rule::ShortRule;
use leadsman_ebpf::table::{CHUNK_HEADER, MAX_RULES, chunk_bytes, region_of};

use super::omission::{Omission, Omissions};

/// Rows of the fullest chunk: one rule for all.
const MAX_ROWS: usize = (CHUNK_BYTES - chunk_bytes(0, 1, 0)) / 3;
const REGION_BYTES: u64 = 1 << REGION_BITS;
/// Places of a chunk's hash table of rules, twice as many as rules; a power of two.
const PLACES: usize = 2 * (MAX_RULES + 1);

/// Packs ascending rows.
#[derive(Debug)]
pub(super) struct Packer {
    writer: TableWriter,
    chunk: ChunkBuilder,
    /// The rule of the latest row, also when there was no room for it.
    in_force: Rule,
    /// File offset of the latest row.
    latest: u64,
    /// The region being written.
    region: Option<u32>,
    /// Chunks of it that are written.
    region_chunks: usize,
    /// It holds all the chunks it can; its rest is uncovered.
    region_full: bool,
    table_full: bool,
    /// Rows in the chunks.
    rows: u64,
    omissions: Omissions,
}

/// A packed table.
#[derive(Debug)]
pub(super) struct PackedRows {
    pub writer: TableWriter,
    pub rows: u64,
    pub omissions: Omissions,
}

impl Packer {
    pub(super) fn new(omissions: Omissions) -> Self {
        Self {
            writer: TableWriter::default(),
            chunk: ChunkBuilder::new(),
            in_force: Rule::UNCOVERED,
            latest: 0,
            region: None,
            region_chunks: 0,
            region_full: false,
            table_full: false,
            rows: 0,
            omissions,
        }
    }

    pub(super) fn omit(&mut self, omission: Omission) {
        self.omissions.add(omission);
    }

    /// From `file_offset` on `rule` holds. A row that repeats the rule in force takes no room.
    #[inline(always)]
    pub(super) fn push(&mut self, file_offset: u64, rule: Rule) {
        if rule == self.in_force {
            return;
        }
        if file_offset < self.latest {
            self.omit(Omission::SegmentsOverlap);
            return;
        }
        if self.region != Some(region_of(file_offset)) {
            if rule == Rule::UNCOVERED && file_offset & (REGION_BYTES - 1) == 0 {
                self.end_coverage_with_region(file_offset);
                return;
            }
            self.enter(file_offset);
        }
        self.in_force = rule;
        self.latest = file_offset;
        self.place(file_offset, rule);
    }

    /// Coverage ends at `file_offset`, and there is a region for each MiB up to there.
    pub(super) fn end_segment(&mut self, file_offset: u64) {
        self.push(file_offset, Rule::UNCOVERED);
        let Some(last) = file_offset.checked_sub(1) else {
            return;
        };
        if self.region.is_none_or(|region| region < region_of(last)) {
            self.enter(last);
        }
    }

    /// Begins a segment: its first region exists also when no row lies there.
    pub(super) fn begin_segment(&mut self, file_offset: u64) {
        let region = region_of(file_offset);
        if self.region.is_none_or(|current| current < region) {
            self.close_region();
            self.open_region(region);
        }
    }

    pub(super) fn finish(mut self) -> PackedRows {
        self.close_region();
        PackedRows {
            writer: self.writer,
            rows: self.rows,
            omissions: self.omissions,
        }
    }

    /// Coverage ends where a region does: no row is needed for that.
    #[cold]
    fn end_coverage_with_region(&mut self, file_offset: u64) {
        let last = file_offset.saturating_sub(1);
        if self.region != Some(region_of(last)) {
            self.enter(last);
        }
        self.in_force = Rule::UNCOVERED;
        self.latest = file_offset;
    }

    /// Goes on to the region of `file_offset`; the regions between get the rule in force, or no row.
    #[cold]
    fn enter(&mut self, file_offset: u64) {
        let target = region_of(file_offset);
        let next = self
            .region
            .map_or(target, |region| region.saturating_add(1));
        self.close_region();
        for region in next..=target {
            if !self.open_region(region) {
                return;
            }
            let start = u64::from(region) * REGION_BYTES;
            if self.in_force != Rule::UNCOVERED && start < file_offset {
                self.place(start, self.in_force);
            }
            if region != target {
                self.close_region();
            }
        }
    }

    /// False when the table has no room for another region.
    fn open_region(&mut self, region: u32) -> bool {
        self.region = Some(region);
        self.region_chunks = 0;
        self.region_full = false;
        if self.writer.region_count() >= MAX_REGIONS {
            if !self.table_full {
                self.omit(Omission::TableFull);
            }
            self.table_full = true;
            return false;
        }
        self.writer.begin_region(region);
        true
    }

    fn close_region(&mut self) {
        self.close_chunk();
    }

    fn close_chunk(&mut self) {
        if self.chunk.row_count == 0 {
            return;
        }
        self.rows += self.chunk.row_count as u64;
        let start = self.chunk.start % REGION_BYTES;
        self.writer.push_chunk(start as u32, &self.chunk.bytes());
        self.region_chunks += 1;
        self.chunk.clear();
    }

    /// Writes a row of the current region.
    #[inline(always)]
    fn place(&mut self, file_offset: u64, rule: Rule) {
        if self.chunk.row_count != 0 && self.chunk.push(file_offset, rule, self.reserve()) {
            return;
        }
        self.place_in_next_chunk(file_offset, rule);
    }

    /// Bytes to be kept free for a row that ends coverage: none may follow the region's or the table's last chunk.
    #[inline(always)]
    fn reserve(&self) -> usize {
        if self.region_chunks + 1 >= REGION_CHUNKS || self.writer.chunk_count() + 1 >= MAX_CHUNKS {
            chunk_bytes(0, 1, 1) - CHUNK_HEADER
        } else {
            0
        }
    }

    fn place_in_next_chunk(&mut self, file_offset: u64, rule: Rule) {
        if self.region_full || self.table_full {
            self.omit(self.full_reason());
            return;
        }
        if self.chunk.row_count != 0 && self.reserve() != 0 {
            self.chunk.end_coverage(file_offset);
            self.region_full = true;
            self.table_full = self.writer.chunk_count() + 1 >= MAX_CHUNKS;
            self.omit(self.full_reason());
            return;
        }
        self.close_chunk();
        if self.writer.chunk_count() >= MAX_CHUNKS {
            self.table_full = true;
            self.omit(Omission::TableFull);
            return;
        }
        self.chunk.start = file_offset;
        let fits = self.chunk.push(file_offset, rule, self.reserve());
        debug_assert!(fits, "an empty chunk holds any row");
    }

    fn full_reason(&self) -> Omission {
        if self.table_full {
            Omission::TableFull
        } else {
            Omission::RegionFull
        }
    }
}

/// The rows of one chunk.
struct ChunkBuilder {
    /// File offset of the first row.
    start: u64,
    rule_count: usize,
    long_rule_count: usize,
    row_count: usize,
    /// From 1 on in the order in which they came; in the chunk the long ones stand before the short ones.
    rules: [Rule; MAX_RULES + 1],
    short_rules: [Option<ShortRule>; MAX_RULES + 1],
    addresses: [u16; MAX_ROWS],
    /// Each row's index into `rules`.
    indices: [u8; MAX_ROWS],
    /// Open hash table of indices into `rules`; zero is free.
    places: [u8; PLACES],
}

/// What stands at index 0: no rule is equal to it.
const NO_RULE: Rule = Rule(u64::MAX);

impl std::fmt::Debug for ChunkBuilder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ChunkBuilder")
            .field("start", &self.start)
            .field("rule_count", &self.rule_count)
            .field("row_count", &self.row_count)
            .finish_non_exhaustive()
    }
}

impl ChunkBuilder {
    fn new() -> Self {
        Self {
            start: 0,
            rule_count: 0,
            long_rule_count: 0,
            row_count: 0,
            rules: [NO_RULE; MAX_RULES + 1],
            short_rules: [None; MAX_RULES + 1],
            addresses: [0; MAX_ROWS],
            indices: [0; MAX_ROWS],
            places: [0; PLACES],
        }
    }

    fn clear(&mut self) {
        self.rule_count = 0;
        self.long_rule_count = 0;
        self.row_count = 0;
        self.places = [0; PLACES];
    }

    /// Adds a row, if it lies within reach and `reserve` bytes stay free behind it.
    #[inline(always)]
    fn push(&mut self, file_offset: u64, rule: Rule, reserve: usize) -> bool {
        let distance = file_offset - self.start;
        if distance >= CHUNK_SPAN {
            return false;
        }
        let room = CHUNK_BYTES - reserve - (chunk_bytes(0, 0, 1) - CHUNK_HEADER);
        let index = match self.find_rule(rule) {
            Ok(index) => (self.len() <= room).then_some(index),
            Err(place) => self.add_rule(rule, place, room, usize::from(reserve != 0)),
        };
        let Some(index) = index else {
            return false;
        };
        self.addresses[self.row_count] = distance as u16;
        self.indices[self.row_count] = index;
        self.row_count += 1;
        true
    }

    /// Bytes used.
    #[inline(always)]
    fn len(&self) -> usize {
        chunk_bytes(
            self.long_rule_count,
            self.rule_count - self.long_rule_count,
            self.row_count,
        )
    }

    /// Adds a rule that is to stand at `place` of the hash table, if no more than `room` bytes are used then, and
    /// `reserve` rules can follow.
    fn add_rule(&mut self, rule: Rule, place: usize, room: usize, reserve: usize) -> Option<u8> {
        let short = ShortRule::of(rule);
        let bytes = if short.is_some() { 4 } else { 8 };
        if self.len() + bytes > room || self.rule_count + reserve >= MAX_RULES {
            return None;
        }
        self.rule_count += 1;
        self.long_rule_count += usize::from(short.is_none());
        self.rules[self.rule_count] = rule;
        self.short_rules[self.rule_count] = short;
        self.places[place] = self.rule_count as u8;
        Some(self.rule_count as u8)
    }

    /// The rule's index, or the free place of the hash table for it when it is new.
    #[inline(always)]
    fn find_rule(&self, rule: Rule) -> Result<u8, usize> {
        // Multiplicative hashing: the high bits of the product depend on all bits of the rule.
        let mut place = (rule.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as usize % PLACES;
        loop {
            let index = self.places[place];
            if self.rules[usize::from(index)] == rule {
                return Ok(index);
            }
            if index == 0 {
                return Err(place);
            }
            place = (place + 1) % PLACES;
        }
    }

    /// Uses the reserve: coverage ends at `file_offset`, or earlier where that is out of the chunk's reach.
    fn end_coverage(&mut self, file_offset: u64) {
        let farthest = self.start + CHUNK_SPAN - 1;
        let latest = self.row_count - 1;
        if self.start + u64::from(self.addresses[latest]) == farthest {
            self.row_count = latest;
        }
        let fits = self.push(file_offset.min(farthest), Rule::UNCOVERED, 0);
        debug_assert!(fits, "the reserve was kept");
    }

    fn bytes(&self) -> [u8; CHUNK_BYTES] {
        let (long_count, short_count) =
            (self.long_rule_count, self.rule_count - self.long_rule_count);
        let mut bytes = [0; CHUNK_BYTES];
        bytes[0] = long_count as u8;
        bytes[1] = short_count as u8;
        bytes[2..4].copy_from_slice(&(self.row_count as u16).to_le_bytes());
        let (long, rest) = bytes[CHUNK_HEADER..].split_at_mut(8 * long_count);
        let (short, rows) = rest.split_at_mut(4 * short_count);
        let (long, short) = (long.as_chunks_mut().0, short.as_chunks_mut().0);
        let (mut next_long, mut next_short) = (0, 0);
        let mut numbers = [0; MAX_RULES + 1];
        let rules = self.rules.iter().zip(&self.short_rules);
        let numbered = numbers.iter_mut().zip(rules).skip(1);
        for (number, (rule, short_rule)) in numbered.take(self.rule_count) {
            *number = if let Some(rule) = short_rule {
                short[next_short] = rule.0.to_le_bytes();
                next_short += 1;
                (long_count + next_short - 1) as u8
            } else {
                long[next_long] = rule.0.to_le_bytes();
                next_long += 1;
                (next_long - 1) as u8
            };
        }
        let (addresses, row_rules) = rows.split_at_mut(2 * self.row_count);
        for (place, address) in addresses.as_chunks_mut().0.iter_mut().zip(&self.addresses) {
            *place = address.to_le_bytes();
        }
        for (place, &index) in row_rules.iter_mut().zip(&self.indices[..self.row_count]) {
            *place = numbers[usize::from(index)];
        }
        bytes
    }
}

#[cfg(test)]
mod tests;
