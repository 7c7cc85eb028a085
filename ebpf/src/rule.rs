//! One unwind rule packed into 64 bits: how to find the caller's registers from a frame's.
//!
//! ```text
//! bits  0..5   kind: what the CFA is computed from
//! bits  5..27  offset: bytes added, signed
//! bits 27..39  rbp's slot
//! bits 39..64  slots of rbx, r12, r13, r14, r15, five bits each
//! ```
//!
//! A slot k says where the caller's value of a register was saved: 0 nowhere (the register still holds it),
//! the largest value "lost", anything else at `slot base - 8 k`. The slot base is the CFA, but `rbp + 8` for
//! [`Kind::REALIGNED`] and [`Kind::REALIGNING`]. The return address is at CFA - 8, unless the kind says otherwise.
//!
//! Kinds that need more than an offset divide its bits, lowest first:
//!
//! ```text
//! REALIGNING          register 4, offset 18 (signed, bytes)
//! RETURN_IN_REGISTER  register 4, offset 18 (signed, bytes)
//! DEREF               register 4, addend 7 (words), offset 11 (signed, words)
//! DEREF_INDEXED       index register 4, addend 7 (words), offset 11 (signed, words)
//! ```

use crate::registers::number;

/// What a rule computes the CFA from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// Kinds 0 to 15: CFA = register of that DWARF number + offset.
    #[must_use]
    pub const fn register(number: u8) -> Self {
        Self(number)
    }
    /// CFA = *(rbp + offset); registers are saved below `rbp + 8`: gcc's realigned stack frames
    /// (`DW_CFA_def_cfa_expression: DW_OP_breg6 offset, DW_OP_deref`).
    pub const REALIGNED: Self = Self(16);
    /// CFA = register + offset; registers are saved below `rbp + 8`: the first and last instructions of such functions,
    /// while r10 (r13 in nested functions) still holds the CFA.
    pub const REALIGNING: Self = Self(17);
    /// CFA = *(register + offset) + addend; registers are saved below the CFA: OpenSSL's assembly, which keeps the
    /// caller's rsp in its frame.
    pub const DEREF: Self = Self(18);
    /// CFA = *(rsp + offset + 8 * index register) + addend: OpenSSL's Montgomery multiplication.
    pub const DEREF_INDEXED: Self = Self(19);
    /// CFA = rsp + 8 + 8 * ((pc & 15) >= offset): a lazy PLT entry as GNU ld describes it.
    pub const PLT: Self = Self(20);
    /// The frame was pushed by the kernel for a signal: `rt_sigframe` stands at rsp.
    pub const SIGNAL: Self = Self(21);
    /// CFA = rbp + 16, on whatever stack that is, rbp saved below it: Go's runtime, which changes stacks and keeps the
    /// frame pointer. A frame pointer of zero is the root.
    pub const SWITCHED: Self = Self(22);
    /// CFA = rsp + offset, the return address is in a register: glibc's `vfork`, which has taken it from the stack.
    pub const RETURN_IN_REGISTER: Self = Self(23);
    /// The return address is undefined: the root of the stack.
    pub const END: Self = Self(24);
    /// The table has a rule here that this format does not express.
    pub const UNSUPPORTED: Self = Self(25);
    /// No rule: coverage ends here.
    pub const UNCOVERED: Self = Self(26);
    /// The greatest kind there is.
    pub const LAST: Self = Self::UNCOVERED;
}

/// Largest slot of rbp: a saved rbp lies at most 8 * this below the slot base.
pub const MAX_RBP_SLOT: u16 = (1 << 12) - 2;
/// rbp is lost.
pub const RBP_LOST: u16 = (1 << 12) - 1;
/// Largest slot of rbx, r12 to r15.
pub const MAX_SLOT: u8 = (1 << 5) - 2;
/// The register is lost.
pub const SLOT_LOST: u8 = (1 << 5) - 1;

/// The callee-saved registers with a five-bit slot, in the order of their bits.
pub const SLOT_REGISTERS: [u8; 5] = [
    number::RBX,
    number::R12,
    number::R13,
    number::R14,
    number::R15,
];

const OFFSET_SHIFT: u32 = 5;
const OFFSET_BITS: u32 = 22;
/// Where rbp's slot stands.
pub const RBP_SHIFT: u32 = OFFSET_SHIFT + OFFSET_BITS;
/// Where the slots of [`SLOT_REGISTERS`] stand.
pub const SLOTS_SHIFT: u32 = RBP_SHIFT + 12;
/// Bits of each of them.
pub const SLOT_BITS: u32 = 5;

/// Greatest CFA offset a rule holds, bytes; the least is its negative.
pub const MAX_OFFSET: i32 = (1 << (OFFSET_BITS - 1)) - 1;
const REGISTER_BITS: u32 = 4;
const ADDEND_BITS: u32 = 7;
const WORDS_BITS: u32 = OFFSET_BITS - REGISTER_BITS - ADDEND_BITS;

/// A packed rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Rule(pub u64);

impl Rule {
    /// Coverage ends.
    pub const UNCOVERED: Self = Self(Kind::UNCOVERED.0 as u64);
    /// The root of a stack.
    pub const END: Self = Self(Kind::END.0 as u64);
    /// A rule this format does not express.
    pub const UNSUPPORTED: Self = Self(Kind::UNSUPPORTED.0 as u64);
    /// A frame on a stack that its function may have left.
    pub const SWITCHED: Self = Self(Kind::SWITCHED.0 as u64);
    /// A signal frame.
    pub const SIGNAL: Self = Self(Kind::SIGNAL.0 as u64);

    /// Packs a rule; `None` when the offset or a slot is out of range.
    ///
    /// `slots` are those of [`SLOT_REGISTERS`].
    #[must_use]
    pub fn new(kind: Kind, offset: i32, rbp_slot: u16, slots: [u8; 5]) -> Option<Self> {
        if kind.0 > Kind::LAST.0
            || !(-MAX_OFFSET..=MAX_OFFSET).contains(&offset)
            || rbp_slot > RBP_LOST
        {
            return None;
        }
        let mut bits = u64::from(kind.0)
            | ((offset as u32 & ((1 << OFFSET_BITS) - 1)) as u64) << OFFSET_SHIFT
            | u64::from(rbp_slot) << RBP_SHIFT;
        for (position, slot) in slots.into_iter().enumerate() {
            if slot > SLOT_LOST {
                return None;
            }
            bits |= u64::from(slot) << (SLOTS_SHIFT as usize + 5 * position);
        }
        Some(Self(bits))
    }

    /// Packs a rule from slots that stand in their places already; `None` when the offset is out of range.
    #[inline(always)]
    #[must_use]
    pub const fn from_places(kind: Kind, offset: i32, slots: u64) -> Option<Self> {
        if offset < -MAX_OFFSET || offset > MAX_OFFSET {
            return None;
        }
        let offset = (offset as u32 & ((1 << OFFSET_BITS) - 1)) as u64;
        Some(Self(kind.0 as u64 | offset << OFFSET_SHIFT | slots))
    }

    /// The offset field of [`Kind::REALIGNING`] and [`Kind::RETURN_IN_REGISTER`]; `None` when `offset` is out of range.
    #[must_use]
    pub const fn realigning(register: u8, offset: i32) -> Option<i32> {
        let bits = OFFSET_BITS - REGISTER_BITS;
        if register > 15 || offset >> (bits - 1) != offset >> 31 {
            return None;
        }
        Self::field(offset << REGISTER_BITS | register as i32)
    }

    /// The offset field of [`Kind::DEREF`] and [`Kind::DEREF_INDEXED`], bytes; `None` when one of them is out of range
    /// or no multiple of eight.
    #[must_use]
    pub const fn deref(register: u8, offset: i32, addend: u32) -> Option<i32> {
        if register > 15 || offset & 7 != 0 || addend & 7 != 0 || addend >> 3 >= 1 << ADDEND_BITS {
            return None;
        }
        let words = offset >> 3;
        if words >> (WORDS_BITS - 1) != words >> 31 {
            return None;
        }
        let addend = (addend >> 3) as i32;
        Self::field(
            words << (REGISTER_BITS + ADDEND_BITS) | addend << REGISTER_BITS | register as i32,
        )
    }

    /// The one value without a negative is not used.
    const fn field(value: i32) -> Option<i32> {
        if value < -MAX_OFFSET {
            None
        } else {
            Some(value)
        }
    }

    /// The register of kinds that name one beside their offset.
    #[inline(always)]
    #[must_use]
    pub fn register(self) -> u64 {
        self.0 >> OFFSET_SHIFT & 15
    }

    /// The offset of [`Kind::REALIGNING`] and [`Kind::RETURN_IN_REGISTER`], sign-extended.
    #[inline(always)]
    #[must_use]
    pub fn realigning_offset(self) -> u64 {
        let shifted = self.0 << (64 - RBP_SHIFT);
        ((shifted as i64) >> (64 - OFFSET_BITS + REGISTER_BITS)) as u64
    }

    /// The offset of [`Kind::DEREF`] and [`Kind::DEREF_INDEXED`], bytes, sign-extended.
    #[inline(always)]
    #[must_use]
    pub fn deref_offset(self) -> u64 {
        let shifted = self.0 << (64 - RBP_SHIFT);
        (((shifted as i64) >> (64 - WORDS_BITS)) << 3) as u64
    }

    /// What those kinds add to what they read, bytes.
    #[inline(always)]
    #[must_use]
    pub fn addend(self) -> u64 {
        (self.0 >> (OFFSET_SHIFT + REGISTER_BITS) & ((1 << ADDEND_BITS) - 1)) << 3
    }

    /// What the CFA is computed from.
    #[inline(always)]
    #[must_use]
    pub fn kind(self) -> Kind {
        Kind((self.0 & 31) as u8)
    }

    /// Bytes added, sign-extended to 64 bits.
    #[inline(always)]
    #[must_use]
    pub fn offset(self) -> u64 {
        let shifted = self.0 << (64 - RBP_SHIFT);
        ((shifted as i64) >> (64 - OFFSET_BITS)) as u64
    }

    /// rbp's slot, 0 to [`RBP_LOST`].
    #[inline(always)]
    #[must_use]
    pub fn rbp_slot(self) -> u64 {
        self.0 >> RBP_SHIFT & 0xfff
    }

    /// The slot of the nth of [`SLOT_REGISTERS`], 0 to [`SLOT_LOST`].
    #[inline(always)]
    #[must_use]
    pub fn slot(self, position: u32) -> u64 {
        self.0 >> (SLOTS_SHIFT + 5 * position) & 31
    }

    /// All five slots at once; zero when none of the registers is saved in this frame.
    #[inline(always)]
    #[must_use]
    pub fn slots(self) -> u64 {
        self.0 >> SLOTS_SHIFT
    }

    /// Whether the kind is one of the numbered ones.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.kind().0 <= Kind::LAST.0
    }
}
