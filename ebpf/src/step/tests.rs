//! The step against stacks laid out by hand, word by word, as compilers and the kernel lay them out.

use super::{Stack, step, step_frame_pointer};
use crate::registers::{ALL_KNOWN, Registers, number};
use crate::rule::{Kind, Rule, SLOT_LOST};
use crate::stop::StopReason;

/// Words from an address upwards.
struct Words(u64, &'static [u64]);

impl Stack for Words {
    const UNREADABLE: StopReason = StopReason::StackUnreadable;
    fn word(&mut self, address: u64) -> Option<u64> {
        let index = address.checked_sub(self.0)? / 8;
        self.1.get(usize::try_from(index).ok()?).copied()
    }
}

fn leaf(rsp: u64, rbp: u64) -> Registers {
    let mut registers = Registers {
        pc: 0x1000,
        known: ALL_KNOWN,
        pc_is_exact: 1,
        ..Registers::default()
    };
    registers.general[number::RSP as usize] = rsp;
    registers.general[number::RBP as usize] = rbp;
    registers
}

fn rule(kind: Kind, offset: i32, rbp_slot: u16, slots: [u8; 5]) -> Rule {
    Rule::new(kind, offset, rbp_slot, slots).expect("in range")
}

#[test]
fn a_pushed_frame_gives_back_what_it_saved() {
    // push rbp; push rbx: CFA = rsp + 24, rbp at CFA - 16, rbx at CFA - 24.
    let mut stack = Words(0x7000, &[0xb, 0xbb, 0x2000]);
    let mut registers = leaf(0x7000, 1);
    let frame = rule(Kind::register(number::RSP), 24, 2, [3, 0, 0, 0, SLOT_LOST]);
    assert_eq!(step(&mut registers, frame, &mut stack), Ok(()));
    assert_eq!(
        (registers.pc, registers.rsp(), registers.rbp()),
        (0x2000, 0x7018, 0xbb)
    );
    assert_eq!(registers.general[number::RBX as usize], 0xb);
    assert_eq!(
        registers.lookup_pc(),
        0x1fff,
        "a caller is looked up at its call"
    );
    assert_eq!(
        registers.known >> number::R15 & 1,
        0,
        "a lost register is unknown"
    );
    assert_eq!(
        registers.known >> number::RAX & 1,
        0,
        "a call clobbers scratch registers"
    );
    let on_lost = rule(Kind::register(number::R15), 8, 0, [0; 5]);
    assert_eq!(
        step(&mut registers, on_lost, &mut stack),
        Err(StopReason::RegisterLost)
    );
}

#[test]
fn a_realigned_frame_is_found_through_rbp() {
    // *(rbp - 8) is the CFA, rbp was saved at rbp + 0 and rbx at rbp - 16.
    let mut stack = Words(0x7000, &[0xb, 0x7020, 0xbb, 0x2000]);
    let mut registers = leaf(0x6f00, 0x7010);
    let frame = rule(Kind::REALIGNED, -8, 1, [3, 0, 0, 0, 0]);
    assert_eq!(step(&mut registers, frame, &mut stack), Ok(()));
    assert_eq!(
        (registers.pc, registers.rsp(), registers.rbp()),
        (0x2000, 0x7020, 0xbb)
    );
    assert_eq!(registers.general[number::RBX as usize], 0xb);
}

#[test]
fn a_lazy_plt_entry_has_one_or_two_words_below_its_caller() {
    for (pc, words) in [(0x1000, &[0x2000u64][..]), (0x100b, &[7, 0x2000])] {
        let mut registers = leaf(0x7000, 0);
        registers.pc = pc;
        let mut stack = Words(
            0x7000,
            if words.len() == 1 {
                &[0x2000]
            } else {
                &[7, 0x2000]
            },
        );
        assert_eq!(
            step(&mut registers, rule(Kind::PLT, 11, 0, [0; 5]), &mut stack),
            Ok(())
        );
        assert_eq!(
            (registers.pc, registers.rsp()),
            (0x2000, 0x7000 + 8 * words.len() as u64)
        );
    }
}

#[test]
fn a_signal_frame_gives_back_all_registers_exactly() {
    static FRAME: [u64; 22] = [
        0, 0, 0, 0, 0, 8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 0x9000, 0x3000,
    ];
    let mut registers = leaf(0x7000, 0);
    assert_eq!(
        step(&mut registers, Rule::SIGNAL, &mut Words(0x7000, &FRAME)),
        Ok(())
    );
    assert_eq!(
        (registers.pc, registers.rsp(), registers.rbp()),
        (0x3000, 0x9000, 6)
    );
    assert_eq!(
        (registers.known, registers.lookup_pc()),
        (ALL_KNOWN, 0x3000)
    );
    assert_eq!(registers.general[number::R15 as usize], 15);
}

#[test]
fn walks_end_for_named_reasons() {
    let cfa = |offset| rule(Kind::register(number::RSP), offset, 0, [0; 5]);
    let end = |rule, words| step(&mut leaf(0x7000, 0), rule, &mut Words(0x7000, words));
    assert_eq!(end(Rule::END, &[1]), Err(StopReason::EndOfStack));
    assert_eq!(end(Rule::UNCOVERED, &[1]), Err(StopReason::NoRow));
    assert_eq!(
        end(Rule::UNSUPPORTED, &[1]),
        Err(StopReason::UnsupportedRule)
    );
    assert_eq!(end(cfa(8), &[0]), Err(StopReason::ReturnAddressZero));
    assert_eq!(end(cfa(64), &[1]), Err(StopReason::StackUnreadable));
    assert_eq!(end(cfa(0), &[1]), Err(StopReason::StackNotGrowing));
    assert_eq!(end(cfa(-8), &[1]), Err(StopReason::StackNotGrowing));
}

#[test]
fn frame_pointers_are_followed_only_when_plausible() {
    let follow = |rbp, words| {
        let mut registers = leaf(0x7000, rbp);
        step_frame_pointer(&mut registers, &mut Words(0x7000, words)).map(|()| registers)
    };
    let caller = follow(0x7008, &[0, 0x7100, 0x2000]).expect("plausible");
    assert_eq!(
        (caller.pc, caller.rsp(), caller.rbp()),
        (0x2000, 0x7018, 0x7100)
    );
    let implausible = Err(StopReason::FramePointerImplausible);
    for rbp in [0x7001, 0x6ff8, 0x7000 + (1 << 24)] {
        assert_eq!(follow(rbp, &[0, 0, 1]), implausible, "{rbp:#x}");
    }
    assert_eq!(follow(0, &[1]), Err(StopReason::FramePointerZero));
    assert_eq!(follow(0x7000, &[1, 0]), Err(StopReason::ReturnAddressZero));
}

#[test]
fn rules_come_out_as_they_went_in() {
    for offset in [-4096, -8, 0, 8, 65_536, crate::rule::MAX_OFFSET] {
        for rbp_slot in [0, 1, crate::rule::MAX_RBP_SLOT] {
            let slots = [0, 1, 30, 31, 7];
            let packed = rule(Kind::DEREF_RSP_8, offset, rbp_slot, slots);
            assert_eq!(
                (packed.kind(), packed.offset() as i64),
                (Kind::DEREF_RSP_8, i64::from(offset))
            );
            assert_eq!(packed.rbp_slot(), u64::from(rbp_slot));
            for (position, slot) in (0..).zip(slots) {
                assert_eq!(packed.slot(position), u64::from(slot));
            }
        }
    }
    assert!(Rule::new(Kind(26), 0, 0, [0; 5]).is_none());
    assert!(Rule::new(Kind::PLT, i32::MAX, 0, [0; 5]).is_none());
}
