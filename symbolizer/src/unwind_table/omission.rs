//! Owns the reasons why a part of a file's call frame information is not in its table as a rule, and their counts.

use std::fmt;

/// Why an entry or some rows are not in the table as rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Omission {
    // === Whole sections and entries ===
    /// An entry reaches behind the end of its section; what follows was found again through `.eh_frame_hdr`, or lost.
    EntryTruncated,
    /// A section is larger than is read; the rest was left.
    SectionTooLarge,
    /// More entries than are kept.
    TooManyEntries,
    /// The CIE of an FDE is missing, truncated or of an unknown version.
    BadCie,
    /// A CIE has an augmentation that is not known.
    UnknownAugmentation,
    /// A CIE's return address column is not that of x86-64.
    ReturnAddressColumn,
    /// An address is in an encoding that needs memory or an unknown base.
    BadPointer,
    /// An FDE covers no byte, or its function was discarded by the linker.
    EmptyFunction,
    /// An FDE covers 4 GiB or more.
    FunctionTooLong,
    /// An FDE lies outside of the file's executable segments.
    OutsideText,
    /// An FDE starts where another one does.
    DuplicateFunction,
    /// The end of an FDE overlaps the next one and was cut.
    OverlapCut,
    // === Rows that became an "unsupported" marker ===
    /// An instruction is unknown, truncated or out of place; the function's rows up to it stand.
    BadInstruction,
    /// `DW_CFA_remember_state` nested deeper than any compiler does, or `DW_CFA_restore_state` without it.
    StateStack,
    /// The CFA is computed by an expression that the walker does not know.
    CfaExpression,
    /// The CFA is undefined, or computed from a register that is none of the sixteen.
    CfaRegister,
    /// The CFA is farther from its register than a rule can say.
    CfaOffset,
    /// The return address is saved elsewhere than at CFA - 8.
    ReturnAddress,
    /// The caller's rsp is not the CFA.
    StackPointer,
    /// A signal frame whose rules are not those of the kernel's `rt_sigframe`.
    SignalFrame,
    // === Registers that became "lost" in a rule ===
    /// A callee-saved register is saved where a rule can not say.
    RegisterLost,
    // === Bounds of the kernel's format ===
    /// More rows than a region's chunks hold; the rest of the region is uncovered.
    RegionFull,
    /// More chunks or regions than a table may have; what follows is uncovered.
    TableFull,
    /// Two executable segments show the same bytes of the file.
    SegmentsOverlap,
}

impl Omission {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 24] = [
        Self::EntryTruncated,
        Self::SectionTooLarge,
        Self::TooManyEntries,
        Self::BadCie,
        Self::UnknownAugmentation,
        Self::ReturnAddressColumn,
        Self::BadPointer,
        Self::EmptyFunction,
        Self::FunctionTooLong,
        Self::OutsideText,
        Self::DuplicateFunction,
        Self::OverlapCut,
        Self::BadInstruction,
        Self::StateStack,
        Self::CfaExpression,
        Self::CfaRegister,
        Self::CfaOffset,
        Self::ReturnAddress,
        Self::StackPointer,
        Self::SignalFrame,
        Self::RegisterLost,
        Self::RegionFull,
        Self::TableFull,
        Self::SegmentsOverlap,
    ];

    /// The name in metrics and inspection.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EntryTruncated => "entry_truncated",
            Self::SectionTooLarge => "section_too_large",
            Self::TooManyEntries => "too_many_entries",
            Self::BadCie => "bad_cie",
            Self::UnknownAugmentation => "unknown_augmentation",
            Self::ReturnAddressColumn => "return_address_column",
            Self::BadPointer => "bad_pointer",
            Self::EmptyFunction => "empty_function",
            Self::FunctionTooLong => "function_too_long",
            Self::OutsideText => "outside_text",
            Self::DuplicateFunction => "duplicate_function",
            Self::OverlapCut => "overlap_cut",
            Self::BadInstruction => "bad_instruction",
            Self::StateStack => "state_stack",
            Self::CfaExpression => "cfa_expression",
            Self::CfaRegister => "cfa_register",
            Self::CfaOffset => "cfa_offset",
            Self::ReturnAddress => "return_address",
            Self::StackPointer => "stack_pointer",
            Self::SignalFrame => "signal_frame",
            Self::RegisterLost => "register_lost",
            Self::RegionFull => "region_full",
            Self::TableFull => "table_full",
            Self::SegmentsOverlap => "segments_overlap",
        }
    }
}

impl fmt::Display for Omission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// How often each [`Omission`] happened while one table was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omissions {
    counts: [u64; Omission::ALL.len()],
}

impl Omissions {
    pub(super) fn add(&mut self, omission: Omission) {
        if let Some(count) = self.counts.get_mut(omission as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// How often `omission` happened: entries, rows or cuts.
    #[must_use]
    pub fn count(&self, omission: Omission) -> u64 {
        self.counts.get(omission as usize).copied().unwrap_or(0)
    }

    /// Those that happened, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Omission, u64)> + '_ {
        Omission::ALL
            .into_iter()
            .zip(self.counts)
            .filter(|&(_, count)| count != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_each_reason_at_its_number() {
        for (number, omission) in Omission::ALL.into_iter().enumerate() {
            assert_eq!(omission as usize, number);
        }
    }
}
