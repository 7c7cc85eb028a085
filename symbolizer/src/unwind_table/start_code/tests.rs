use super::*;
use crate::unwind_table::omission::Omission;

/// glibc's `_init`: `__gmon_start__` is called when there is one.
const INIT: &[u8] = &[
    0x48, 0x83, 0xec, 0x08, // sub $8, %rsp
    0x48, 0x8b, 0x05, 0xd5, 0x2f, 0x00, 0x00, // mov 0x2fd5(%rip), %rax
    0x48, 0x85, 0xc0, // test %rax, %rax
    0x74, 0x02, // je +2
    0xff, 0xd0, // call *%rax
    0x48, 0x83, 0xc4, 0x08, // add $8, %rsp
    0xc3, // ret
];

/// gcc 12's `crtbegin.o` of a position-independent program.
const CRTBEGIN: &[u8] = &[
    // deregister_tm_clones
    0x48, 0x8d, 0x3d, 0x89, 0x2f, 0x00, 0x00, // lea
    0x48, 0x8d, 0x05, 0x82, 0x2f, 0x00, 0x00, // lea
    0x48, 0x39, 0xf8, // cmp %rdi, %rax
    0x74, 0x15, // je +0x15
    0x48, 0x8b, 0x05, 0x2e, 0x2f, 0x00, 0x00, // mov
    0x48, 0x85, 0xc0, // test
    0x74, 0x09, // je +9
    0xff, 0xe0, // jmp *%rax
    0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00, // nopl
    0xc3, // ret
    0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00, // nopl
    // 0x30: __do_global_dtors_aux
    0xf3, 0x0f, 0x1e, 0xfa, // endbr64
    0x80, 0x3d, 0x15, 0x2f, 0x00, 0x00, 0x00, // cmpb
    0x75, 0x2b, // jne +0x2b
    0x55, // push %rbp
    0x48, 0x83, 0x3d, 0xda, 0x2e, 0x00, 0x00, 0x00, // cmpq
    0x48, 0x89, 0xe5, // mov %rsp, %rbp
    0x74, 0x0c, // je +0xc
    0x48, 0x8b, 0x3d, 0xf6, 0x2e, 0x00, 0x00, // mov
    0xe8, 0x19, 0xff, 0xff, 0xff, // call
    0xe8, 0x64, 0xff, 0xff, 0xff, // call
    0xc6, 0x05, 0xed, 0x2e, 0x00, 0x00, 0x01, // movb
    0x5d, // pop %rbp
    0xc3, // ret
    0x0f, 0x1f, 0x00, // nopl
    0xc3, // ret
    0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00, // nopl
    // 0x70: frame_dummy
    0xf3, 0x0f, 0x1e, 0xfa, // endbr64
    0xe9, 0x87, 0xff, 0xff, 0xff, // jmp
];

/// A row: its start, bytes up to the CFA and rbp's place below it.
type Row = (u64, i64, Option<i64>);

/// The rows, and where the last one ends.
fn rows(start: u64, gap: &[u8]) -> Option<(Vec<Row>, u64)> {
    let code = StartCode::read(start, gap)?;
    let mut rows = Rows::default();
    code.rows(u64::MAX, &mut rows);
    assert_eq!(rows.end, code.start + u64::from(code.length));
    Some((rows.rows, rows.end))
}

#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    end: u64,
}

impl RowSink for Rows {
    fn row(&mut self, start: u64, end: u64, frame: &Frame) {
        let Cfa::Register {
            register: 7,
            offset,
        } = frame.cfa()
        else {
            panic!("not by rsp: {frame:?}");
        };
        let rbp = match frame.rule(RBP) {
            RegisterRule::Offset(below) => Some(i64::from(-below)),
            _ => None,
        };
        assert!(start >= self.end, "rows ascend");
        self.rows.push((start, offset, rbp));
        self.end = end;
    }

    fn unreadable(&mut self, _: u64, _: u64, _: Omission) {
        unreachable!("no row is unreadable");
    }
}

#[test]
fn the_c_library_s_init_and_fini_are_described_with_and_without_endbr64() {
    let init = vec![(0x1000, 8, None), (0x1004, 16, None), (0x1016, 8, None)];
    assert_eq!(rows(0x1000, INIT), Some((init, 0x1017)));
    let protected = [&[0xf3, 0x0f, 0x1e, 0xfa], INIT].concat();
    let init = vec![(0x1000, 8, None), (0x1008, 16, None), (0x101a, 8, None)];
    assert_eq!(rows(0x1000, &protected), Some((init, 0x101b)));
    // What follows a function's end, and what stands before it, is the linker's.
    let fini = [
        0, 0, 0, 0x48, 0x83, 0xec, 8, 0x48, 0x83, 0xc4, 8, 0xc3, 0, 0,
    ];
    let fini_rows = vec![(0x2000, 8, None), (0x2007, 16, None), (0x200b, 8, None)];
    assert_eq!(rows(0x2000, &fini), Some((fini_rows, 0x200c)));
    let both = [CRTBEGIN, &fini].concat();
    let end = 0x1000 + CRTBEGIN.len() as u64 + 12;
    assert_eq!(rows(0x1000, &both).map(|(_, found)| found), Some(end));
    // musl: push %rax; pop %rax; ret
    let musl = vec![(0x1000, 8, None), (0x1001, 16, None), (0x1002, 8, None)];
    assert_eq!(rows(0x1000, &[0x50, 0x58, 0xc3]), Some((musl, 0x1003)));
}

#[test]
fn gcc_s_functions_are_described_each_with_its_own_stack() {
    let (rows, end) = rows(0x1000, CRTBEGIN).expect("known code");
    assert_eq!(
        rows,
        [(0x1000, 8, None), (0x103e, 16, Some(16)), (0x1064, 8, None)]
    );
    assert_eq!(end, 0x1000 + CRTBEGIN.len() as u64);
}

#[test]
fn only_whole_functions_are_described() {
    // The second function goes on with an instruction that start code has not (`cpuid`).
    let unknown = [INIT, &[0x55, 0x0f, 0xa2, 0x5d, 0xc3]].concat();
    assert_eq!(rows(0x1000, &unknown).map(|(_, end)| end), Some(0x1017));
    for (name, code) in [
        ("nothing", &[][..]),
        ("zeros", &[0; 64]),
        ("padding", &[0x90; 64]),
        ("the end of a function", &[0x48, 0x83, 0xc4, 8, 0xc3]),
        ("a return with a word too many", &[0x50, 0xc3]),
        ("a jump out with a word too many", &[0x50, 0xe9, 0, 4, 0, 0]),
        ("a table of jumps", &[0x50, 0xff, 0xe0]),
        ("a jump between two stacks", &[0x50, 0x74, 1, 0x58, 0xc3]),
        (
            "a jump back with another stack",
            &[0x90, 0x50, 0x74, 0xfc, 0x58, 0xc3],
        ),
        ("a jump into an instruction", &[0x74, 0xff, 0xc3]),
        ("room below the entry", &[0x48, 0x83, 0xec, 0xf8, 0xc3]),
        ("filler that runs", &[0x50, 0x00, 0x58, 0xc3]),
        ("no end", &INIT[..INIT.len() - 1]),
    ] {
        assert_eq!(rows(0x1000, code), None, "{name}");
    }
}

#[test]
fn any_bytes_end_and_describe_nothing_behind_themselves() {
    let mut state = 1_u32;
    for _ in 0..20_000 {
        let code: Vec<u8> = (0..64)
            .flat_map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (first, length, _) = INSTRUCTIONS[(state >> 16) as usize % INSTRUCTIONS.len()];
                let mut bytes = first.to_vec();
                bytes.resize(usize::from(length), (state >> 8) as u8 % 64);
                bytes
            })
            .collect();
        for start in [0, u64::MAX - 8] {
            if let Some(code_found) = StartCode::read(start, &code) {
                assert!(code_found.length as usize <= code.len());
            }
        }
        let _rows = rows(0x1000, &code);
    }
}

#[test]
fn gaps_are_between_functions_and_around_them() {
    let segment = Segment {
        address: 0x1000,
        file_offset: 0x400,
        length: 0x1000,
    };
    let functions = [
        (0x1010, 0x1020),
        (0x102f, 0x1040),
        (0x1030, 0x1038),
        (0x1050, 0x1060),
    ];
    assert_eq!(
        gaps(&segment, functions.into_iter()),
        [(0x1000, 0x1010), (0x1040, 0x1050), (0x1060, 0x2000)]
    );
    assert_eq!(gaps(&segment, [].into_iter()), [(0x1000, 0x2000)]);
    let ends_behind = [(0x1000, 0x2000)].into_iter();
    assert_eq!(gaps(&segment, ends_behind), []);
}

/// glibc's `_start` in its loader, and musl's `_dlstart`, each with what follows its call.
const ENTRIES: [(&[u8], u32); 2] = [
    (
        &[
            0x48, 0x89, 0xe7, // mov %rsp, %rdi
            0xe8, 0xf8, 0x0b, 0x00, 0x00, // call
            0x49, 0x89, 0xc4, // mov %rax, %r12
        ],
        8,
    ),
    (
        &[
            0x48, 0x31, 0xed, // xor %rbp, %rbp
            0x48, 0x89, 0xe7, // mov %rsp, %rdi
            0x48, 0x8d, 0x35, 0xc5, 0x45, 0x03, 0x00, // lea
            0x48, 0x83, 0xe4, 0xf0, // and $-16, %rsp
            0xe8, 0xdc, 0xa3, 0xff, 0xff, // call
        ],
        22,
    ),
];

#[test]
fn a_loader_begins_with_a_root() {
    #[derive(Default)]
    struct Roots(Vec<(u64, u64)>);
    impl RowSink for Roots {
        fn row(&mut self, start: u64, end: u64, frame: &Frame) {
            assert_eq!(frame.rule(RA), RegisterRule::Undefined);
            self.0.push((start, end));
        }

        fn unreadable(&mut self, start: u64, _end: u64, omission: Omission) {
            panic!("{start:x}: {omission:?}");
        }
    }
    for (code, length) in ENTRIES {
        let read = StartCode::read_entry(0x1000, code).expect("known code");
        let mut roots = Roots::default();
        read.rows(u64::MAX, &mut roots);
        assert_eq!(roots.0, [(0x1000, 0x1000 + u64::from(length))]);
        for cut in 0..length as usize {
            assert_eq!(StartCode::read_entry(0x1000, &code[..cut]), None);
        }
    }
    assert_eq!(StartCode::read_entry(0x1000, INIT), None);
}
