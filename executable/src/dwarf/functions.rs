//! Owns the functions of one unit: which addresses each covers and where its entry is. Names and inlined calls are
//! read when they are asked for.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use gimli::{EndianSlice, EntriesRaw, LittleEndian, UnitOffset, constants};

use super::sections::Sections;
use super::unit::{PcAttributes, Unit};
use crate::reason::Reason;
use crate::work::Work;

/// Bytes of the largest unit that is read; whole-program builds of large programs reach about 60 MB.
const MAX_UNIT: u64 = 192 << 20;
/// Ranges of functions of one unit.
const MAX_RANGES: usize = 4 << 20;
/// Functions around an address that are asked whether they cover it.
const MAX_NESTED: usize = 64;

/// A range of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    /// ELF address of the range's first byte.
    pub begin: u64,
    end: u64,
    /// Where the function's first range begins: its entry point.
    pub start: u64,
    /// Its entry, counted from the unit's first byte.
    pub entry: u32,
    /// Behind the last entry below it.
    pub entry_end: u32,
}

/// The functions of a unit, ascending by address.
#[derive(Debug, Default)]
pub(super) struct Functions {
    ranges: Vec<Function>,
}

impl Functions {
    /// Walks all entries of the unit once. What stands before a damaged entry is kept.
    pub(super) fn read(sections: &Sections, unit: &Unit, work: &Work) -> Result<Self, Reason> {
        let start = unit
            .place
            .offset
            .checked_add(unit.entries)
            .ok_or(Reason::DebuginfoDamaged)?;
        let size = unit
            .place
            .end
            .checked_sub(start)
            .ok_or(Reason::DebuginfoDamaged)?;
        if size > MAX_UNIT {
            return Err(Reason::DebuginfoTooLarge);
        }
        work.spend(size)?;
        let bytes = sections.info.read(start, size)?;
        let mut walk = Walk {
            sections,
            unit,
            work,
            ranges: Vec::new(),
            open: Vec::new(),
        };
        let entries = EntriesRaw::new(
            EndianSlice::new(&bytes, LittleEndian),
            unit.encoding,
            &unit.abbreviations,
            UnitOffset(usize::try_from(unit.entries).map_err(|_error| Reason::DebuginfoDamaged)?),
        );
        match walk.run(entries) {
            Ok(()) | Err(Stop::Damaged) => {}
            Err(Stop::Reason(reason)) => return Err(reason),
        }
        let mut ranges = walk.ranges;
        ranges.sort_unstable_by_key(|range| (range.begin, std::cmp::Reverse(range.end)));
        ranges.shrink_to_fit();
        Ok(Self { ranges })
    }

    /// The innermost function that covers an address.
    pub(super) fn find(&self, address: u64) -> Option<Function> {
        let end = self.ranges.partition_point(|range| range.begin <= address);
        let before = self.ranges.get(..end)?;
        before
            .iter()
            .rev()
            .take(MAX_NESTED)
            .find(|range| address < range.end)
            .copied()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(self.ranges.as_slice())
    }
}

enum Stop {
    Damaged,
    Reason(Reason),
}

impl From<gimli::Error> for Stop {
    fn from(_error: gimli::Error) -> Self {
        Self::Damaged
    }
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

struct Walk<'a> {
    sections: &'a Sections,
    unit: &'a Unit,
    work: &'a Work,
    ranges: Vec<Function>,
    /// Functions whose entries below are being walked: depth, first of their ranges, behind the last of them.
    open: Vec<(isize, usize, usize)>,
}

impl<'a> Walk<'a> {
    fn run(
        &mut self,
        mut entries: EntriesRaw<'_, EndianSlice<'a, LittleEndian>>,
    ) -> Result<(), Stop> {
        while !entries.is_empty() {
            let depth = entries.next_depth();
            let offset = entries.next_offset().0;
            self.close(depth, offset);
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            let attributes = abbreviation.attributes();
            // An entry of one byte may have any number of attributes without bytes.
            self.work.spend_entry(attributes.len())?;
            if abbreviation.tag() != constants::DW_TAG_subprogram {
                entries.skip_attributes(attributes)?;
                continue;
            }
            let mut pc = PcAttributes::default();
            for specification in attributes {
                let attribute = entries.read_attribute(*specification)?;
                pc.take(
                    attribute.name(),
                    attribute.value(),
                    self.unit,
                    self.sections,
                );
            }
            let first = self.ranges.len();
            let entry = u32::try_from(offset).map_err(|_error| Reason::DebuginfoTooLarge)?;
            let next = u32::try_from(entries.next_offset().0)
                .map_err(|_error| Reason::DebuginfoTooLarge)?;
            let ranges = &mut self.ranges;
            let mut start = None;
            let read = pc.ranges(self.unit, self.sections, self.work, |begin, end| {
                if begin != 0 && ranges.len() < MAX_RANGES {
                    ranges.push(Function {
                        begin,
                        end,
                        start: *start.get_or_insert(begin),
                        entry,
                        entry_end: next,
                    });
                }
            });
            // A damaged range list costs this function only.
            if read == Err(Reason::WorkLimit) {
                return Err(Reason::WorkLimit.into());
            }
            if abbreviation.has_children() && self.ranges.len() > first {
                self.open.push((depth, first, self.ranges.len()));
            }
        }
        Ok(())
    }

    /// Ends the functions that an entry of this depth does not belong to.
    fn close(&mut self, depth: isize, offset: usize) {
        while let Some(&(open, first, last)) = self.open.last() {
            if depth > open {
                break;
            }
            let end = u32::try_from(offset).unwrap_or(u32::MAX);
            for range in self.ranges.get_mut(first..last).unwrap_or_default() {
                range.entry_end = end;
            }
            self.open.pop();
        }
    }
}
