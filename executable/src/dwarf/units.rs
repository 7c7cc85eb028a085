//! Owns the list of a file's units and which addresses each covers, from `.debug_aranges` where it speaks of a unit,
//! else from the unit's root entry.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::collections::HashMap;
use std::sync::Arc;

use gimli::{Abbreviations, DebugAranges};

use super::sections::Sections;
use super::unit::{Header, Unit, UnitPlace};
use crate::elf::Elf;
use crate::reason::Reason;
use crate::work::Work;

/// Units of one file; the largest browsers have about 50,000.
const MAX_UNITS: usize = 1 << 20;
/// Ranges of all units of one file: 200 MB of them.
const MAX_RANGES: usize = 8 << 20;
/// Bytes of `.debug_aranges`.
const MAX_ARANGES: u64 = 128 << 20;
/// Units that are asked about one address.
const MAX_CANDIDATES: usize = 8;

#[derive(Clone, Copy, Debug)]
struct UnitRange {
    begin: u64,
    end: u64,
    /// The greatest end of this and all ranges before it: where looking back may stop.
    greatest_end: u64,
    unit: u32,
}

/// The units of a file.
#[derive(Debug)]
pub(super) struct Units {
    places: Vec<UnitPlace>,
    ranges: Vec<UnitRange>,
}

impl Units {
    /// Reads all unit headers, and the root entries of units that `.debug_aranges` leaves out. A damaged unit ends
    /// the list: there is no way to find the next one.
    pub(super) fn read(sections: &Sections, elf: &Elf, work: &Work) -> Result<Self, Reason> {
        let mut places = Vec::new();
        let mut with_code = Vec::new();
        let mut offset = 0;
        while offset < sections.info.len() {
            work.spend(64)?;
            let header = match Header::read(sections, offset) {
                Ok(header) => header,
                Err(reason) if places.is_empty() => return Err(reason),
                Err(_reason) => break,
            };
            if places.len() >= MAX_UNITS || header.place.end <= offset {
                return Err(Reason::DebuginfoTooLarge);
            }
            offset = header.place.end;
            places.push(header.place);
            with_code.push(header.has_code);
        }
        let mut found = Found {
            elf,
            ranges: Vec::new(),
        };
        let mut covered = vec![false; places.len()];
        // Damage here costs nothing: the root entries say the same.
        let _partial = read_aranges(sections, &places, &mut covered, &mut found, work);
        let mut shared: Option<(u64, Arc<Abbreviations>)> = None;
        for (number, (place, has_code)) in places.iter().zip(&with_code).enumerate() {
            if !has_code || covered.get(number).copied().unwrap_or(true) {
                continue;
            }
            let reuse = shared.as_ref().map(|(offset, shared)| (*offset, shared));
            match Unit::read(sections, *place, reuse, work) {
                Ok(unit) => {
                    for &(begin, end) in &unit.ranges {
                        found.push(begin, end, number)?;
                    }
                    shared = Some((unit.abbreviations_offset, unit.abbreviations));
                }
                Err(Reason::WorkLimit) => return Err(Reason::WorkLimit),
                // One damaged root entry never costs the other units.
                Err(_reason) => {}
            }
        }
        Ok(Self {
            places,
            ranges: found.sorted(),
        })
    }

    /// Units that cover an address, the one whose range starts last first.
    pub(super) fn at(&self, address: u64) -> Vec<u32> {
        let end = self.ranges.partition_point(|range| range.begin <= address);
        let before = self.ranges.get(..end).unwrap_or_default();
        let mut units = Vec::new();
        for range in before.iter().rev() {
            if range.greatest_end <= address || units.len() >= MAX_CANDIDATES {
                break;
            }
            if address < range.end && !units.contains(&range.unit) {
                units.push(range.unit);
            }
        }
        units
    }

    /// Where a unit is.
    pub(super) fn place(&self, unit: u32) -> Option<UnitPlace> {
        self.places.get(usize::try_from(unit).ok()?).copied()
    }

    /// The unit that has the entry at this offset of `.debug_info`.
    pub(super) fn of_entry(&self, offset: u64) -> Option<u32> {
        let number = self
            .places
            .partition_point(|place| place.offset <= offset)
            .checked_sub(1)?;
        let place = self.places.get(number)?;
        (offset < place.end).then(|| u32::try_from(number).ok())?
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(self.places.as_slice()).saturating_add(size_of_val(self.ranges.as_slice()))
    }
}

/// Ranges of code that were found.
struct Found<'a> {
    elf: &'a Elf,
    ranges: Vec<UnitRange>,
}

impl Found<'_> {
    fn push(&mut self, begin: u64, end: u64, unit: usize) -> Result<(), Reason> {
        // Functions that the linker discarded have ranges at 0 or 1, or at the end of the address space.
        if begin >= end || !self.elf.is_text(begin) {
            return Ok(());
        }
        if self.ranges.len() >= MAX_RANGES {
            return Err(Reason::DebuginfoTooLarge);
        }
        self.ranges.push(UnitRange {
            begin,
            end,
            greatest_end: 0,
            unit: u32::try_from(unit).map_err(|_error| Reason::DebuginfoTooLarge)?,
        });
        Ok(())
    }

    fn sorted(mut self) -> Vec<UnitRange> {
        self.ranges
            .sort_unstable_by_key(|range| (range.begin, std::cmp::Reverse(range.end), range.unit));
        self.ranges.shrink_to_fit();
        let mut greatest_end = 0;
        for range in &mut self.ranges {
            greatest_end = range.end.max(greatest_end);
            range.greatest_end = greatest_end;
        }
        self.ranges
    }
}

fn read_aranges(
    sections: &Sections,
    places: &[UnitPlace],
    covered: &mut [bool],
    found: &mut Found<'_>,
    work: &Work,
) -> Result<(), Reason> {
    let size = sections.aranges.len();
    if size > MAX_ARANGES {
        return Err(Reason::DebuginfoTooLarge);
    }
    work.spend(size)?;
    let bytes = sections.aranges.read(0, size)?;
    let numbers: HashMap<u64, usize> = places
        .iter()
        .enumerate()
        .map(|(number, place)| (place.offset, number))
        .collect();
    let aranges = DebugAranges::new(&bytes, gimli::LittleEndian);
    let mut headers = aranges.headers();
    while let Ok(Some(header)) = headers.next() {
        let Some(&number) = numbers.get(&(header.debug_info_offset().0 as u64)) else {
            continue;
        };
        let mut entries = header.entries();
        let start = found.ranges.len();
        let whole = loop {
            match entries.next() {
                Ok(Some(entry)) => {
                    let range = entry.range();
                    found.push(range.begin, range.end, number)?;
                }
                Ok(None) => break true,
                Err(_error) => break false,
            }
        };
        if whole && found.ranges.len() > start {
            if let Some(covered) = covered.get_mut(number) {
                *covered = true;
            }
        } else {
            found.ranges.truncate(start);
        }
    }
    Ok(())
}
