//! Walks a snapshot: the user-space twin of the BPF programs' walk, with the same steps and the same rules for what a
//! frame is. Reads the snapshot's bytes and the tables it is given, nothing else.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use ipc_proto::ids::ExecutableId;
use ipc_proto::sample::{Frame, Mapping, Snapshot};
use ipc_proto::table_file::TableFile;
use leadsman_ebpf::code::{ends_with_call, frame_in_the_making};
use leadsman_ebpf::limits::{MAX_USER_FRAMES, RED_ZONE_BYTES};
use leadsman_ebpf::registers::{ALL_KNOWN, Registers, number};
use leadsman_ebpf::root::{may_hide_root, without_frame_pointer};
use leadsman_ebpf::rule::{Kind, Rule};
use leadsman_ebpf::step::{Stack, step, step_frame_pointer, step_unframed};
use leadsman_ebpf::stop::StopReason;

/// How code is unwound.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unwinding<'a> {
    /// By these rows.
    Table(TableFile<'a>),
    /// By its frame pointer: generated code, or an executable that has no rows.
    FramePointer,
    /// By its frame pointer, since the executable could not be read.
    Unreadable,
    /// Its table is not there yet.
    Pending,
}

/// What a process has mapped.
pub(crate) trait Code {
    /// The executable mapping around an address, with its index in the image's list.
    fn mapping(&self, address: u64) -> Option<(u32, &Mapping)>;
    /// How code of a mapping is unwound.
    fn unwinding(&self, mapping: &Mapping) -> Unwinding<'_>;
    /// The eight bytes of code before an address of a mapping, little endian; nothing when they are not at hand.
    fn code_before(&self, mapping: &Mapping, address: u64) -> Option<u64>;
}

/// A walked stack.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Walk {
    /// Leaf first.
    pub(crate) frames: Vec<Frame>,
    /// Why it ended.
    pub(crate) stop: StopReason,
    /// The executable whose table was not there yet, when that is why.
    pub(crate) missing: Option<ExecutableId>,
}

/// Walks the snapshot's stack as far as it leads.
pub(crate) fn walk(snapshot: &Snapshot, code: &impl Code) -> Walk {
    let mut walk = Walk {
        frames: Vec::new(),
        stop: StopReason::DepthLimit,
        missing: None,
    };
    let Some(mut registers) = registers(snapshot) else {
        walk.stop = StopReason::RegistersUnreadable;
        return walk;
    };
    let mut stack = SnapshotStack {
        start: registers.rsp().wrapping_sub(RED_ZONE_BYTES as u64),
        bytes: &snapshot.stack.0,
        further_start: snapshot.further_start,
        further: &snapshot.further.0,
    };
    let mut entry = Entry::default();
    while walk.frames.len() < MAX_USER_FRAMES {
        if let Err(stop) = next_frame(&mut registers, &mut stack, code, &mut walk, &mut entry) {
            walk.stop = end(stop, entry, code, &mut walk);
            break;
        }
    }
    walk
}

/// How the frame emitted last was entered.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// The return address that led to it; none when its pc is exact.
    return_address: Option<u64>,
    /// Whether a frame pointer was followed on the way to it.
    guessed: bool,
    /// Whether the youngest frame was not made yet, or not any more.
    unframed: bool,
    /// Whether its executable could not be read.
    is_unreadable: bool,
}

/// Why a walk that stopped for `stop` really ends, as `walk_end` of the BPF programs says it.
fn end(stop: StopReason, entry: Entry, code: &impl Code, walk: &mut Walk) -> StopReason {
    if entry.guessed {
        return stop;
    }
    let proves_root = entry.return_address.is_some() && !entry.unframed;
    let number = without_frame_pointer(stop as u8, proves_root, entry.is_unreadable);
    let stop = StopReason::from_number(number).unwrap_or(stop);
    if !may_hide_root(stop as u8) {
        return stop;
    }
    let Some(return_address) = entry.return_address else {
        return stop;
    };
    if code_before(return_address, code).is_none_or(ends_with_call) {
        return stop;
    }
    walk.frames.pop();
    StopReason::MadeStack
}

/// The eight bytes of code before an address, wherever that is.
fn code_before(address: u64, code: &impl Code) -> Option<u64> {
    let (_, mapping) = code.mapping(address.wrapping_sub(1))?;
    code.code_before(mapping, address)
}

/// Moves to the caller of a youngest frame that is not made yet, or not any more, as `leave_unframed` of the BPF programs
/// does; `false` where that is not so.
fn leave_unframed(
    registers: &mut Registers,
    stack: &mut SnapshotStack<'_>,
    code: &impl Code,
) -> bool {
    const INSTRUCTIONS: u64 = 8;
    let behind = registers.pc.wrapping_add(INSTRUCTIONS);
    let Some(pushed) = code_before(behind, code).and_then(frame_in_the_making) else {
        return false;
    };
    step_unframed(registers, pushed, stack, |address| {
        code_before(address, code).is_some_and(ends_with_call)
    })
}

/// Emits the current frame and moves to its caller, as `next_frame` of the BPF programs does.
fn next_frame(
    registers: &mut Registers,
    stack: &mut SnapshotStack<'_>,
    code: &impl Code,
    walk: &mut Walk,
    entry: &mut Entry,
) -> Result<(), StopReason> {
    let pc = registers.lookup_pc();
    let (index, mapping) = code.mapping(pc).ok_or(StopReason::NoMapping)?;
    // The youngest frame was entered by nobody: in a system call it stands behind `syscall`.
    let is_called = registers.pc_is_exact == 0 && !walk.frames.is_empty();
    entry.return_address = is_called.then_some(registers.pc);
    walk.frames.push(Frame {
        mapping: index,
        address: pc,
    });
    let unwinding = code.unwinding(mapping);
    entry.is_unreadable = matches!(unwinding, Unwinding::Unreadable);
    let rule = match unwinding {
        Unwinding::Table(table) => find_rule(&table, mapping, pc, registers.pc),
        Unwinding::FramePointer | Unwinding::Unreadable => Rule::UNCOVERED,
        Unwinding::Pending => {
            walk.missing = Some(mapping.executable);
            return Err(StopReason::TableMissing);
        }
    };
    if rule.kind() != Kind::UNCOVERED {
        return step(registers, rule, stack);
    }
    if walk.frames.len() == 1 && leave_unframed(registers, stack, code) {
        entry.unframed = true;
        return Ok(());
    }
    step_frame_pointer(registers, stack)?;
    entry.guessed = true;
    Ok(())
}

fn find_rule(table: &TableFile<'_>, mapping: &Mapping, pc: u64, exact: u64) -> Rule {
    let find = |address: u64| {
        let offset = address
            .wrapping_sub(mapping.start)
            .wrapping_add(mapping.file_offset);
        table.find(offset).unwrap_or(Rule::UNCOVERED)
    };
    let rule = find(pc);
    if rule.kind() == Kind::UNCOVERED && pc != exact {
        // A return address that nobody pushed by a call, as makecontext's: it is a function's first byte.
        return find(exact);
    }
    rule
}

fn registers(snapshot: &Snapshot) -> Option<Registers> {
    let (general, rest) = snapshot.registers.0.split_first_chunk::<16>()?;
    let &[pc] = rest else { return None };
    Some(Registers {
        general: *general,
        pc,
        known: ALL_KNOWN,
        pc_is_exact: u32::from(snapshot.pc_is_exact),
    })
}

/// The bytes from the red zone below the stack pointer upwards, and those of the second piece.
struct SnapshotStack<'a> {
    start: u64,
    bytes: &'a [u8],
    further_start: u64,
    further: &'a [u8],
}

impl Stack for SnapshotStack<'_> {
    fn word(&mut self, address: u64) -> Option<u64> {
        word_of(self.bytes, self.start, address)
            .or_else(|| word_of(self.further, self.further_start, address))
    }

    const UNREADABLE: StopReason = StopReason::SnapshotExhausted;
}

fn word_of(bytes: &[u8], start: u64, address: u64) -> Option<u64> {
    let offset = usize::try_from(address.checked_sub(start)?).ok()?;
    let word = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_le_bytes(word.try_into().ok()?))
}

const _: () = assert!(number::RSP < 16);

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests;
