//! Hand-made call frame information, sound and hostile: what is sound is in the table, the rest is named, and no input
//! makes more work or memory than its bytes allow.

use std::io::Write as _;

use ipc_proto::table_file::{MAX_TABLE_BYTES, TableFile};
use leadsman_ebpf::registers::number;
use leadsman_ebpf::rule::Kind;

use super::*;
use crate::fuzz::{TEXT, TEXT_BYTES, TEXT_OFFSET, elf_with_call_frames};

const DEF_CFA_RSP_8: &[u8] = &[0x0c, 0x07, 0x08];
const RA_AT_CFA_8: &[u8] = &[0x90, 0x01];

/// Writes `.eh_frame`.
#[derive(Default)]
struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    fn entry(&mut self, body: &[u8]) -> usize {
        let place = self.bytes.len();
        self.bytes.extend((body.len() as u32).to_le_bytes());
        self.bytes.extend(body);
        place
    }

    /// A CIE with absolute pointers.
    fn cie(&mut self, augmentation: &[u8], instructions: &[u8]) -> usize {
        let mut body = vec![0, 0, 0, 0, 1];
        body.extend(augmentation);
        body.extend([0, 1, 0x78, 16]);
        if augmentation.starts_with(b"z") {
            body.extend([1, 0x00]);
        }
        body.extend(instructions);
        self.entry(&body)
    }

    fn plain_cie(&mut self) -> usize {
        self.cie(b"zR", &[DEF_CFA_RSP_8, RA_AT_CFA_8].concat())
    }

    fn fde(&mut self, cie: usize, start: u64, length: u64, instructions: &[u8]) -> usize {
        let back = (self.bytes.len() + 4 - cie) as u32;
        let mut body = back.to_le_bytes().to_vec();
        body.extend(start.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.push(0);
        body.extend(instructions);
        self.entry(&body)
    }

    fn build(&self) -> Built {
        Built::of(&elf_with_call_frames(&self.bytes, &[]))
    }
}

struct Built {
    table: UnwindTable,
    bytes: Vec<u8>,
}

impl Built {
    fn of(file: &[u8]) -> Self {
        let table = build(file).expect("an executable");
        let bytes = table.encode();
        assert!(bytes.len() <= MAX_TABLE_BYTES);
        TableFile::open(&bytes)
            .expect("sound")
            .check_chunks()
            .expect("sound chunks");
        Self { table, bytes }
    }

    fn rule(&self, address: u64) -> Rule {
        TableFile::open(&self.bytes)
            .expect("sound")
            .find(address - TEXT + TEXT_OFFSET)
            .unwrap_or(Rule::UNCOVERED)
    }

    fn count(&self, omission: Omission) -> u64 {
        self.table.omissions().count(omission)
    }
}

fn on_rsp(offset: i32) -> Rule {
    Rule::new(Kind::register(number::RSP), offset, 0, [0; 5]).expect("in range")
}

/// push rbp; mov rsp, rbp; ...; pop rbp; ret
const FRAME_POINTER: &[u8] = &[
    0x41, 0x0e, 0x10, 0x86, 0x02, 0x43, 0x0d, 0x06, 0x02, 0x20, 0x0c, 0x07, 0x08,
];

#[test]
fn a_function_with_a_frame_pointer_has_its_four_rules() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    frames.fde(cie, TEXT + 0x100, 0x40, FRAME_POINTER);
    let built = frames.build();
    assert_eq!(built.rule(TEXT + 0xff), Rule::UNCOVERED);
    assert_eq!(built.rule(TEXT + 0x100), on_rsp(8));
    let pushed = Rule::new(Kind::register(number::RSP), 16, 2, [0; 5]);
    assert_eq!(Some(built.rule(TEXT + 0x101)), pushed);
    let body = Rule::new(Kind::register(number::RBP), 16, 2, [0; 5]);
    assert_eq!(Some(built.rule(TEXT + 0x104)), body);
    // Popped: rbp itself holds what the slot below rsp held.
    assert_eq!(built.rule(TEXT + 0x124), on_rsp(8));
    assert_eq!(built.rule(TEXT + 0x13f), on_rsp(8));
    assert_eq!(built.rule(TEXT + 0x140), Rule::UNCOVERED);
    assert_eq!(built.table.omissions().iter().count(), 0);
}

#[test]
fn a_register_saved_in_the_red_zone_stays_there() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    // mov %rbx, -8(%rsp), in a function that never moves rsp.
    frames.fde(cie, TEXT, 0x20, &[0x45, 0x83, 0x02]);
    let saved = Rule::new(Kind::register(number::RSP), 8, 0, [2, 0, 0, 0, 0]);
    assert_eq!(Some(frames.build().rule(TEXT + 5)), saved);
}

#[test]
fn padding_belongs_to_the_function_behind_it() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    frames.fde(cie, TEXT, 0x15, &[0x44, 0x0e, 0x20]);
    frames.fde(cie, TEXT + 0x20, 0x10, &[0x07, 0x10]);
    frames.fde(cie, TEXT + 0x40, 0x10, &[]);
    let built = frames.build();
    assert_eq!(built.rule(TEXT + 0x14), on_rsp(0x20));
    assert_eq!(built.rule(TEXT + 0x15), Rule::END);
    assert_eq!(built.rule(TEXT + 0x1f), Rule::END);
    assert_eq!(
        built.rule(TEXT + 0x30),
        Rule::UNCOVERED,
        "sixteen bytes are a gap"
    );
    assert_eq!(built.rule(TEXT + 0x40), on_rsp(8));
}

#[test]
fn a_bad_entry_costs_itself_only() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    frames.fde(cie, TEXT, 0x10, &[]);
    frames.fde(cie + 1, TEXT + 0x10, 0x10, &[]);
    frames.fde(cie, TEXT + 0x20, 0, &[]);
    frames.fde(cie, 0x10, 0x10, &[]);
    frames.fde(cie, 0, 0x10, &[]);
    frames.fde(cie, TEXT + 0x30, 1 << 40, &[]);
    frames.fde(cie, TEXT + 0x30, u64::MAX, &[]);
    // An unknown instruction behind a sound row, a truncated operand, states out of nowhere.
    frames.fde(cie, TEXT + 0x40, 0x10, &[0x44, 0x0e, 0x10, 0x3c]);
    frames.fde(cie, TEXT + 0x50, 0x10, &[0x0e]);
    frames.fde(cie, TEXT + 0x60, 0x10, &[0x0b]);
    frames.fde(cie, TEXT + 0x60, 0x10, &[]);
    // Too short for its addresses.
    let back = (frames.bytes.len() + 4 - cie) as u32;
    frames.entry(&back.to_le_bytes());
    for augmentation in [&b"zX"[..], b"q"] {
        let strange = frames.cie(augmentation, DEF_CFA_RSP_8);
        frames.fde(strange, TEXT + 0x80, 0x10, &[]);
    }
    frames.fde(cie, TEXT + 0x70, 0x10, &[]);
    let built = frames.build();
    assert_eq!(built.rule(TEXT), on_rsp(8));
    assert_eq!(built.rule(TEXT + 0x10), Rule::UNCOVERED);
    assert_eq!(built.rule(TEXT + 0x40), on_rsp(8));
    assert_eq!(built.rule(TEXT + 0x44), Rule::UNSUPPORTED);
    assert_eq!(built.rule(TEXT + 0x50), Rule::UNSUPPORTED);
    assert_eq!(built.rule(TEXT + 0x60), Rule::UNSUPPORTED);
    assert_eq!(built.rule(TEXT + 0x70), on_rsp(8));
    for (omission, count) in [
        (Omission::BadCie, 1),
        (Omission::EmptyFunction, 2),
        (Omission::OutsideText, 1),
        (Omission::FunctionTooLong, 2),
        (Omission::BadInstruction, 2),
        (Omission::StateStack, 1),
        (Omission::DuplicateFunction, 1),
        (Omission::BadPointer, 1),
        (Omission::UnknownAugmentation, 2),
    ] {
        assert_eq!(built.count(omission), count, "{omission}");
    }
}

#[test]
fn a_broken_length_is_stepped_over_with_the_search_table() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    frames.fde(cie, TEXT, 0x10, &[]);
    let broken = frames.fde(cie, TEXT + 0x10, 0x10, &[]);
    let next = frames.fde(cie, TEXT + 0x20, 0x10, &[]);
    frames.fde(cie, TEXT + 0x30, 0x10, &[]);
    for length in [u32::MAX - 1, 0x7fff_ffff] {
        frames.bytes[broken..broken + 4].copy_from_slice(&length.to_le_bytes());
        let built = Built::of(&elf_with_call_frames(&frames.bytes, &[broken, next, 5000]));
        assert_eq!(built.rule(TEXT), on_rsp(8));
        assert_eq!(built.rule(TEXT + 0x30), on_rsp(8));
        assert_eq!(built.count(Omission::EntryTruncated), 1);
        let lost = frames.build();
        assert_eq!(lost.rule(TEXT), on_rsp(8));
        assert_eq!(lost.rule(TEXT + 0x30), Rule::UNCOVERED);
    }
}

#[test]
fn of_overlapping_functions_the_one_that_begins_last_holds() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    frames.fde(cie, TEXT, 0x100, &[0x0e, 0x10]);
    frames.fde(cie, TEXT + 0x40, 0x10, &[0x0e, 0x20]);
    let built = frames.build();
    assert_eq!(built.rule(TEXT + 0x3f), on_rsp(0x10));
    assert_eq!(built.rule(TEXT + 0x40), on_rsp(0x20));
    assert_eq!(built.rule(TEXT + 0x50), Rule::UNCOVERED);
    assert_eq!(built.count(Omission::OverlapCut), 1);
}

#[test]
fn functions_in_any_order_make_the_same_table() {
    let starts: Vec<u64> = (0..200).map(|nth| TEXT + 0x40 * nth).collect();
    let table = |starts: &mut dyn Iterator<Item = &u64>| {
        let mut frames = Frames::default();
        let cie = frames.plain_cie();
        for &start in starts {
            frames.fde(cie, start, 0x30, FRAME_POINTER);
        }
        frames.build().bytes
    };
    assert_eq!(table(&mut starts.iter()), table(&mut starts.iter().rev()));
}

#[test]
fn a_signal_frame_that_is_not_the_kernels_is_marked() {
    let mut frames = Frames::default();
    let cie = frames.cie(b"zRS", &[DEF_CFA_RSP_8, RA_AT_CFA_8].concat());
    frames.fde(cie, TEXT, 0x10, &[]);
    let built = frames.build();
    assert_eq!(built.rule(TEXT), Rule::UNSUPPORTED);
    assert_eq!(built.count(Omission::SignalFrame), 1);
}

#[test]
fn a_64_bit_length_is_read() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    let place = frames.fde(cie, TEXT, 0x10, &[]);
    let mut wide = u32::MAX.to_le_bytes().to_vec();
    let body = frames.bytes.split_off(place + 4);
    frames.bytes.truncate(place);
    wide.extend((body.len() as u64).to_le_bytes());
    frames.bytes.extend(wide);
    let back = (frames.bytes.len() - cie) as u32;
    frames.bytes.extend(back.to_le_bytes());
    frames.bytes.extend(&body[4..]);
    let built = frames.build();
    assert_eq!(built.rule(TEXT), on_rsp(8));
    assert_eq!(built.table.omissions().iter().count(), 0);
}

// === Hostile sizes ===

#[test]
fn distinct_cies_are_bounded() {
    let mut frames = Frames::default();
    for nth in 0..300_000_u64 {
        let cie = frames.cie(b"", &[]);
        frames.fde(cie, TEXT + nth * 8, 8, &[]);
    }
    let built = frames.build();
    assert!(built.count(Omission::TooManyEntries) > 200_000);
    assert!(built.table.functions() <= 1 << 16);
}

#[test]
fn cies_that_overlap_are_read_within_the_sections_bytes() {
    // Each FDE names another place inside one long CIE of CIEs as its own CIE.
    const BODY: usize = 16 * 20_000;
    let mut frames = Frames::default();
    let mut nested = Vec::new();
    // Lengths that all reach to the end.
    for place in (0..BODY).step_by(16) {
        let mut cie = ((BODY - place - 4) as u32).to_le_bytes().to_vec();
        cie.extend([0, 0, 0, 0, 1, 0, 1, 0x78, 16, 0, 0, 0]);
        nested.extend(cie);
    }
    frames.bytes.extend(&nested);
    // The walk itself goes over the outermost CIE at once; these come behind it.
    let cies: Vec<usize> = (0..nested.len()).step_by(16).collect();
    for (nth, cie) in cies.iter().enumerate() {
        frames.fde(*cie, TEXT + 16 * nth as u64, 16, &[]);
    }
    let built = frames.build();
    // One reading of nested CIEs costs as many bytes as the section has after a few of them.
    assert!(built.table.functions() < 10, "{}", built.table.functions());
    assert!(built.count(Omission::TooManyEntries) + built.count(Omission::BadCie) > 10_000);
}

#[test]
fn remembered_states_do_not_pile_up() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    frames.fde(cie, TEXT, 0x10, &vec![0x0a; 1 << 20]);
    let bomb: Vec<u8> = [0x0a, 0x0b].repeat(1 << 19);
    frames.fde(cie, TEXT + 0x10, 0x10, &bomb);
    let built = frames.build();
    assert_eq!(built.count(Omission::StateStack), 1);
    assert_eq!(built.rule(TEXT), Rule::UNSUPPORTED);
    assert_eq!(built.rule(TEXT + 0x10), on_rsp(8));
}

#[test]
fn expressions_are_looked_at_once_and_never_run() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    // DW_OP_skip -3: an endless loop for whoever evaluates it.
    frames.fde(cie, TEXT, 0x10, &[0x0f, 0x03, 0x2f, 0xfd, 0xff]);
    // One longer than its entry, one of a megabyte.
    frames.fde(cie, TEXT + 0x10, 0x10, &[0x0f, 0xff, 0xff, 0xff, 0x7f]);
    let mut long = vec![0x0f, 0x80, 0x80, 0x40];
    long.resize(4 + (1 << 20), 0x96);
    frames.fde(cie, TEXT + 0x20, 0x10, &long);
    let built = frames.build();
    assert_eq!(built.rule(TEXT), Rule::UNSUPPORTED);
    assert_eq!(built.rule(TEXT + 0x10), Rule::UNSUPPORTED);
    assert_eq!(built.rule(TEXT + 0x20), Rule::UNSUPPORTED);
    assert_eq!(built.count(Omission::CfaExpression), 2);
    assert_eq!(built.count(Omission::BadInstruction), 1);
}

#[test]
fn rows_are_bounded_by_the_chunks_of_their_regions() {
    // A new rule for each byte of text: advance one byte, then another CFA offset.
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    let mut program = Vec::new();
    for nth in 0..TEXT_BYTES as u32 {
        program.extend([0x41, 0x0e]);
        let offset = 8 + nth % 0x1_0000;
        program.extend([
            offset as u8 & 0x7f | 0x80,
            (offset >> 7) as u8 & 0x7f | 0x80,
            (offset >> 14) as u8,
        ]);
    }
    frames.fde(cie, TEXT, TEXT_BYTES, &program);
    let built = frames.build();
    assert!(built.count(Omission::RegionFull) > 2_000_000);
    assert!(built.table.chunks() <= 4 * leadsman_ebpf::limits::REGION_CHUNKS);
}

#[test]
fn thousands_of_functions_over_the_same_bytes_stay_linear() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    let program: Vec<u8> = [0x41, 0x0e, 0x10, 0x41, 0x0e, 0x08].repeat(20);
    for nth in 0..50_000 {
        frames.fde(cie, TEXT + nth, TEXT_BYTES - nth, &program);
    }
    let built = frames.build();
    assert_eq!(built.count(Omission::OverlapCut), 49_999);
    assert!(built.table.rows() < 100_000);
}

#[test]
fn a_file_that_claims_more_than_it_has_is_read_as_far_as_it_goes() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    frames.fde(cie, TEXT, 0x10, &[]);
    let sound = elf_with_call_frames(&frames.bytes, &[]);
    for length in (0..0x1000).chain([sound.len() - 1, sound.len() - 30]) {
        if let Ok(table) = build(&sound[..length]) {
            assert!(TableFile::open(&table.encode()).is_ok());
        }
    }
    let mut claims = sound.clone();
    // The text segment's size in the file.
    claims[64 + 32..64 + 40].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(Built::of(&claims).table.regions() <= 5);
    // Program headers as many as fit the field.
    let mut many = sound.clone();
    many[56..58].copy_from_slice(&0xfffe_u16.to_le_bytes());
    assert_eq!(
        build(&many[..]).err(),
        Some(BuildError::ProgramHeaders(0xfffe))
    );
    assert_eq!(build(&b"#!/bin/sh"[..]).err(), Some(BuildError::NotElf));
    let mut other = sound;
    other[18] = 183;
    assert_eq!(build(&other[..]).err(), Some(BuildError::OtherMachine));
}

#[test]
fn reading_by_position_makes_the_same_table() {
    let mut frames = Frames::default();
    let cie = frames.plain_cie();
    frames.fde(cie, TEXT, 0x100, FRAME_POINTER);
    let bytes = elf_with_call_frames(&frames.bytes, &[]);
    let mut file = tempfile::tempfile().expect("temporary file");
    file.write_all(&bytes).expect("written");
    let cache = object::ReadCache::new(file);
    let table = build(&cache).expect("an executable");
    assert_eq!(
        table.encode(),
        build(&bytes[..]).expect("an executable").encode()
    );
}

#[test]
fn the_vdso_has_rows() {
    // Of this process, through the auxiliary vector's mapping.
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let Some(line) = maps.lines().find(|line| line.ends_with("[vdso]")) else {
        return;
    };
    let (start, end) = line
        .split_once(' ')
        .and_then(|(range, _)| range.split_once('-'))
        .map(|(start, end)| {
            let address = |text| u64::from_str_radix(text, 16).expect("an address");
            (address(start), address(end))
        })
        .expect("a range");
    let memory = std::fs::File::open("/proc/self/mem").expect("memory");
    let mut image = vec![0; (end - start) as usize];
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut image, start).expect("readable");
    let table = build(&image[..]).expect("an executable");
    assert!(table.rows() > 3, "{} rows", table.rows());
    // Without section headers too.
    image[40..48].fill(0);
    image[60..62].fill(0);
    assert_eq!(
        build(&image[..]).expect("an executable").rows(),
        table.rows()
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_as_call_frame_information_make_a_sound_table(
        mut noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..600),
        flips in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 0..8),
    ) {
        let mut frames = Frames::default();
        let cie = frames.plain_cie();
        frames.fde(cie, TEXT, 0x1000, &noise);
        frames.fde(cie, TEXT + 0x800, 0x1000, FRAME_POINTER);
        for (place, value) in flips {
            let place = place.index(frames.bytes.len());
            frames.bytes[place] = value;
        }
        let _built = frames.build();
        noise.truncate(300);
        let _built = Built::of(&elf_with_call_frames(&noise, &[]));
    }
}
