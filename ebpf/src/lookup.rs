//! From a pc to its rule: the process's mapping, the region's chunk, the chunk's row.
//!
//! Every search is a fixed number of branchless halvings; every index is checked behind a barrier, because older
//! verifiers do not follow the arithmetic, and a check that LLVM can prove would vanish.

use leadsman_ebpf::abi::{BlockKey, MISSING_SHIFT, Process, mapping_kind};
use leadsman_ebpf::limits::{
    BLOCK_MAPPINGS, CHUNK_BYTES, CHUNK_SPAN, PROCESS_BLOCKS, REGION_BITS, REGION_CHUNKS,
};
use leadsman_ebpf::rule::Rule;
use leadsman_ebpf::short_rule::{SAVED, ShortRule};
use leadsman_ebpf::stop::StopReason;
use leadsman_ebpf::table::{CHUNK_HEADER, RegionKey, region_of};

use crate::maps::{CHUNKS, MAPPINGS, PROCESSES, REGIONS, Scratch};
use crate::memory::{not_above, opaque};
use crate::parent::take_ancestors_mappings;

/// Greatest address that takes part in a comparison: user addresses end below 2^47 (2^56 with five levels).
const ADDRESS_MAX: u64 = (1 << 63) - 2;

/// Index of the last of `COUNT` ascending starts that is not above `address`; 0 also when all are above.
macro_rules! last_start {
    ($starts:expr, $count:expr, $address:expr) => {{
        let starts = $starts;
        let mut position = 0u64;
        let mut length = $count as u64;
        while length > 1 {
            let half = length / 2;
            let probe = opaque(position + half);
            if probe >= $count as u64 {
                return Err(StopReason::TableInvalid);
            }
            let start = u64::from(*starts.add(probe as usize)) & ADDRESS_MAX;
            position += half * not_above(start, $address);
            length -= half;
        }
        let position = opaque(position);
        if position >= $count as u64 {
            return Err(StopReason::TableInvalid);
        }
        position
    }};
}

/// The process whose mappings apply, if it is still the one meant.
#[inline(always)]
pub(crate) fn owner(scratch: &mut Scratch) -> Option<*const Process> {
    scratch.helpers += 1;
    let process = PROCESSES.get_ptr(&scratch.owner_tgid)?;
    // SAFETY: the verifier checked the map value.
    let is_meant = unsafe {
        (*process).start_time == scratch.owner_start_time
            && (*process).exec_id == scratch.owner_exec_id
    };
    is_meant.then_some(process)
}

/// Makes the executable mapping around `pc` the scratch space's current one.
#[inline(always)]
pub(crate) fn find_mapping(scratch: &mut Scratch, pc: u64) -> Result<(), StopReason> {
    if pc.wrapping_sub(scratch.mapping_start) < scratch.mapping_length {
        return Ok(());
    }
    if pc > ADDRESS_MAX {
        return Err(StopReason::NoMapping);
    }
    let found = match owner(scratch) {
        None if take_ancestors_mappings() != 0 => owner(scratch),
        found => found,
    };
    let Some(process) = found else {
        return Err(StopReason::ProcessUnknown);
    };
    let tgid = scratch.owner_tgid;
    scratch.helpers += 1;
    // SAFETY: the verifier checked the map value; `last_start` checks each index.
    unsafe {
        let block = last_start!(
            (&raw const (*process).starts).cast::<u64>(),
            PROCESS_BLOCKS,
            pc
        );
        let key = BlockKey {
            tgid,
            block: (block as u32).wrapping_add((*process).first_block),
        };
        let Some(block) = MAPPINGS.get_ptr(&key) else {
            return Err(StopReason::NoMapping);
        };
        let starts = (&raw const (*block).starts).cast::<u64>();
        let index = last_start!(starts, BLOCK_MAPPINGS, pc) as usize;
        let start = *starts.add(index);
        let mapping = (&raw const (*block).mappings)
            .cast::<leadsman_ebpf::abi::Mapping>()
            .add(index);
        if pc < start || pc >= (*mapping).end {
            return Err(StopReason::NoMapping);
        }
        scratch.mapping_start = start;
        scratch.mapping_length = (*mapping).end.wrapping_sub(start);
        scratch.to_file_offset = (*mapping).to_file_offset;
        scratch.table = (*mapping).table;
        scratch.mapping_kind = (*mapping).kind;
    }
    Ok(())
}

/// Whether the current mapping's code is walked by frame pointer only.
#[inline(always)]
pub(crate) fn has_no_table(scratch: &Scratch) -> bool {
    scratch.mapping_kind != mapping_kind::TABLE
}

/// Whether it is so because the executable could not be read.
#[inline(always)]
pub(crate) fn is_unreadable(scratch: &Scratch) -> bool {
    scratch.mapping_kind == mapping_kind::UNREADABLE
}

/// The rule in force at `pc` of the current mapping.
#[inline(always)]
pub(crate) fn find_rule(scratch: &mut Scratch, pc: u64) -> Result<Rule, StopReason> {
    let offset = pc.wrapping_add(scratch.to_file_offset);
    scratch.header.missing =
        u64::from(scratch.table) << 32 | offset >> MISSING_SHIFT & u64::from(u32::MAX);
    let key = RegionKey {
        table: scratch.table,
        region: region_of(offset),
    };
    scratch.helpers += 2;
    let Some(region) = REGIONS.get_ptr(&key) else {
        return Err(StopReason::TableMissing);
    };
    let offset = offset & ((1 << REGION_BITS) - 1);
    // SAFETY: the verifier checked the map values; each index is checked before its use.
    unsafe {
        if (*region).count == 0 {
            return Ok(Rule::UNCOVERED);
        }
        let starts = (&raw const (*region).starts).cast::<u32>();
        let index = last_start!(starts, REGION_CHUNKS, offset) as usize;
        let start = u64::from(*starts.add(index));
        if start > offset {
            return Ok(Rule::UNCOVERED);
        }
        let number = *(&raw const (*region).chunks).cast::<u32>().add(index);
        let Some(chunk) = CHUNKS.get_ptr(&number) else {
            return Err(StopReason::TableMissing);
        };
        let chunk = chunk.cast::<u8>();
        let mut distance = offset - start;
        if distance >= CHUNK_SPAN {
            distance = CHUNK_SPAN - 1;
        }
        let long_rules = u64::from(*chunk);
        let short_rules = u64::from(*chunk.add(1));
        let rows = u64::from(*chunk.cast::<u16>().add(1));
        let addresses = CHUNK_HEADER as u64 + 8 * long_rules + 4 * short_rules;
        // Halve over the largest possible number of rows; probes behind the last row count as above.
        let mut position = 0u64;
        let mut half = 512u64;
        while half > 0 {
            let inside = not_above(position + half + 1, rows);
            let probe = position + half * inside;
            let at = opaque(addresses + 2 * probe);
            if at > (CHUNK_BYTES - 2) as u64 {
                return Err(StopReason::TableInvalid);
            }
            let address = u64::from(*chunk.add(at as usize).cast::<u16>());
            position += half * (inside & not_above(address, distance));
            half /= 2;
        }
        let at = opaque(addresses + 2 * rows + position);
        if at > (CHUNK_BYTES - 1) as u64 {
            return Err(StopReason::TableInvalid);
        }
        let rule = rule_numbered(chunk, u64::from(*chunk.add(at as usize)), long_rules)?;
        // The sampler may have given the chunk up meanwhile, and its memory to another one.
        if chunk.cast::<u32>().add(1).read_volatile() != number {
            return Err(StopReason::TableMissing);
        }
        Ok(rule)
    }
}

/// A chunk's rule of that number: the short ones stand behind the long ones.
///
/// # Safety
/// `chunk` points to [`CHUNK_BYTES`] readable bytes.
#[inline(always)]
unsafe fn rule_numbered(
    chunk: *const u8,
    number: u64,
    long_rules: u64,
) -> Result<Rule, StopReason> {
    // SAFETY: each index is checked before its use.
    unsafe {
        if number < long_rules {
            let at = opaque(CHUNK_HEADER as u64 + 8 * number);
            if at > (CHUNK_BYTES - 8) as u64 {
                return Err(StopReason::TableInvalid);
            }
            return Ok(Rule(*chunk.add(at as usize).cast::<u64>()));
        }
        let at = opaque(CHUNK_HEADER as u64 + 4 * (long_rules + number));
        if at > (CHUNK_BYTES - 4) as u64 {
            return Err(StopReason::TableInvalid);
        }
        let short = ShortRule(*chunk.add(at as usize).cast::<u32>());
        let saved = opaque(short.saved().into());
        if saved >= SAVED.len() as u64 {
            return Err(StopReason::TableInvalid);
        }
        Ok(short.with_saved(*SAVED.as_ptr().add(saved as usize)))
    }
}
