//! Owns the calls that were inlined into one function: which addresses each covers, and where it was called.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use gimli::{AttributeValue, EndianSlice, EntriesRaw, LittleEndian, UnitOffset, constants};

use super::sections::Sections;
use super::unit::{PcAttributes, Unit};
use crate::reason::Reason;
use crate::work::Work;

/// Ranges of calls inlined into one function.
const MAX_CALLS: usize = 1 << 18;

/// A range of one inlined call.
#[derive(Clone, Copy, Debug)]
pub(super) struct InlinedCall {
    /// ELF address of the range's first byte.
    pub begin: u64,
    end: u64,
    /// 1 for calls in the function itself, 2 for calls inlined into those, ...
    pub depth: u32,
    /// Its entry, counted from the unit's first byte.
    pub entry: u32,
    /// `DW_AT_call_file`: a number of the unit's line program.
    pub file: u64,
    /// `DW_AT_call_line`.
    pub line: u32,
}

/// All calls inlined into a function.
#[derive(Debug)]
pub(super) struct InlinedCalls {
    calls: Vec<InlinedCall>,
}

impl InlinedCalls {
    /// Walks the entries from `entry` up to `end`. What stands before a damaged entry is kept.
    pub(super) fn read(
        sections: &Sections,
        unit: &Unit,
        entry: u32,
        end: u32,
        work: &Work,
    ) -> Result<Self, Reason> {
        let size = u64::from(end.saturating_sub(entry));
        work.spend(size)?;
        let start = unit
            .place
            .offset
            .checked_add(entry.into())
            .ok_or(Reason::DebuginfoDamaged)?;
        let bytes = sections.info.read(start, size)?;
        let mut calls = Vec::new();
        let walked = walk(&bytes, entry, unit, sections, work, &mut calls);
        // Damage ends the walk: what stands before it is good.
        if walked == Err(Some(Reason::WorkLimit)) {
            return Err(Reason::WorkLimit);
        }
        Ok(Self { calls })
    }

    /// The calls that cover an address, in no order.
    pub(super) fn at(&self, address: u64) -> impl Iterator<Item = &InlinedCall> {
        self.calls
            .iter()
            .filter(move |call| call.begin <= address && address < call.end)
    }
}

/// Why the walk ended early: a reason, or damage that gimli found.
type Stop = Option<Reason>;

fn walk(
    bytes: &[u8],
    first: u32,
    unit: &Unit,
    sections: &Sections,
    work: &Work,
    calls: &mut Vec<InlinedCall>,
) -> Result<(), Stop> {
    let mut entries = EntriesRaw::new(
        EndianSlice::new(bytes, LittleEndian),
        unit.encoding,
        &unit.abbreviations,
        UnitOffset(first as usize),
    );
    // Depths of the inlined calls that the next entry is below.
    let mut open: Vec<isize> = Vec::new();
    // Depth of a function inside the function: what is below has its own tables.
    let mut nested: Option<isize> = None;
    while !entries.is_empty() {
        let depth = entries.next_depth();
        let offset = entries.next_offset().0;
        while open.last().is_some_and(|open| depth <= *open) {
            open.pop();
        }
        if nested.is_some_and(|nested| depth <= nested) {
            nested = None;
        }
        let Some(abbreviation) = entries.read_abbreviation().map_err(|_damage| None)? else {
            continue;
        };
        let attributes = abbreviation.attributes();
        work.spend_entry(attributes.len())?;
        if depth > 0 && abbreviation.tag() == constants::DW_TAG_subprogram && nested.is_none() {
            nested = Some(depth);
        }
        if abbreviation.tag() != constants::DW_TAG_inlined_subroutine || nested.is_some() {
            entries
                .skip_attributes(attributes)
                .map_err(|_damage| None)?;
            continue;
        }
        let mut pc = PcAttributes::default();
        let (mut file, mut line) = (0, 0);
        for specification in attributes {
            let attribute = entries
                .read_attribute(*specification)
                .map_err(|_damage| None)?;
            match (attribute.name(), attribute.value()) {
                (constants::DW_AT_call_file, AttributeValue::FileIndex(index)) => file = index,
                (constants::DW_AT_call_line, value) => {
                    line = value
                        .udata_value()
                        .and_then(|line| u32::try_from(line).ok())
                        .unwrap_or(0);
                }
                (name, value) => pc.take(name, value, unit, sections),
            }
        }
        open.push(depth);
        let entry = u32::try_from(offset).map_err(|_error| Some(Reason::DebuginfoTooLarge))?;
        let level = u32::try_from(open.len()).unwrap_or(u32::MAX);
        let read = pc.ranges(unit, sections, work, |begin, end| {
            if calls.len() < MAX_CALLS {
                calls.push(InlinedCall {
                    begin,
                    end,
                    depth: level,
                    entry,
                    file,
                    line,
                });
            }
        });
        if read == Err(Reason::WorkLimit) {
            return Err(Some(Reason::WorkLimit));
        }
    }
    Ok(())
}
