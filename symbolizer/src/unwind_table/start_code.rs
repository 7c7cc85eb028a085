//! Owns the code that each program and library begins and ends in: gcc's `crtbegin.o` and the C library's `crti.o` and
//! `crtn.o`, which come without call frame information (libgcc/crtstuff.c, `_init` and `_fini`). The first samples of a
//! process are often there: each file's first touched page of code has it. And where a dynamic loader begins (`_start`
//! of glibc's, `_dlstart` of musl's), which nobody called.
//!
//! Its rules are read from the instructions, of which only those that such code has are known: anything else ends what
//! is described, and no byte is described that a jump reaches with another stack.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use leadsman_ebpf::registers::number;
use object::ReadRef;

use super::MAX_PADDING;
use super::cfa::RowSink;
use super::eh_frame::Function;
use super::frame::{Cfa, Frame, RA, RBP, RegisterRule};
use super::segments::{Segment, Segments};

/// Bytes of a gap between functions that are looked at; the start files' code has about 240.
const MAX_BYTES: u64 = 512;
/// Gaps of a segment that are looked at, from its start; its last one is looked at, too.
const MAX_GAPS: usize = 256;

/// Instructions of a program's or loader's first function, up to its first call.
const ENTRY_INSTRUCTIONS: &[(&[u8], u8)] = &[
    // endbr64
    (&[0xf3, 0x0f, 0x1e, 0xfa], 4),
    // xor of rbp, ebp
    (&[0x48, 0x31, 0xed], 3),
    (&[0x31, 0xed], 2),
    // mov %rsp, %rdi; lea disp32(%rip) to rsi; and $-16, %rsp
    (&[0x48, 0x89, 0xe7], 3),
    (&[0x48, 0x8d, 0x35], 7),
    (&[0x48, 0x83, 0xe4, 0xf0], 4),
];
/// `call rel32` and its length.
const CALL: (u8, u64) = (0xe8, 5);
/// Bytes of an entry that are looked at.
const MAX_ENTRY_BYTES: u64 = 40;

/// The return address, which stands above everything.
const ENTRY: i64 = 8;

/// What an instruction does to the stack, or where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing.
    None,
    /// Nothing, and stands between functions too.
    Padding,
    /// Stands between functions only.
    Filler,
    /// Pushes rbp.
    PushRbp,
    /// Pushes eight bytes, or takes them back.
    Push,
    Pop,
    /// Takes as many bytes as its operand of eight bits says from rsp, or adds them.
    Grow,
    Shrink,
    /// Jumps, as far as its operand of eight or 32 bits says, or goes on.
    Branch,
    /// Jumps.
    Jump,
    /// Jumps out of this code, as a call at a function's end.
    Leave,
    /// Returns.
    Return,
}

/// First bytes of an instruction, its length and what it does.
type Instruction = (&'static [u8], u8, Effect);

/// The instructions of such code; the first that fits is meant.
const INSTRUCTIONS: &[Instruction] = &[
    // What linkers and compilers fill with.
    (&[0x00], 1, Effect::Filler),
    (&[0x90], 1, Effect::Padding),
    (&[0xcc], 1, Effect::Padding),
    (&[0x66, 0x90], 2, Effect::Padding),
    (&[0x0f, 0x1f, 0x00], 3, Effect::Padding),
    (&[0x0f, 0x1f, 0x40], 4, Effect::Padding),
    (&[0x0f, 0x1f, 0x44], 5, Effect::Padding),
    (&[0x66, 0x0f, 0x1f, 0x44], 6, Effect::Padding),
    (&[0x0f, 0x1f, 0x80], 7, Effect::Padding),
    (&[0x0f, 0x1f, 0x84], 8, Effect::Padding),
    (&[0x66, 0x0f, 0x1f, 0x84], 9, Effect::Padding),
    (&[0x66, 0x2e, 0x0f, 0x1f, 0x84], 10, Effect::Padding),
    (&[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84], 11, Effect::Padding),
    // endbr64
    (&[0xf3, 0x0f, 0x1e, 0xfa], 4, Effect::None),
    // lea, mov and mov disp32(%rip) to rdi, rsi, rax
    (&[0x48, 0x8d, 0x3d], 7, Effect::None),
    (&[0x48, 0x8d, 0x35], 7, Effect::None),
    (&[0x48, 0x8d, 0x05], 7, Effect::None),
    (&[0x48, 0x8b, 0x3d], 7, Effect::None),
    (&[0x48, 0x8b, 0x05], 7, Effect::None),
    (&[0x48, 0xc7, 0xc0], 7, Effect::None),
    (&[0xb8], 5, Effect::None),
    (&[0xbe], 5, Effect::None),
    (&[0xbf], 5, Effect::None),
    (&[0x31, 0xc0], 2, Effect::None),
    // cmp, sub, mov, shr, sar, add, test of rdi, rsi, rax
    (&[0x48, 0x39, 0xf8], 3, Effect::None),
    (&[0x48, 0x3d], 6, Effect::None),
    (&[0x48, 0x29, 0xfe], 3, Effect::None),
    (&[0x48, 0x81, 0xee], 7, Effect::None),
    (&[0x48, 0x89, 0xf0], 3, Effect::None),
    (&[0x48, 0xc1, 0xee], 4, Effect::None),
    (&[0x48, 0xc1, 0xf8], 4, Effect::None),
    (&[0x48, 0x01, 0xc6], 3, Effect::None),
    (&[0x48, 0xd1, 0xfe], 3, Effect::None),
    (&[0x48, 0x85, 0xc0], 3, Effect::None),
    // cmpb and cmpq $imm8, disp32(%rip); movb $imm8, disp32(%rip)
    (&[0x80, 0x3d], 7, Effect::None),
    (&[0x48, 0x83, 0x3d], 8, Effect::None),
    (&[0xc6, 0x05], 7, Effect::None),
    // mov %rsp, %rbp: both rules stay by rsp
    (&[0x48, 0x89, 0xe5], 3, Effect::None),
    // call rel32, also with a prefix that links left; call *%rax; call *disp32(%rip)
    (&[0xe8], 5, Effect::None),
    (&[0x67, 0xe8], 6, Effect::None),
    (&[0xff, 0xd0], 2, Effect::None),
    (&[0xff, 0x15], 6, Effect::None),
    // push and pop of rbp, rax
    (&[0x55], 1, Effect::PushRbp),
    (&[0x5d], 1, Effect::Pop),
    (&[0x50], 1, Effect::Push),
    (&[0x58], 1, Effect::Pop),
    // sub and add $imm8, %rsp
    (&[0x48, 0x83, 0xec], 4, Effect::Grow),
    (&[0x48, 0x83, 0xc4], 4, Effect::Shrink),
    // je, jne
    (&[0x74], 2, Effect::Branch),
    (&[0x75], 2, Effect::Branch),
    (&[0x0f, 0x84], 6, Effect::Branch),
    (&[0x0f, 0x85], 6, Effect::Branch),
    // jmp rel8, rel32; jmp *%rax; jmp *disp32(%rip)
    (&[0xeb], 2, Effect::Jump),
    (&[0xe9], 5, Effect::Jump),
    (&[0xff, 0xe0], 2, Effect::Leave),
    (&[0xff, 0x25], 6, Effect::Leave),
    // ret, repz ret
    (&[0xc3], 1, Effect::Return),
    (&[0xf3, 0xc3], 2, Effect::Return),
];

/// The stack before an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Depth {
    /// Bytes from rsp to the CFA.
    bytes: i64,
    /// The caller's rbp is saved so many bytes below the CFA.
    rbp: Option<i64>,
}

const FUNCTION_ENTRY: Depth = Depth {
    bytes: ENTRY,
    rbp: None,
};

/// One row: it holds up to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    /// From the first byte.
    distance: u64,
    depth: Depth,
}

/// The start code in a gap between described functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StartCode {
    /// ELF address of its first byte.
    pub start: u64,
    pub length: u32,
    rows: Vec<Row>,
    /// Nobody called it: it has no rows.
    is_root: bool,
}

/// Finds the start code of a file between its ascending `functions`, and at its `entry` if no function is there.
pub(super) fn find<'a, R: ReadRef<'a>>(
    data: R,
    segments: &Segments,
    entry: u64,
    functions: &[Function],
) -> Vec<StartCode> {
    let mut found = Vec::new();
    found.extend(find_entry(data, segments, entry, functions));
    for segment in segments.all() {
        let first = functions.partition_point(|function| function.start < segment.address);
        let behind = functions.partition_point(|function| function.start < segment.end());
        let inside = functions.get(first..behind).unwrap_or_default();
        let inside = inside
            .iter()
            .map(|function| (function.start, function.end()));
        for (start, end) in gaps(segment, inside) {
            let length = end.saturating_sub(start).min(MAX_BYTES);
            let bytes = data.read_bytes_at(segment.to_file_offset(start), length);
            found.extend(bytes.ok().and_then(|gap| StartCode::read(start, gap)));
        }
    }
    found
}

fn find_entry<'a, R: ReadRef<'a>>(
    data: R,
    segments: &Segments,
    entry: u64,
    functions: &[Function],
) -> Option<StartCode> {
    let behind = functions.partition_point(|function| function.start <= entry);
    let (before, next) = functions.split_at_checked(behind)?;
    if before.last().is_some_and(|function| entry < function.end()) {
        return None;
    }
    let segment = segments.containing(entry)?;
    let end = next.first().map_or(segment.end(), |next| next.start);
    let length = end.min(segment.end()).saturating_sub(entry);
    let bytes = data.read_bytes_at(segment.to_file_offset(entry), length.min(MAX_ENTRY_BYTES));
    StartCode::read_entry(entry, bytes.ok()?)
}

/// The starts and ends of what no function covers in a segment, but for what is taken as padding; of the ascending
/// `functions`, too, the starts and ends.
fn gaps(segment: &Segment, functions: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut covered = segment.address;
    for (start, end) in functions {
        let is_first = covered == segment.address;
        let padding = if is_first { 0 } else { MAX_PADDING };
        if start.saturating_sub(covered) > padding && gaps.len() < MAX_GAPS {
            gaps.push((covered, start));
        }
        covered = covered.max(end);
    }
    if covered < segment.end() {
        gaps.push((covered, segment.end()));
    }
    gaps
}

impl StartCode {
    /// Reads a gap, which begins at the ELF address `start` with a function or with filler before one; nothing when that
    /// is no known code.
    fn read(start: u64, gap: &[u8]) -> Option<Self> {
        let mut reader = Reader::default();
        let length = reader.read(gap)?;
        let rows = reader.rows(length);
        Some(Self {
            start,
            length: u32::try_from(length).ok()?,
            rows,
            is_root: false,
        })
    }

    /// Reads the code at an entry up to its first call; nothing when that is no known code.
    fn read_entry(start: u64, code: &[u8]) -> Option<Self> {
        let mut rest = code;
        while let Some((_, length)) = ENTRY_INSTRUCTIONS
            .iter()
            .find(|(first, _)| rest.starts_with(first))
        {
            rest = rest.get(usize::from(*length)..)?;
        }
        let (call, call_length) = CALL;
        let before = (code.len() as u64).checked_sub(rest.len() as u64)?;
        let length = before.checked_add(call_length)?;
        let is_whole = rest.first() == Some(&call) && length <= code.len() as u64;
        is_whole.then_some(Self {
            start,
            length: u32::try_from(length).ok()?,
            rows: Vec::new(),
            is_root: true,
        })
    }

    /// Gives its rows up to `end` to `sink`.
    pub(super) fn rows(&self, end: u64, sink: &mut impl RowSink) {
        if self.is_root {
            let mut root = FUNCTION_ENTRY.frame();
            root.set(RA, RegisterRule::Undefined);
            let end = end.min(self.start.saturating_add(self.length.into()));
            return sink.row(self.start, end, &root);
        }
        let nexts = self.rows.iter().skip(1).map(|row| row.distance);
        for (row, next) in self.rows.iter().zip(nexts.chain([self.length.into()])) {
            let start = self.start.saturating_add(row.distance);
            let next = self.start.saturating_add(next).min(end);
            if start < next {
                sink.row(start, next, &row.depth.frame());
            }
        }
    }
}

impl Depth {
    fn frame(self) -> Frame {
        let mut frame = Frame::EMPTY;
        frame.cfa = Cfa::Register {
            register: number::RSP.into(),
            offset: self.bytes,
        };
        frame.set(RA, RegisterRule::Offset(-8));
        if let Some(rbp) = self.rbp.and_then(|below| i32::try_from(below).ok()) {
            frame.set(RBP, RegisterRule::Offset(rbp.saturating_neg()));
        }
        frame
    }

    /// The stack behind an instruction; nothing when it would not be one.
    fn after(self, effect: Effect, bytes: &[u8]) -> Option<Self> {
        let operand = || bytes.last().map(|byte| i64::from(byte.cast_signed()));
        let (change, rbp) = match effect {
            Effect::PushRbp => (8, Some(self.bytes.checked_add(8)?)),
            Effect::Push => (8, self.rbp),
            Effect::Pop => (-8, self.rbp),
            Effect::Grow => (operand().filter(|bytes| *bytes > 0)?, self.rbp),
            Effect::Shrink => (
                operand().filter(|bytes| *bytes > 0)?.saturating_neg(),
                self.rbp,
            ),
            _ => (0, self.rbp),
        };
        let bytes = self.bytes.checked_add(change)?;
        (bytes >= ENTRY).then_some(Self {
            bytes,
            rbp: rbp.filter(|below| *below <= bytes),
        })
    }
}

/// One pass over the instructions of a gap.
#[derive(Debug, Default)]
struct Reader {
    /// Where each instruction stands, and the stack before it.
    seen: Vec<Row>,
    /// The stack that jumps bring to places further on.
    expected: Vec<Row>,
}

impl Reader {
    /// Reads as much as is whole functions; returns how many bytes that is.
    fn read(&mut self, code: &[u8]) -> Option<u64> {
        let mut rest = code;
        let mut depth = None;
        let mut whole = None;
        while let Some((bytes, effect)) = instruction(rest) {
            let at = (code.len() as u64).checked_sub(rest.len() as u64)?;
            rest = rest.get(bytes.len()..)?;
            let behind = at.checked_add(bytes.len() as u64)?;
            // Nothing comes from the instruction before: a jump leads here, or a function begins.
            let brought = self.expected_at(at);
            let is_between = depth.is_none() && brought.is_none();
            match effect {
                Effect::Padding | Effect::Filler if is_between => continue,
                Effect::Filler => break,
                _ => {}
            }
            let before = depth.or(brought).unwrap_or(FUNCTION_ENTRY);
            if brought.is_some_and(|brought| brought != before) {
                break;
            }
            self.seen.push(Row {
                distance: at,
                depth: before,
            });
            let Some(after) = before.after(effect, bytes) else {
                break;
            };
            let leads = matches!(effect, Effect::Branch | Effect::Jump);
            if leads {
                let target = behind.checked_add_signed(offset(bytes)?);
                let target = target.filter(|target| *target < code.len() as u64);
                if !self.jump(target, behind, before) {
                    break;
                }
            }
            let leaves = matches!(effect, Effect::Return | Effect::Leave);
            if leaves && before != FUNCTION_ENTRY {
                break;
            }
            let ends = leaves || effect == Effect::Jump;
            depth = (!ends).then_some(after);
            if ends && self.expected.iter().all(|row| row.distance < behind) {
                whole = Some(behind);
            }
        }
        whole
    }

    fn expected_at(&self, distance: u64) -> Option<Depth> {
        let mut found = self.expected.iter().filter(|row| row.distance == distance);
        found.next().map(|row| row.depth)
    }

    /// A jump from before `behind`, out of the gap when it has no target there; returns whether what it brings fits what
    /// is known of its target.
    fn jump(&mut self, target: Option<u64>, behind: u64, depth: Depth) -> bool {
        let Some(distance) = target else {
            // As a call at a function's end.
            return depth == FUNCTION_ENTRY;
        };
        let row = Row { distance, depth };
        if distance < behind {
            return self.seen.contains(&row);
        }
        let known = self.expected_at(distance);
        self.expected.push(row);
        known.is_none_or(|known| known == depth)
    }

    /// The rows of the first `length` bytes.
    fn rows(mut self, length: u64) -> Vec<Row> {
        self.seen.retain(|row| row.distance < length);
        self.seen.dedup_by_key(|row| row.depth);
        if let Some(first) = self.seen.first_mut() {
            first.distance = 0;
        }
        self.seen
    }
}

/// The instruction at the start of `code`, and what it does.
fn instruction(code: &[u8]) -> Option<(&[u8], Effect)> {
    let mut known = INSTRUCTIONS.iter();
    let (_, length, effect) = known.find(|(first, _, _)| code.starts_with(first))?;
    Some((code.get(..usize::from(*length))?, *effect))
}

/// How far a jump leads from its end: the last byte, or the last four.
fn offset(jump: &[u8]) -> Option<i64> {
    match *jump {
        [_, distance] => Some(distance.cast_signed().into()),
        [.., a, b, c, d] => Some(i32::from_le_bytes([a, b, c, d]).into()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests;
