//! Any rules on any stack: a walk ends, and on one stack it never falls.
#![no_main]

use leadsman_ebpf::limits::MAX_USER_FRAMES;
use leadsman_ebpf::registers::{ALL_KNOWN, Registers};
use leadsman_ebpf::rule::{Kind, Rule};
use leadsman_ebpf::step::{Stack, step, step_frame_pointer};
use leadsman_ebpf::stop::StopReason;
use libfuzzer_sys::fuzz_target;

/// Words that repeat: every address can be read.
struct Words<'a>(&'a [[u8; 8]]);

impl Stack for Words<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        let nth = (address >> 3) as usize % self.0.len().max(1);
        self.0.get(nth).map(|bytes| u64::from_le_bytes(*bytes))
    }

    const UNREADABLE: StopReason = StopReason::StackUnreadable;
}

fuzz_target!(|data: &[u8]| {
    let (words, _) = data.as_chunks::<8>();
    let Some((registers, rest)) = words.split_at_checked(17) else {
        return;
    };
    let (rules, stack) = rest.split_at(rest.len() / 2);
    if rules.is_empty() {
        return;
    }
    let mut frame = Registers {
        general: std::array::from_fn(|nth| u64::from_le_bytes(registers[nth])),
        pc: u64::from_le_bytes(registers[16]),
        known: ALL_KNOWN,
        pc_is_exact: 1,
    };
    let mut stack = Words(stack);
    for nth in 0..MAX_USER_FRAMES {
        let rule = Rule(u64::from_le_bytes(rules[nth % rules.len()]));
        if !rule.is_valid() {
            return;
        }
        let before = frame;
        let stepped = if rule.kind() == Kind::UNCOVERED {
            step_frame_pointer(&mut frame, &mut stack)
        } else {
            step(&mut frame, rule, &mut stack)
        };
        match stepped {
            // A signal's frame, and those of code that changes stacks, may lie on another stack, and a function that has taken
            // its return address from the stack ends where it began: the number of frames bounds such walks.
            Ok(()) if rule.kind() == Kind::SIGNAL || rule.kind() == Kind::SWITCHED => {}
            Ok(()) if rule.kind() == Kind::RETURN_IN_REGISTER => {
                assert!(frame.rsp() >= before.rsp(), "{rule:?}: {before:?} -> {frame:?}");
            }
            Ok(()) => assert!(frame.rsp() > before.rsp(), "{rule:?}: {before:?} -> {frame:?}"),
            Err(_) => return,
        }
    }
});
