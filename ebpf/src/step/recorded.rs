//! The step on stacks of real programs, recorded by `cargo run --release -p leadsman-symbolizer --example record-stack`:
//! registers, stack, the rule at each frame, and the addresses that a debugger found there on its own.

use super::{Stack, step};
use crate::registers::{ALL_KNOWN, Registers};
use crate::rule::Rule;
use crate::stop::StopReason;

const RECORDED: [(&str, &str); 4] = [
    ("realigned", include_str!("recorded/realigned.txt")),
    ("signal", include_str!("recorded/signal.txt")),
    ("qsort", include_str!("recorded/qsort.txt")),
    ("openssl", include_str!("recorded/openssl.txt")),
];

/// A recorded stack: words from an address upwards, some pieces.
struct Recorded<'a>(&'a str);

impl Stack for Recorded<'_> {
    const UNREADABLE: StopReason = StopReason::StackUnreadable;

    fn word(&mut self, address: u64) -> Option<u64> {
        for line in self.0.lines() {
            let mut words = line.split(' ');
            if words.next() != Some("stack") {
                continue;
            }
            let start = hexadecimal(words.next()?);
            let Some(distance) = address.checked_sub(start) else {
                continue;
            };
            let index = distance / 8;
            if let Some(word) = words.nth(usize::try_from(index).ok()?) {
                return Some(hexadecimal(word));
            }
        }
        None
    }
}

fn hexadecimal(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("a hexadecimal number")
}

#[test]
fn recorded_stacks_are_walked_as_a_debugger_walks_them() {
    for (name, text) in RECORDED {
        let mut registers = Registers {
            known: ALL_KNOWN,
            pc_is_exact: 1,
            ..Registers::default()
        };
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("registers "));
        for (register, value) in registers
            .general
            .iter_mut()
            .zip(line.expect("registers").split(' '))
        {
            *register = hexadecimal(value);
        }
        let mut frames = text.lines().filter_map(|line| line.strip_prefix("frame "));
        let mut walked = 0;
        let mut next = frames.next();
        while let Some(frame) = next {
            let mut words = frame.split(' ').map(hexadecimal);
            let pc = words.next().expect("a pc");
            let rule = Rule(words.next().expect("a rule"));
            if walked == 0 {
                registers.pc = pc;
            }
            assert_eq!(registers.pc, pc, "{name}: frame {walked}");
            walked += 1;
            next = frames.next();
            let result = step(&mut registers, rule, &mut Recorded(text));
            let expected = if next.is_some() {
                Ok(())
            } else {
                Err(StopReason::EndOfStack)
            };
            assert_eq!(result, expected, "{name}: behind frame {walked}");
        }
        assert!(walked >= 5, "{name}: {walked} frames");
    }
}
