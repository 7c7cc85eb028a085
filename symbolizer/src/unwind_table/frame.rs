//! Owns the *logical* rule of a frame: what call frame information says about the CFA and the registers at one
//! address, before it is packed into the kernel's format. It never looks at bytes.

use leadsman_ebpf::registers::number;
use leadsman_ebpf::rule::{MAX_RBP_SLOT, MAX_SLOT, RBP_SHIFT, SLOT_BITS, SLOTS_SHIFT};

use super::expression::CfaExpression;

/// How the CFA is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cfa {
    /// No instruction defined it yet.
    Undefined,
    /// register + offset
    Register { register: u16, offset: i64 },
    /// rsp + 8 + 8 * ((pc & 15) >= threshold): a lazy PLT entry.
    Plt { threshold: u8 },
    /// \*(register + offset) + plus
    Deref {
        register: u8,
        offset: i32,
        plus: u32,
    },
    /// \*(rsp + offset + 8 * index) + plus
    DerefIndexed { index: u8, offset: i32, plus: u32 },
    /// An expression of another shape.
    Expression,
}

impl From<CfaExpression> for Cfa {
    fn from(expression: CfaExpression) -> Self {
        match expression {
            CfaExpression::Plt { threshold } => Self::Plt { threshold },
            CfaExpression::Deref {
                register,
                offset,
                plus,
            } => Self::Deref {
                register,
                offset,
                plus,
            },
            CfaExpression::DerefIndexed {
                index,
                offset,
                plus,
            } => Self::DerefIndexed {
                index,
                offset,
                plus,
            },
            CfaExpression::Other => Self::Expression,
        }
    }
}

/// Where the caller's value of a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterRule {
    /// Nothing was said: by the ABI still in the register for a callee-saved one, gone for a scratch one.
    Unspecified,
    /// Still in the register.
    Same,
    /// Nowhere.
    Undefined,
    /// In memory at CFA + offset.
    Offset(i32),
    /// The value CFA + offset.
    ValueOffset(i32),
    /// In another register.
    Register(u16),
    /// In memory at register + offset (`DW_CFA_expression: DW_OP_bregN offset`).
    Based { register: u8, offset: i32 },
    /// In memory at the address that an expression of another shape gives.
    Expression,
    /// The value of an expression.
    ValueExpression,
}

/// The registers whose rules are followed. The first six are the callee-saved ones in the order in which they are
/// shown; a rule for any other register says nothing about the caller's frame.
pub const TRACKED: [u8; 8] = [
    number::RBP,
    number::RBX,
    number::R12,
    number::R13,
    number::R14,
    number::R15,
    number::RA,
    number::RSP,
];

/// Index into [`TRACKED`].
pub type Position = usize;
/// Callee-saved registers stand at positions below this.
pub const CALLEE_SAVED: Position = 6;
/// Position of rbp.
pub const RBP: Position = 0;
/// Position of the return address.
pub const RA: Position = 6;
/// Position of rsp.
pub const RSP: Position = 7;

/// Bit of `irregular` for a signal frame.
const SIGNAL: u16 = 1 << TRACKED.len();

const UNTRACKED: u8 = 0xff;
/// Position by DWARF register number.
const POSITIONS: [u8; 17] = {
    let mut positions = [UNTRACKED; 17];
    let mut position = 0;
    while position < TRACKED.len() {
        positions[TRACKED[position] as usize] = position as u8;
        position += 1;
    }
    positions
};

/// Names by DWARF register number (System V ABI, figure 3.36).
const NAMES: [&str; 17] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15", "ra",
];

/// A register's name by its DWARF number.
#[must_use]
pub fn register_name(register: u16) -> Option<&'static str> {
    NAMES.get(usize::from(register)).copied()
}

/// What is known of a frame of Go's beside its rules: the linker never says where rbp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoFrame {
    /// Not Go's.
    No,
    /// A function that has moved rsp has pushed rbp first.
    Plain,
    /// The same, but rsp may be on another stack by then: rbp leads back.
    SwitchesStack,
    /// There is no caller.
    Root,
    /// The frame was pushed by the kernel for a signal.
    Signal,
}

/// The rules in force at one address.
///
/// Beside the rules themselves it keeps what packing needs, updated with each rule, so that a row costs no look at
/// eight registers.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub(super) cfa: Cfa,
    rules: [RegisterRule; TRACKED.len()],
    /// The slots of the callee-saved registers as [`leadsman_ebpf::rule::Rule`] packs them, right when `irregular`
    /// is zero.
    slots: u64,
    /// Bit n: the rule at position n is not of the plain kind: a callee-saved register unsaved or in a slot below
    /// the CFA, the return address at CFA - 8, rsp the CFA. Bit 8: the frame was pushed for a signal.
    irregular: u16,
    /// The largest slot that any callee-saved register had since the function's start, or more.
    deepest: u16,
    /// Bit n: the register at position n was saved below the stack pointer: a leaf function's red zone.
    in_red_zone: u8,
    /// Bit n: DWARF register n is saved where the kernel saves it in a signal frame.
    pub(super) in_sigcontext: u32,
    pub(super) go: GoFrame,
}

impl Frame {
    /// Nothing is said about anything.
    pub const EMPTY: Self = Self {
        cfa: Cfa::Undefined,
        rules: [RegisterRule::Unspecified; TRACKED.len()],
        slots: 0,
        irregular: 1 << RA,
        deepest: 0,
        in_red_zone: 0,
        in_sigcontext: 0,
        go: GoFrame::No,
    };

    /// A frame of Go's tables, which speak of rsp only.
    pub(super) fn go(go: GoFrame) -> Self {
        let mut frame = Self::EMPTY;
        frame.set(RA, RegisterRule::Offset(-8));
        frame.go = go;
        frame
    }

    /// How the CFA is computed.
    #[must_use]
    pub fn cfa(&self) -> Cfa {
        self.cfa
    }

    /// The rule of the register at a position of [`TRACKED`].
    #[must_use]
    pub fn rule(&self, position: Position) -> RegisterRule {
        self.rules
            .get(position)
            .copied()
            .unwrap_or(RegisterRule::Unspecified)
    }

    /// Whether the frame was pushed by the kernel for a signal (augmentation "S").
    #[must_use]
    pub fn is_signal(&self) -> bool {
        self.irregular & SIGNAL != 0
    }

    pub(super) fn mark_signal(&mut self) {
        self.irregular |= SIGNAL;
    }

    /// The position of a DWARF register, if its rules are followed.
    #[inline(always)]
    pub(super) fn position(register: u64) -> Option<Position> {
        let position = *POSITIONS.get(usize::try_from(register).ok()?)?;
        (position != UNTRACKED).then_some(usize::from(position))
    }

    /// Whether the slots can be packed as they stand.
    #[inline(always)]
    pub(super) fn is_regular(&self) -> bool {
        self.irregular == 0
    }

    /// Sets the rule of the register at a position.
    #[inline(always)]
    pub(super) fn set(&mut self, position: Position, rule: RegisterRule) {
        if let Some(place) = self.rules.get_mut(position) {
            *place = rule;
        }
        let plain = match (position, rule) {
            (RA, RegisterRule::Offset(-8)) => true,
            (RA, _) => false,
            (RSP, RegisterRule::Unspecified | RegisterRule::ValueOffset(0)) => true,
            (RSP, _) => false,
            (_, RegisterRule::Unspecified | RegisterRule::Same) => self.set_slot(position, 0),
            (_, RegisterRule::Offset(offset)) => {
                slot_below(0, offset).is_some_and(|slot| self.set_slot(position, slot))
            }
            _ => false,
        };
        self.irregular = self.irregular & !(1 << position) | u16::from(!plain) << position;
    }

    /// The slots without those of registers that were popped already: a function's end pops what its beginning pushed,
    /// and from then on the register holds what its slot, now below rsp, held. So both ends share their rules.
    #[inline(always)]
    pub(super) fn live_slots(&self, register: u16, offset: i32) -> u64 {
        if register != u16::from(number::RSP) || offset >= 8 * i32::from(self.deepest) {
            return self.slots;
        }
        self.without_popped(offset)
    }

    fn without_popped(&self, offset: i32) -> u64 {
        let mut slots = self.slots;
        for position in 0..CALLEE_SAVED {
            let (shift, width, _) = slot_place(position);
            let mask = (1 << width) - 1;
            let slot = (self.slots >> shift & mask) as i32;
            if 8 * slot > offset && self.in_red_zone >> position & 1 == 0 {
                slots &= !(mask << shift);
            }
        }
        slots
    }

    #[inline(always)]
    fn set_slot(&mut self, position: Position, slot: u32) -> bool {
        if slot != 0 {
            self.deepest = self.deepest.max(slot as u16);
            let red_zone = match self.cfa {
                Cfa::Register { register, offset } => {
                    register == u16::from(number::RSP) && i64::from(8 * slot) > offset
                }
                _ => false,
            };
            self.in_red_zone = self.in_red_zone & !(1 << position) | u8::from(red_zone) << position;
        }
        let (shift, width, greatest) = slot_place(position);
        let mask = (1_u64 << width) - 1;
        self.slots = self.slots & !(mask << shift) | (u64::from(slot) & mask) << shift;
        slot <= greatest
    }
}

/// The number of eight-byte slots that `offset` lies below `base`, both bytes from one origin; `None` when it does
/// not lie below or is no multiple of eight.
#[inline(always)]
pub(super) fn slot_below(base: i32, offset: i32) -> Option<u32> {
    let distance = i64::from(base).wrapping_sub(i64::from(offset));
    (distance > 0 && distance & 7 == 0 && distance < 1 << 15).then_some((distance >> 3) as u32)
}

/// Shift, width and greatest slot of a callee-saved register's place in a packed rule.
#[inline(always)]
pub(super) fn slot_place(position: Position) -> (u32, u32, u32) {
    if position == RBP {
        (RBP_SHIFT, SLOTS_SHIFT - RBP_SHIFT, MAX_RBP_SLOT as u32)
    } else {
        let nth = position as u32 - 1;
        (SLOTS_SHIFT + SLOT_BITS * nth, SLOT_BITS, MAX_SLOT as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leadsman_ebpf::rule::SLOT_REGISTERS;

    #[test]
    fn positions_follow_the_order_of_the_packed_slots() {
        assert_eq!(TRACKED[1..CALLEE_SAVED], SLOT_REGISTERS);
        assert_eq!(Frame::position(u64::from(number::RBP)), Some(RBP));
        assert_eq!(Frame::position(u64::from(number::RA)), Some(RA));
        assert_eq!(Frame::position(u64::from(number::RAX)), None);
        assert_eq!(Frame::position(u64::MAX), None);
    }

    #[test]
    fn a_rule_that_becomes_plain_again_is_regular_again() {
        let mut frame = Frame::EMPTY;
        assert!(!frame.is_regular(), "no return address yet");
        frame.set(RA, RegisterRule::Offset(-8));
        assert!(frame.is_regular());
        for rule in [
            RegisterRule::Undefined,
            RegisterRule::Offset(8),
            RegisterRule::Offset(-12),
            RegisterRule::Offset(-8 * 31),
            RegisterRule::Register(3),
        ] {
            frame.set(2, rule);
            assert!(!frame.is_regular(), "{rule:?}");
            frame.set(2, RegisterRule::Offset(-24));
            assert!(frame.is_regular());
            assert_eq!(frame.slots, 3 << (SLOTS_SHIFT + SLOT_BITS));
        }
        frame.set(2, RegisterRule::Unspecified);
        assert_eq!(frame.slots, 0);
    }
}
