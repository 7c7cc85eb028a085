//! Owns procedure linkage tables that nobody describes: GNU ld writes call frame information for them, other linkers do
//! not. Their code is one of a few forms (System V ABI, 5.2 and B.1), known by its first bytes.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use leadsman_ebpf::registers::number;

use super::cfa::RowSink;
use super::frame::{Cfa, Frame, RA, RegisterRule};

/// Bytes of an entry, the first one included, which all others jump to.
const ENTRY: u64 = 16;
/// Where the first entry has pushed its word: behind `push *disp32(%rip)`.
const PUSHED: u64 = 6;

/// What the entries do to the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Nothing: they jump.
    Plain,
    /// From this byte on they have pushed a number.
    Lazy { threshold: u8 },
}

/// One section of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plt {
    /// ELF address of its first byte.
    pub start: u64,
    pub length: u32,
    form: Form,
}

impl Plt {
    /// The section of that name with these bytes; nothing for names and forms that are not known.
    pub(super) fn recognize(name: &[u8], start: u64, bytes: &[u8]) -> Option<Self> {
        let form = match name {
            b".plt.sec" | b".plt.got" | b".iplt" => Form::Plain,
            b".plt" => {
                let (first, rest) = bytes.split_at_checked(ENTRY as usize)?;
                // push *disp32(%rip)
                first.strip_prefix(&[0xff, 0x35])?;
                let threshold = match rest {
                    // jmp *disp32(%rip); push imm32; jmp
                    [0xff, 0x25, _, _, _, _, 0x68, ..] => 11,
                    // endbr64; push imm32; jmp
                    [0xf3, 0x0f, 0x1e, 0xfa, 0x68, ..] => 9,
                    // push imm32; bnd jmp
                    [0x68, ..] => 5,
                    _ => return None,
                };
                Form::Lazy { threshold }
            }
            _ => return None,
        };
        // Entries are told from each other by the address's low bits.
        if start & (ENTRY - 1) != 0 && form != Form::Plain {
            return None;
        }
        let length = u32::try_from(bytes.len())
            .ok()
            .filter(|length| *length != 0)?;
        Some(Self {
            start,
            length,
            form,
        })
    }

    /// Gives its rows up to `end` to `sink`.
    pub(super) fn rows(&self, end: u64, sink: &mut impl RowSink) {
        let on_rsp = |offset| Cfa::Register {
            register: number::RSP.into(),
            offset,
        };
        let rows = match self.form {
            Form::Plain => [(0, on_rsp(8)), (0, on_rsp(8)), (0, on_rsp(8))],
            Form::Lazy { threshold } => [
                (0, on_rsp(16)),
                (PUSHED, on_rsp(24)),
                (ENTRY, Cfa::Plt { threshold }),
            ],
        };
        let mut frame = Frame::EMPTY;
        frame.set(RA, RegisterRule::Offset(-8));
        let ends = rows.iter().skip(1).map(|(distance, _)| *distance);
        for ((distance, cfa), next) in rows.iter().zip(ends.chain([self.length.into()])) {
            let start = self.start.saturating_add(*distance);
            let next = self.start.saturating_add(next).min(end);
            if start < next {
                frame.cfa = *cfa;
                sink.row(start, next, &frame);
            }
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use super::*;
    use crate::unwind_table::omission::Omission;

    struct Rows(Vec<(u64, u64, Cfa)>);

    impl RowSink for Rows {
        fn row(&mut self, start: u64, end: u64, frame: &Frame) {
            self.0.push((start, end, frame.cfa()));
        }
        fn unreadable(&mut self, _: u64, _: u64, _: Omission) {
            unreachable!("no row is unreadable");
        }
    }

    #[test]
    fn lazy_entries_are_known_by_their_code() {
        let mut bytes = [0x90; 48];
        let mut form = |first: &[u8], second: &[u8]| {
            bytes[..first.len()].copy_from_slice(first);
            bytes[16..16 + second.len()].copy_from_slice(second);
            Plt::recognize(b".plt", 0x1020, &bytes)
        };
        for (second, threshold) in [
            (&[0xff, 0x25, 0, 0, 0, 0, 0x68][..], 11),
            (&[0xf3, 0x0f, 0x1e, 0xfa, 0x68], 9),
            (&[0x68, 0, 0, 0, 0, 0xf2, 0xe9], 5),
        ] {
            let plt = form(&[0xff, 0x35], second).expect("known");
            let mut rows = Rows(Vec::new());
            plt.rows(0x1050, &mut rows);
            assert_eq!(rows.0.len(), 3);
            assert_eq!(
                rows.0.last(),
                Some(&(0x1030, 0x1050, Cfa::Plt { threshold }))
            );
        }
        assert_eq!(form(&[0xff, 0x35], &[0x90; 8]), None);
        assert_eq!(form(&[0x90, 0x90], &[0x68]), None);
        assert_eq!(Plt::recognize(b".text", 0x1000, &[0; 64]), None);
        let mut rows = Rows(Vec::new());
        Plt::recognize(b".plt.sec", 0x1000, &[0; 64])
            .expect("known by its name")
            .rows(u64::MAX, &mut rows);
        assert_eq!(rows.0.len(), 1);
    }
}
