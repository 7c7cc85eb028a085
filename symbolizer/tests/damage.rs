//! Files that are cut, overwritten or built to hurt: each costs itself only, and never more than its share of work.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use leadsman_symbolizer::elf::Elf;
use leadsman_symbolizer::executable::Executable;
use leadsman_symbolizer::file_bytes::FileBytes;
use leadsman_symbolizer::fuzz;
use leadsman_symbolizer::reason::Reason;

/// Numbers that are the same in each run (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

fn build(flags: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = directory.path().join("program");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/addr2line/program.c");
    let status = Command::new("gcc")
        .args(["-O2", "-g"])
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(&program)
        .status()
        .expect("gcc: install it");
    assert!(status.success());
    std::fs::read(program).expect("program")
}

/// Ranges of the file that are worth damaging.
fn tables(bytes: &[u8]) -> Vec<(usize, usize)> {
    let elf = Elf::read(&FileBytes::of_memory(bytes)).expect("ELF");
    let names: [&[u8]; 12] = [
        b".debug_info",
        b".debug_abbrev",
        b".debug_line",
        b".debug_line_str",
        b".debug_aranges",
        b".debug_ranges",
        b".debug_rnglists",
        b".debug_str",
        b".symtab",
        b".dynsym",
        b".note.gnu.build-id",
        b".shstrtab",
    ];
    let mut ranges: Vec<_> = names
        .into_iter()
        .filter_map(|name| elf.section(name))
        .map(|header| (header.offset as usize, header.size as usize))
        .collect();
    ranges.push((0, 1024));
    // The section headers stand at the end.
    ranges.push((bytes.len() - 2304, 2304));
    ranges
}

#[test]
fn overwritten_bytes_are_answered() {
    let mut numbers = Numbers(0x1ead_53a4);
    for flags in [["-gdwarf-5"], ["-gdwarf-4"], ["-gz=zlib"]] {
        let whole = build(&flags);
        let tables = tables(&whole);
        for _ in 0..1500 {
            let mut damaged = whole.clone();
            for _ in 0..=numbers.below(6) {
                let (start, len) = tables[numbers.below(tables.len())];
                let at = start + numbers.below(len);
                damaged[at] = match numbers.below(4) {
                    0 => 0xff,
                    1 => 0,
                    2 => damaged[at] ^ 1 << numbers.below(8),
                    _ => numbers.below(256) as u8,
                };
            }
            fuzz::elf(&damaged);
        }
    }
}

#[test]
fn cut_files_are_answered() {
    let whole = build(&[]);
    for end in (0..whole.len()).step_by(61) {
        fuzz::elf(&whole[..end]);
    }
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_truncated() {
    let bytes = build(&[]);
    let mut file = tempfile::tempfile().expect("temporary file");
    std::io::Write::write_all(&mut file, &bytes).expect("write");
    let copy = file.try_clone().expect("clone");
    let mut executable = Executable::read(FileBytes::of_file(copy).expect("file")).expect("ELF");
    let text = *executable.elf().section(b".text").expect(".text");
    file.set_len(4096).expect("cut");
    let resolved = executable.frames(text.address + 64);
    assert_eq!(resolved.reason, Some(Reason::Truncated));
}

/// A unit of a million entries of one byte, each with 60,000 attributes that take no bytes: 6e10 steps when believed.
#[test]
fn entries_without_bytes_end_with_the_work() {
    let mut abbreviations = Vec::new();
    // 1: DW_TAG_compile_unit with children, DW_AT_low_pc as DW_FORM_addr, DW_AT_high_pc as DW_FORM_data4.
    abbreviations.extend([1, 0x11, 1, 0x11, 0x01, 0x12, 0x06, 0, 0]);
    // 2: DW_TAG_subprogram, DW_AT_external as DW_FORM_flag_present, again and again.
    abbreviations.extend([2, 0x2e, 0]);
    for _ in 0..60_000 {
        abbreviations.extend([0x3f, 0x19]);
    }
    abbreviations.extend([0, 0, 0]);

    let text_address: u64 = 0x1000;
    let mut unit = Vec::new();
    unit.extend(4_u16.to_le_bytes());
    unit.extend(0_u32.to_le_bytes());
    unit.push(8);
    unit.push(1);
    unit.extend(text_address.to_le_bytes());
    unit.extend(0x1000_u32.to_le_bytes());
    unit.resize(unit.len() + 1_000_000, 2);
    let mut info = (unit.len() as u32).to_le_bytes().to_vec();
    info.extend(unit);

    let bytes = elf_with(
        text_address,
        &[(".debug_abbrev", &abbreviations), (".debug_info", &info)],
    );
    let mut executable = Executable::read(FileBytes::of_memory(bytes)).expect("ELF");
    let started = Instant::now();
    let resolved = executable.frames(text_address + 16);
    println!("{:?} after {:?}", resolved.reason, started.elapsed());
    assert_eq!(resolved.reason, Some(Reason::WorkLimit));
    executable.begin_window();
    assert_eq!(
        executable.frames(text_address + 16).reason,
        Some(Reason::WorkLimit)
    );
}

/// An ELF file with an executable segment and some sections.
fn elf_with(text_address: u64, sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut names = b"\0.shstrtab\0".to_vec();
    let mut headers = vec![[0_u64; 4]];
    let mut body = Vec::new();
    let start = 64 + 56;
    for (name, bytes) in sections {
        headers.push([
            names.len() as u64,
            1,
            start + body.len() as u64,
            bytes.len() as u64,
        ]);
        names.extend(name.bytes().chain([0]));
        body.extend_from_slice(bytes);
    }
    headers.push([1, 3, start + body.len() as u64, names.len() as u64]);
    body.extend(names);

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |file: &mut Vec<u8>, values: &[u16]| {
        values
            .iter()
            .for_each(|value| file.extend(value.to_le_bytes()));
    };
    let word = |file: &mut Vec<u8>, values: &[u32]| {
        values
            .iter()
            .for_each(|value| file.extend(value.to_le_bytes()));
    };
    let long = |file: &mut Vec<u8>, values: &[u64]| {
        values
            .iter()
            .for_each(|value| file.extend(value.to_le_bytes()));
    };
    half(&mut file, &[2, 62]);
    word(&mut file, &[1]);
    long(&mut file, &[text_address, 64, start + body.len() as u64]);
    word(&mut file, &[0]);
    let count = headers.len() as u16;
    half(&mut file, &[64, 56, 1, 64, count, count - 1]);
    word(&mut file, &[1, 5]);
    long(
        &mut file,
        &[0, text_address, text_address, 0x1000, 0x1000, 0x1000],
    );
    file.extend(body);
    for [name, kind, offset, size] in headers {
        word(&mut file, &[name as u32, kind as u32]);
        long(&mut file, &[0, 0, offset, size]);
        word(&mut file, &[0, 0]);
        long(&mut file, &[1, 0]);
    }
    file
}
