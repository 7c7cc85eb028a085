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
        1,
        "nothing says that a scratch register changed"
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
fn a_frame_being_realigned_is_found_through_its_register() {
    // CFA = r10, rbp was saved at rbp + 0: behind `push rbp; mov rbp, rsp`, before r10 is saved.
    let words = &[0xbb, 0x2000, 0, 0x2000];
    let mut registers = leaf(0x7000, 0x7000);
    registers.general[number::R10 as usize] = 0x7020;
    let field = Rule::realigning(number::R10, 0).expect("in range");
    let frame = rule(Kind::REALIGNING, field, 1, [0; 5]);
    assert_eq!(
        step(&mut registers, frame, &mut Words(0x7000, words)),
        Ok(())
    );
    assert_eq!(
        (registers.pc, registers.rsp(), registers.rbp()),
        (0x2000, 0x7020, 0xbb)
    );
    // A caller has lost the scratch register, or rbp.
    for lost in [number::R10, number::RBP] {
        let mut registers = leaf(0x7000, 0x7000);
        registers.known &= !(1 << lost);
        assert_eq!(
            step(&mut registers, frame, &mut Words(0x7000, words)),
            Err(StopReason::RegisterLost)
        );
    }
}

#[test]
fn a_frame_that_keeps_its_callers_rsp_is_found_through_it() {
    // *(rsp + 8) + 16 is the CFA; then *(rsp + 8 * r9 - 8).
    let words = &[0, 0x7010, 0, 0x2000, 0, 0];
    for (kind, register, offset, value) in [
        (Kind::DEREF, number::RSP, 8, 0x7000),
        (Kind::DEREF, number::R12, -8, 0x7010),
        (Kind::DEREF_INDEXED, number::R9, -8, 2),
    ] {
        let mut registers = leaf(0x7000, 0);
        registers.general[usize::from(register)] = value;
        let field = Rule::deref(register, offset, 16).expect("in range");
        let frame = rule(kind, field, 0, [0; 5]);
        assert_eq!(
            step(&mut registers, frame, &mut Words(0x7000, words)),
            Ok(())
        );
        assert_eq!((registers.pc, registers.rsp()), (0x2000, 0x7020));
    }
}

#[test]
fn a_return_address_may_be_in_a_register() {
    let mut registers = leaf(0x7000, 0);
    registers.general[usize::from(number::RDI)] = 0x2000;
    let field = Rule::realigning(number::RDI, 0).expect("in range");
    let frame = rule(Kind::RETURN_IN_REGISTER, field, 0, [0; 5]);
    assert_eq!(step(&mut registers, frame, &mut Words(0x7000, &[])), Ok(()));
    assert_eq!((registers.pc, registers.rsp()), (0x2000, 0x7000));
    registers.known = 0;
    assert_eq!(
        step(&mut registers, frame, &mut Words(0x7000, &[])),
        Err(StopReason::RegisterLost)
    );
}

#[test]
fn a_changed_stack_is_left_by_its_frame_pointer() {
    // rbp is on a stack below this one.
    let mut registers = leaf(0x9000, 0x7000);
    let mut stack = Words(0x7000, &[0x7100, 0x2000]);
    assert_eq!(step(&mut registers, Rule::SWITCHED, &mut stack), Ok(()));
    assert_eq!(
        (registers.pc, registers.rsp(), registers.rbp()),
        (0x2000, 0x7010, 0x7100)
    );
    assert_eq!(
        step(&mut leaf(0x9000, 0), Rule::SWITCHED, &mut stack),
        Err(StopReason::FramePointerZero)
    );
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
            let packed = rule(Kind::REALIGNED, offset, rbp_slot, slots);
            assert_eq!(
                (packed.kind(), packed.offset() as i64),
                (Kind::REALIGNED, i64::from(offset))
            );
            assert_eq!(packed.rbp_slot(), u64::from(rbp_slot));
            for (position, slot) in (0..).zip(slots) {
                assert_eq!(packed.slot(position), u64::from(slot));
            }
        }
    }
    for (register, offset) in [(10, 0), (13, -(1 << 17) + 1), (15, (1 << 17) - 1)] {
        let field = Rule::realigning(register, offset).expect("in range");
        let packed = rule(Kind::REALIGNING, field, 1, [3, 0, 0, 0, 31]);
        assert_eq!(packed.register(), u64::from(register));
        assert_eq!(packed.realigning_offset() as i64, i64::from(offset));
        assert_eq!((packed.rbp_slot(), packed.slot(4)), (1, 31));
    }
    assert!(Rule::realigning(10, 1 << 17).is_none());
    for (register, offset, addend) in [(7, -8, 8), (0, 8 * 1023, 8 * 127), (15, -8 * 1023, 0)] {
        let field = Rule::deref(register, offset, addend).expect("in range");
        let packed = rule(Kind::DEREF, field, 0, [0; 5]);
        assert_eq!(packed.register(), u64::from(register));
        assert_eq!(packed.deref_offset() as i64, i64::from(offset));
        assert_eq!(packed.addend(), u64::from(addend));
    }
    for (offset, addend) in [(8 * 1024, 0), (-8 * 1025, 0), (4, 0), (0, 8 * 128), (0, 4)] {
        assert!(Rule::deref(7, offset, addend).is_none());
    }
    assert!(Rule::new(Kind(Kind::LAST.0 + 1), 0, 0, [0; 5]).is_none());
    assert!(Rule::new(Kind::PLT, i32::MAX, 0, [0; 5]).is_none());
}
