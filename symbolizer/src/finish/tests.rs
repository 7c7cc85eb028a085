//! Constructed stacks, walked as the kernel side would walk them.

use ipc_proto::codec::{Bytes, List};
use ipc_proto::sample::Backing;
use ipc_proto::table_file::TableWriter;
use leadsman_ebpf::limits::CHUNK_BYTES;
use leadsman_ebpf::table::CHUNK_HEADER;
use proptest::prelude::*;

use super::*;

const TEXT: u64 = 0x40_0000;
const LIBRARY: u64 = 0x7f00_0000_0000;
const STACK: u64 = 0x7ffd_0000_0000;

/// A table of `(file offset, rule)` rows within the file's first 64 KiB.
fn table(rows: &[(u16, Rule)]) -> Vec<u8> {
    let mut chunk = [0; CHUNK_BYTES];
    let count = rows.len();
    chunk[0] = count as u8;
    chunk[2] = count as u8;
    let (first, _) = rows[0];
    for (nth, (offset, rule)) in rows.iter().enumerate() {
        let at = CHUNK_HEADER + 8 * nth;
        chunk[at..at + 8].copy_from_slice(&rule.0.to_le_bytes());
        let at = CHUNK_HEADER + 8 * count + 2 * nth;
        chunk[at..at + 2].copy_from_slice(&(offset - first).to_le_bytes());
        chunk[CHUNK_HEADER + 10 * count + nth] = nth as u8;
    }
    let mut writer = TableWriter::default();
    writer.begin_region(0);
    writer.push_chunk(first.into(), &chunk);
    let bytes = writer.encode();
    TableFile::open(&bytes).unwrap().check_chunks().unwrap();
    bytes
}

/// Two executables, number 1 at [`TEXT`] and number 2 at [`LIBRARY`], and generated code.
struct Process {
    mappings: Vec<Mapping>,
    text: Option<Vec<u8>>,
    library: Option<Vec<u8>>,
    unreadable: bool,
    /// Ends a call at every address but this one.
    never_called: u64,
    /// The code that the thread stands before.
    at: (u64, [u8; 8]),
}

const GENERATED: u64 = 0x7e00_0000_0000;

impl Process {
    fn new(text: &[(u16, Rule)]) -> Self {
        let mapping = |start, backing: Backing, executable| Mapping {
            start,
            end: start + 0x1_0000,
            file_offset: 0x1000,
            backing: backing as u8,
            executable: ExecutableId(executable),
        };
        Self {
            mappings: vec![
                mapping(TEXT, Backing::File, 1),
                mapping(LIBRARY, Backing::File, 2),
                mapping(GENERATED, Backing::Anonymous, 0),
            ],
            text: Some(table(text)),
            library: None,
            unreadable: false,
            never_called: 0,
            at: (0, [0x90; 8]),
        }
    }
}

impl Code for Process {
    fn mapping(&self, address: u64) -> Option<(u32, &Mapping)> {
        let index = self
            .mappings
            .iter()
            .position(|mapping| (mapping.start..mapping.end).contains(&address))?;
        Some((index as u32, &self.mappings[index]))
    }

    fn code_before(&self, _: &Mapping, address: u64) -> Option<u64> {
        let call = u64::from_le_bytes([0x90, 0x90, 0x90, 0xe8, 0, 0, 0, 0]);
        if address == self.at.0 + 8 {
            return Some(u64::from_le_bytes(self.at.1));
        }
        Some(if address == self.never_called {
            0
        } else {
            call
        })
    }

    fn unwinding(&self, mapping: &Mapping) -> Unwinding<'_> {
        let table = match mapping.executable.0 {
            1 => &self.text,
            2 => &self.library,
            _ => return Unwinding::FramePointer,
        };
        match table {
            Some(bytes) => Unwinding::Table(TableFile::open(bytes).unwrap()),
            None if self.unreadable => Unwinding::Unreadable,
            None => Unwinding::Pending,
        }
    }
}

fn snapshot(pc: u64, rbp: u64, words: &[u64]) -> Snapshot {
    let mut registers = vec![0; 17];
    registers[usize::from(number::RBP)] = rbp;
    registers[usize::from(number::RSP)] = STACK;
    registers[16] = pc;
    let mut stack = vec![0; RED_ZONE_BYTES];
    stack.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    Snapshot {
        registers: List(registers),
        pc_is_exact: true,
        stack: Bytes(stack),
        ..Snapshot::default()
    }
}

/// CFA = rsp + `offset`, rbp in slot `rbp_slot`.
fn rsp(offset: i32, rbp_slot: u16) -> Rule {
    Rule::new(Kind::register(number::RSP), offset, rbp_slot, [0; 5]).unwrap()
}

fn addresses(walk: &Walk) -> Vec<u64> {
    walk.frames.iter().map(|frame| frame.address).collect()
}

#[test]
fn rows_lead_from_the_leaf_to_the_root() {
    let process = Process::new(&[
        (0x1000, rsp(16, 0)),
        (0x1100, rsp(24, 2)),
        (0x1200, Rule::END),
    ]);
    let walk = walk(
        &snapshot(
            TEXT + 0x10,
            7,
            &[0, TEXT + 0x120, 9, 0x55, TEXT + 0x200 + 5],
        ),
        &process,
    );
    // Callers are the address of their call: one less than where it returns to.
    assert_eq!(addresses(&walk), [TEXT + 0x10, TEXT + 0x11f, TEXT + 0x204]);
    assert_eq!(walk.stop, StopReason::EndOfStack);
    assert_eq!(walk.frames[2].mapping, 0);
}

#[test]
fn a_call_that_ends_a_function_belongs_to_it() {
    // The return address is the next function's first byte: its rule would be wrong.
    let process = Process::new(&[
        (0x1000, rsp(8, 0)),
        (0x1100, rsp(16, 0)),
        (0x1200, Rule::END),
    ]);
    let stack = [TEXT + 0x200, 0, TEXT + 0x210];
    let walk = walk(&snapshot(TEXT, 0, &stack), &process);
    assert_eq!(addresses(&walk), [TEXT, TEXT + 0x1ff, TEXT + 0x20f]);
    assert_eq!(walk.stop, StopReason::EndOfStack);
}

#[test]
fn a_return_address_nobody_pushed_by_a_call_is_looked_up_itself() {
    let process = Process::new(&[
        (0x1000, rsp(8, 0)),
        (0x1100, Rule::UNCOVERED),
        (0x1200, Rule::END),
    ]);
    let walk = walk(&snapshot(TEXT, 0, &[TEXT + 0x200]), &process);
    assert_eq!(addresses(&walk), [TEXT, TEXT + 0x1ff]);
    assert_eq!(walk.stop, StopReason::EndOfStack);
}

#[test]
fn a_stack_laid_out_by_hand_ends_at_its_first_function() {
    let mut process = Process::new(&[(0x1000, rsp(8, 0))]);
    let stack = [TEXT + 0x200, TEXT + 0x300, 0xdead_beef];
    assert_eq!(
        walk(&snapshot(TEXT, 0, &stack), &process).stop,
        StopReason::NoMapping
    );
    process.never_called = TEXT + 0x300;
    let walked = walk(&snapshot(TEXT, 0, &stack), &process);
    assert_eq!(addresses(&walked), [TEXT, TEXT + 0x1ff]);
    assert_eq!(walked.stop, StopReason::MadeStack);
    // Not behind a frame pointer: the guess may have been wrong.
    let generated = [0, STACK + 64, GENERATED + 9, TEXT + 0x300, 0xdead_beef];
    let walked = walk(&snapshot(GENERATED, STACK + 8, &generated), &process);
    assert!(!walked.stop.is_complete());
}

#[test]
fn generated_code_is_walked_by_its_frame_pointer() {
    let process = Process::new(&[(0x1000, Rule::END)]);
    let stack = [0, STACK + 32, GENERATED + 9, 0, 0, TEXT + 1];
    let walk = walk(&snapshot(GENERATED, STACK + 8, &stack), &process);
    assert_eq!(addresses(&walk), [GENERATED, GENERATED + 8, TEXT]);
    assert_eq!(walk.stop, StopReason::EndOfStack);
}

#[test]
fn a_frame_that_is_not_made_yet_hides_no_caller() {
    let mut process = Process::new(&[(0x1000, Rule::END)]);
    // push %rbp; mov %rsp,%rbp: the caller, whose frame rbp leads to, stands at the stack pointer.
    process.at = (GENERATED, [0x55, 0x48, 0x89, 0xe5, 0x90, 0x90, 0x90, 0x90]);
    let stack = [GENERATED + 0x21, 0, 0, STACK + 48, TEXT + 1, 0];
    let walked = walk(&snapshot(GENERATED, STACK + 24, &stack), &process);
    assert_eq!(addresses(&walked), [GENERATED, GENERATED + 0x20, TEXT]);
    assert_eq!(walked.stop, StopReason::EndOfStack);
    // One instruction on, rbp stands below it.
    let pushed = GENERATED + 1;
    process.at = (pushed, [0x48, 0x89, 0xe5, 0x90, 0x90, 0x90, 0x90, 0x90]);
    let stack = [STACK + 24, GENERATED + 0x21, 0, STACK + 48, TEXT + 1, 0];
    let walked = walk(&snapshot(pushed, STACK + 24, &stack), &process);
    assert_eq!(addresses(&walked), [pushed, GENERATED + 0x20, TEXT]);
    // What no call left there is no return address: the frame pointer leads on.
    process.never_called = GENERATED + 0x21;
    let walked = walk(&snapshot(pushed, STACK + 24, &stack), &process);
    assert_eq!(addresses(&walked), [pushed, TEXT]);
}

#[test]
fn zero_behind_such_a_frame_is_no_root() {
    let mut process = Process::new(&[(0x1000, Rule::END)]);
    process.at = (GENERATED, [0xc3; 8]);
    let walked = walk(&snapshot(GENERATED, 0, &[GENERATED + 0x21]), &process);
    assert_eq!(addresses(&walked), [GENERATED, GENERATED + 0x20]);
    assert_eq!(walked.stop, StopReason::FramePointerImplausible);
}

#[test]
fn a_missing_table_is_named_and_an_unreadable_executable_said_so() {
    let mut process = Process::new(&[(0x1000, rsp(8, 0))]);
    let snapshot = snapshot(TEXT, 3, &[LIBRARY + 5]);
    let walked = walk(&snapshot, &process);
    assert_eq!(walked.stop, StopReason::TableMissing);
    assert_eq!(walked.missing, Some(ExecutableId(2)));
    assert_eq!(addresses(&walked), [TEXT, LIBRARY + 4]);
    process.unreadable = true;
    let walked = walk(&snapshot, &process);
    assert_eq!(walked.stop, StopReason::ExecutableUnreadable);
    assert_eq!(walked.missing, None);
    process.library = Some(table(&[(0x1000, Rule::END)]));
    assert_eq!(walk(&snapshot, &process).stop, StopReason::EndOfStack);
}

#[test]
fn what_is_not_mapped_is_no_frame() {
    let process = Process::new(&[(0x1000, rsp(8, 0))]);
    let walked = walk(&snapshot(TEXT, 0, &[0xdead_beef]), &process);
    assert_eq!(addresses(&walked), [TEXT]);
    assert_eq!(walked.stop, StopReason::NoMapping);
}

#[test]
fn the_snapshots_end_and_the_depth_limit_are_reasons() {
    let process = Process::new(&[(0x1000, rsp(8, 0))]);
    let walked = walk(&snapshot(TEXT, 0, &[TEXT + 1, TEXT + 1]), &process);
    assert_eq!(walked.frames.len(), 3);
    assert_eq!(walked.stop, StopReason::SnapshotExhausted);
    let deep = vec![TEXT + 1; MAX_USER_FRAMES + 1];
    let walked = walk(&snapshot(TEXT, 0, &deep), &process);
    assert_eq!(walked.frames.len(), MAX_USER_FRAMES);
    assert_eq!(walked.stop, StopReason::DepthLimit);
}

#[test]
fn a_malformed_snapshot_is_a_reason() {
    let process = Process::new(&[(0x1000, Rule::END)]);
    let mut short = snapshot(TEXT, 0, &[]);
    short.registers.0.pop();
    assert_eq!(walk(&short, &process).stop, StopReason::RegistersUnreadable);
}

/// An address in one of the mappings, near what tables cover, or anything.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0..0x2000_u64).prop_map(|distance| TEXT + distance),
        (0..0x2000_u64).prop_map(|distance| GENERATED + distance),
        (0..0x400_u64).prop_map(|distance| STACK + 8 * distance),
        any::<u64>(),
    ]
}

/// A rule of any kind there is, whatever its other bits.
fn any_rule() -> impl Strategy<Value = Rule> {
    (0..=Kind::LAST.0, any::<u64>(), any::<bool>()).prop_map(|(kind, bits, is_small)| {
        // Small numbers lead somewhere more often.
        let bits = if is_small {
            bits & 0x0842_1080_8000_7fff
        } else {
            bits
        };
        Rule(bits & !31 | u64::from(kind))
    })
}

proptest! {
    /// Whatever table and stack: frames lie in executable mappings, and the walk ends.
    #[test]
    fn hostile_tables_and_stacks_show_nothing_and_end(
        rules in proptest::collection::vec(any_rule(), 1..20),
        words in proptest::collection::vec(address(), 0..600),
        general in proptest::collection::vec(address(), 16),
        pc in address(),
    ) {
        let rows: Vec<_> = (0..).zip(rules).map(|(nth, rule)| (0x1000 + nth * 0x80, rule)).collect();
        let process = Process::new(&rows);
        let mut snapshot = snapshot(pc, 0, &words);
        for (register, value) in snapshot.registers.0.iter_mut().zip(general) {
            *register = value;
        }
        snapshot.registers.0[usize::from(number::RSP)] = STACK;
        let walked = walk(&snapshot, &process);
        prop_assert!(walked.frames.len() <= MAX_USER_FRAMES);
        for frame in &walked.frames {
            let mapping = &process.mappings[frame.mapping as usize];
            prop_assert!((mapping.start..mapping.end).contains(&frame.address));
        }
    }
}

/// A handler on a stack of its own, interrupted code on another that the snapshot carries too.
#[test]
fn a_handler_s_other_stack_leads_to_what_it_interrupted() {
    const OTHER: u64 = 0x7e11_0000_0000;
    let process = Process::new(&[
        (0x1000, rsp(8, 0)),
        (0x10ff, Rule::SIGNAL),
        (0x1200, rsp(16, 0)),
        (0x1300, Rule::END),
    ]);
    // The return address into the restorer, whose row begins a byte early; behind it a `struct ucontext` of 5 words, then `sigcontext`: rsp is its
    // sixteenth word, rip the next.
    let mut words = vec![TEXT + 0x100];
    words.extend([0; 5 + 15]);
    words.extend([OTHER, TEXT + 0x210]);
    let mut snapshot = snapshot(TEXT + 0x10, 0, &words);
    let cut = walk(&snapshot, &process);
    assert_eq!(cut.stop, StopReason::SnapshotExhausted);
    snapshot.further_start = OTHER;
    snapshot.further = Bytes(
        [0, TEXT + 0x305]
            .iter()
            .flat_map(|word: &u64| word.to_le_bytes())
            .collect(),
    );
    let whole = walk(&snapshot, &process);
    assert_eq!(
        addresses(&whole),
        // Neither the restorer nor what was interrupted was called.
        [TEXT + 0x10, TEXT + 0xff, TEXT + 0x210, TEXT + 0x304]
    );
    assert_eq!(whole.stop, StopReason::EndOfStack);
}
