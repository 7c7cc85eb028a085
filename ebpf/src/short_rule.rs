//! One unwind rule in 32 bits, for functions that save their registers in the compilers' usual order: nearly all.
//!
//! ```text
//! bits  0..5   kind, as in a Rule
//! bits  5..25  offset, signed
//! bits 25..32  which registers are saved, and in which order: an index into SAVED
//! ```
//!
//! gcc pushes r15, r14, r13, r12, rbp and rbx in this order, as far as it uses them; with a frame pointer, and always in
//! clang's code, rbp comes first. What is pushed first lies right below the return address.

use crate::registers::number;
use crate::rule::{RBP_SHIFT, Rule, SLOT_BITS, SLOT_REGISTERS, SLOTS_SHIFT};

const OFFSET_END: u32 = 25;
/// Bit of rbp in an index into [`SAVED`], behind those of [`SLOT_REGISTERS`].
const RBP: u32 = SLOT_REGISTERS.len() as u32;
/// Bit that says that rbp was pushed first.
const RBP_FIRST: u32 = RBP + 1;
/// Registers that may be saved, as bits of an index, in the order of their pushes.
const PUSHED: [u32; 6] = [4, 3, 2, 1, RBP, 0];
const PUSHED_RBP_FIRST: [u32; 6] = [RBP, 4, 3, 2, 1, 0];
const _: () = assert!(SLOT_REGISTERS[0] == number::RBX && SLOT_REGISTERS[4] == number::R15);

/// The slots of a [`Rule`], in their places, for each set of saved registers and each order of saving them.
///
/// A table instead of arithmetic: the BPF programs read it with one load.
pub static SAVED: [u64; 128] = {
    let mut saved = [0; 128];
    let mut index = 0;
    while index < saved.len() {
        saved[index] = slots(index as u32);
        index += 1;
    }
    saved
};

/// The slots of one set of saved registers: the first pushed has slot 2, behind the return address.
const fn slots(index: u32) -> u64 {
    let order = if index >> RBP_FIRST == 0 {
        PUSHED
    } else {
        PUSHED_RBP_FIRST
    };
    let (mut slots, mut slot, mut nth) = (0, 2, 0);
    while nth < order.len() {
        let register = order[nth];
        if index >> register & 1 != 0 {
            slots |= slot << place(register);
            slot += 1;
        }
        nth += 1;
    }
    slots
}

/// Where a register's slot stands in a [`Rule`].
const fn place(register: u32) -> u32 {
    if register == RBP {
        RBP_SHIFT
    } else {
        SLOTS_SHIFT + SLOT_BITS * register
    }
}

/// A packed rule of half the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ShortRule(pub u32);

impl ShortRule {
    /// The same rule in fewer bits; `None` when its offset needs more, or its registers are saved in another order.
    #[must_use]
    pub fn of(rule: Rule) -> Option<Self> {
        let saved = rule.0 >> RBP_SHIFT << RBP_SHIFT;
        let mut index = u32::from(rule.rbp_slot() != 0) << RBP;
        for position in 0..RBP {
            index |= u32::from(rule.slot(position) != 0) << position;
        }
        [index, index | 1 << RBP_FIRST]
            .into_iter()
            .filter(|&index| SAVED[index as usize] == saved)
            .map(|index| Self(rule.0 as u32 & ((1 << OFFSET_END) - 1) | index << OFFSET_END))
            .find(|short| short.rule() == rule)
    }

    /// The rule that it stands for.
    #[must_use]
    pub fn rule(self) -> Rule {
        self.with_saved(SAVED[self.saved() as usize])
    }

    /// Its index into [`SAVED`].
    #[inline(always)]
    #[must_use]
    pub fn saved(self) -> u32 {
        self.0 >> OFFSET_END
    }

    /// The rule that it stands for, given what [`SAVED`] holds for it.
    #[inline(always)]
    #[must_use]
    pub fn with_saved(self, saved: u64) -> Rule {
        const UNUSED: u32 = u32::BITS - OFFSET_END;
        let offset_and_kind = (self.0 << UNUSED) as i32 >> UNUSED;
        Rule(offset_and_kind as u32 as u64 & ((1 << RBP_SHIFT) - 1) | saved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Kind, RBP_LOST, SLOT_LOST};

    fn rule(offset: i32, rbp: u16, slots: [u8; 5]) -> Rule {
        Rule::new(Kind::register(number::RSP), offset, rbp, slots).expect("in range")
    }

    #[test]
    fn rules_of_the_usual_order_are_short_and_come_back_whole() {
        for rule in [
            Rule::UNCOVERED,
            Rule::END,
            Rule::SIGNAL,
            rule(8, 0, [0; 5]),
            rule(16, 2, [0; 5]),
            // rbx alone; all in gcc's order, and with rbp first.
            rule(-16, 0, [2, 0, 0, 0, 0]),
            rule(0x7fff8, 6, [7, 5, 4, 3, 2]),
            rule(-0x80000, 2, [7, 6, 5, 4, 3]),
            rule(24, 3, [0, 2, 0, 0, 0]),
        ] {
            let short = ShortRule::of(rule).expect("short");
            assert_eq!(short.rule(), rule, "{short:?}");
        }
    }

    #[test]
    fn what_the_short_form_does_not_hold_stays_long() {
        for rule in [
            rule(0x80000, 0, [0; 5]),
            rule(-0x80008, 0, [0; 5]),
            rule(16, 3, [0; 5]),
            rule(16, RBP_LOST, [0; 5]),
            rule(16, 0, [SLOT_LOST, 0, 0, 0, 0]),
            // rbp, then the others in the order of their numbers.
            rule(64, 2, [3, 4, 5, 6, 7]),
        ] {
            assert_eq!(ShortRule::of(rule), None, "{rule:?}");
        }
    }

    #[test]
    fn any_bits_stand_for_one_rule() {
        for bits in (0..=u32::MAX).step_by(0x1_0003) {
            let rule = ShortRule(bits).rule();
            assert_eq!(ShortRule::of(rule).map(ShortRule::rule), Some(rule));
        }
    }
}
