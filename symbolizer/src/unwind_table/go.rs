//! Owns what Go's own tables say about unwinding (`.gopclntab`): how far rsp moved at each instruction, for programs
//! stripped of `.debug_frame`, and the few functions of the runtime that no call frame information describes rightly,
//! since they change stacks or have no caller.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use gimli::{EndianSlice, LittleEndian};
use leadsman_ebpf::registers::number;

use super::cfa::RowSink;
use super::cursor::Cursor;
use super::eh_frame::MAX_FUNCTIONS;
use super::frame::{Cfa, Frame, GoFrame};
use super::omission::{Omission, Omissions};
use super::segments::Segments;
use leadsman_executable::go_pclntab::{HEADER_BYTES, Header};

/// Functions of the runtime that are not what they seem, by name without the ABI's suffix.
const SPECIAL: [(&[u8], GoFrame); 10] = [
    // Each pushes rbp, makes it its frame pointer, and goes on to another stack with it (src/runtime/asm_amd64.s).
    (b"runtime.asmcgocall", GoFrame::SwitchesStack),
    (b"runtime.systemstack", GoFrame::SwitchesStack),
    (b"runtime.cgocallback", GoFrame::SwitchesStack),
    (b"runtime.mcall", GoFrame::SwitchesStack),
    // Entered by no call: where a goroutine's function returns to, a thread's first function, the program's.
    (b"runtime.goexit", GoFrame::Root),
    (b"runtime.mstart", GoFrame::Root),
    (b"runtime.rt0_go", GoFrame::Root),
    // Leaves the goroutine's stack behind for good.
    (b"runtime.morestack", GoFrame::Root),
    // What the kernel returns to behind a signal handler (src/runtime/sys_linux_amd64.s).
    (b"runtime.sigreturn__sigaction", GoFrame::Signal),
    (b"runtime.sigreturn", GoFrame::Signal),
];

/// A function of Go's tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoFunction {
    /// ELF address of its first byte.
    pub start: u64,
    pub length: u32,
    /// Where its table of rsp's distances begins, from [`GoTable::values`] on; 0: it has none.
    pub distances: u32,
}

/// `.gopclntab`.
#[derive(Debug)]
pub(super) struct GoTable<'a> {
    bytes: &'a [u8],
    values: u64,
    quantum: u64,
    special: Vec<(u64, GoFrame)>,
    functions: Vec<GoFunction>,
}

impl<'a> GoTable<'a> {
    /// Reads the list of functions; nothing of another version, or of no version.
    pub(super) fn read(
        bytes: &'a [u8],
        text: impl FnOnce(u64) -> Option<u64>,
        segments: &Segments,
        omissions: &mut Omissions,
    ) -> Option<Self> {
        let head = bytes.get(..HEADER_BYTES)?;
        let header = Header::parse(EndianSlice::new(head, LittleEndian)).ok()??;
        let text = text(header.text)?;
        let mut table = Self {
            bytes,
            values: header.values,
            quantum: header.quantum.into(),
            special: Vec::new(),
            functions: Vec::new(),
        };
        let count = usize::try_from(header.count).ok()?;
        if count > MAX_FUNCTIONS {
            omissions.add(Omission::TooManyEntries);
        }
        let records = table.rest(header.functions)?;
        let (pairs, _) = records.as_chunks::<8>();
        let mut previous: Option<(u64, u32)> = None;
        // One more than there are functions: the last one only says where the others end.
        for pair in pairs
            .iter()
            .take(count.min(MAX_FUNCTIONS).saturating_add(1))
        {
            let both = u64::from_le_bytes(*pair);
            let (entry, place) = (text.wrapping_add(both & 0xffff_ffff), (both >> 32) as u32);
            if let Some((start, place)) = previous
                && let Ok(length) = u32::try_from(entry.wrapping_sub(start))
                && length != 0
                && segments.containing(start).is_some()
            {
                table.add(start, length, header.functions, place, header.names);
            }
            previous = Some((entry, place));
        }
        if !table.functions.is_sorted_by_key(|function| function.start) {
            return None;
        }
        Some(table)
    }

    fn add(&mut self, start: u64, length: u32, functions: u64, place: u32, names: u64) {
        // The start of `runtime._func`: entryOff, nameOff, args, deferreturn, pcsp.
        let record = functions
            .checked_add(place.into())
            .and_then(|at| self.rest(at));
        let Some((words, _)) = record.map(<[u8]>::as_chunks::<4>) else {
            return;
        };
        let &[_, name, _, _, distances, ..] = words else {
            return;
        };
        let (name, distances) = (u32::from_le_bytes(name), u32::from_le_bytes(distances));
        let name = names
            .checked_add(name.into())
            .and_then(|at| self.rest(at))
            .unwrap_or_default();
        let special = special(name);
        // A signal handler returns to that function's first byte, and callers are looked up one byte before.
        let earlier = u32::from(special == Some(GoFrame::Signal));
        let (described, length) = (
            start.wrapping_sub(earlier.into()),
            length.wrapping_add(earlier),
        );
        if let Some(special) = special {
            self.special
                .extend([described, start].map(|start| (start, special)));
        } else if distances == 0 {
            return;
        }
        self.functions.push(GoFunction {
            start: described,
            length,
            distances,
        });
    }

    fn rest(&self, offset: u64) -> Option<&'a [u8]> {
        self.bytes.get(usize::try_from(offset).ok()?..)
    }

    /// All functions, ascending.
    pub(super) fn functions(&self) -> &[GoFunction] {
        &self.functions
    }

    /// What is special about the function that starts there.
    pub(super) fn special(&self, start: u64) -> Option<GoFrame> {
        let at = self.special.partition_point(|(other, _)| *other < start);
        let (other, special) = self.special.get(at)?;
        (*other == start).then_some(*special)
    }

    /// Gives the rows of a function at `start..end` to `sink`: pairs of varints, the change of the distance (zigzag, from
    /// -1 on) and the number of instruction quanta for which it then holds (`runtime.step`).
    pub(super) fn rows(&self, distances: u32, start: u64, end: u64, sink: &mut impl RowSink) {
        let mut frame = Frame::go(self.special(start).unwrap_or(GoFrame::Plain));
        if matches!(frame.go, GoFrame::Root | GoFrame::Signal) {
            return sink.row(start, end, &frame);
        }
        let table = self
            .values
            .checked_add(distances.into())
            .and_then(|at| self.rest(at))
            .filter(|_| distances != 0);
        let mut cursor = Cursor::new(table.unwrap_or_default());
        let mut location = start;
        let mut distance = -1_i64;
        while location < end {
            let (Some(change), Some(quanta)) = (cursor.uleb128(), cursor.uleb128()) else {
                break;
            };
            if change == 0 && location != start {
                break;
            }
            let change = (change >> 1) as i64 ^ (change & 1).wrapping_neg() as i64;
            distance = distance.wrapping_add(change);
            let next = quanta
                .checked_mul(self.quantum)
                .and_then(|bytes| location.checked_add(bytes))
                .map_or(end, |next| next.min(end));
            if next <= location || distance < 0 {
                break;
            }
            frame.cfa = Cfa::Register {
                register: number::RSP.into(),
                offset: distance.saturating_add(8),
            };
            sink.row(location, next, &frame);
            location = next;
        }
        if location < end {
            sink.unreadable(location, end, Omission::BadInstruction);
        }
    }
}

/// What is special about a function of a NUL-terminated name.
fn special(name: &[u8]) -> Option<GoFrame> {
    if !name.starts_with(b"runtime.") {
        return None;
    }
    SPECIAL.into_iter().find_map(|(special, what)| {
        let rest = name.strip_prefix(special)?;
        (rest.first() == Some(&0) || rest.starts_with(b".abi0\0")).then_some(what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_ones() {
        assert_eq!(special(b"runtime.mcall\0"), Some(GoFrame::SwitchesStack));
        assert_eq!(special(b"runtime.goexit.abi0\0x"), Some(GoFrame::Root));
        for other in [
            &b"runtime.goexit1\0"[..],
            b"runtime.mcall",
            b"main.mcall\0",
            b"",
        ] {
            assert_eq!(special(other), None);
        }
    }
}
