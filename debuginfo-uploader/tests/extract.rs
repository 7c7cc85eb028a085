//! What is made of what compilers on this machine make: an extract says the same as its file to binutils, to Go's readers
//! and by the program headers.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use leadsman_debuginfo_uploader::prepare::{Options, Prepared, choose};
use leadsman_debuginfo_uploader::{Checked, Fault, Symbols};

const PLAIN: Options = Options {
    strip: true,
    compress: false,
};
const COMPRESSED: Options = Options {
    strip: true,
    compress: true,
};
/// Addresses that are compared of each program.
const ADDRESSES: u64 = 400;

fn source(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/extract");
    directory.join(name)
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}: install the compiler and binutils"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Compiles one of the programs.
fn build(directory: &Path, compiler: &str, name: &str, flags: &[&str]) -> PathBuf {
    let program = directory.join("program");
    let mut command = Command::new(compiler);
    match compiler {
        "go" => command.arg("build").args(flags),
        _ => command.args(["-O2", "-g"]).args(flags),
    };
    run(command
        .arg("-o")
        .arg(&program)
        .arg(source(name))
        .current_dir(directory));
    program
}

fn c(flags: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = build(directory.path(), "gcc", "program.c", flags);
    (directory, program)
}

fn open(path: &Path) -> File {
    File::open(path).expect("opened")
}

fn prepare(program: &Path, options: Options, to: &Path) -> Result<Prepared, Fault> {
    let chosen = choose(open(program), None)?;
    chosen.prepare(options, || {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(to)
    })
}

/// Addresses spread over the code, from `readelf`'s list of sections.
fn addresses(program: &Path) -> Vec<String> {
    let sections = run(Command::new("readelf").args(["-SW"]).arg(program));
    let text = sections.lines().find(|line| line.contains(" .text "));
    let (_, fields) = text.expect(".text").split_once(']').expect("a number");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |nth: usize| u64::from_str_radix(fields[nth], 16).expect("hexadecimal");
    let (address, size) = (number(2), number(4));
    let step = (size / ADDRESSES).max(1);
    let mut all: Vec<u64> = (address..address + size)
        .step_by(usize::try_from(step).expect("small"))
        .collect();
    let symbols = Command::new("nm").arg(program).output().expect("nm");
    let symbols = String::from_utf8(symbols.stdout).expect("UTF-8");
    let inner = symbols.lines().filter(|line| line.ends_with("inner"));
    all.extend(inner.filter_map(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok()));
    all.iter().map(|address| format!("{address:#x}")).collect()
}

fn addr2line(program: &Path, addresses: &[String]) -> String {
    run(Command::new("addr2line")
        .args(["-a", "-f", "-i", "-e"])
        .arg(program)
        .args(addresses)
        .env_remove("DEBUGINFOD_URLS"))
}

/// What Go's readers say: compiled once.
fn go_reader(program: &Path, addresses: &[String]) -> String {
    static READER: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
        let directory = tempfile::tempdir().expect("temporary directory");
        let program = build(directory.path(), "go", "reader.go", &[]);
        (directory, program)
    });
    run(Command::new(&READER.1).arg(program).args(addresses))
}

fn program_headers(program: &Path) -> Vec<String> {
    let text = run(Command::new("readelf").args(["-lW"]).arg(program));
    let is_header = |line: &&str| line.trim_start().starts_with("LOAD");
    text.lines().filter(is_header).map(str::to_owned).collect()
}

/// Extracts with and without compression and compares with the program. Returns the sizes: of the program, of the
/// extract, of the compressed extract.
fn same(program: &Path, symbols: Symbols) -> [u64; 3] {
    let chosen = choose(open(program), None).expect("has symbols");
    assert_eq!(chosen.symbols(), symbols);
    let addresses = addresses(program);
    let (lines, go) = (
        addr2line(program, &addresses),
        go_reader(program, &addresses),
    );
    assert!(lines.contains("inner") || go.contains("inner"), "{lines}");
    let mut sizes = vec![std::fs::metadata(program).expect("there").len()];
    for options in [PLAIN, COMPRESSED] {
        let extract = program.with_extension("extract");
        let prepared = prepare(program, options, &extract).expect("extracted");
        match prepared.checked {
            Some(Checked::Names(named)) => assert!(named > 3, "{named} names compared"),
            other => panic!("{other:?}"),
        }
        assert_eq!(addr2line(&extract, &addresses), lines, "{options:?}");
        assert_eq!(go_reader(&extract, &addresses), go, "{options:?}");
        assert_eq!(program_headers(&extract), program_headers(program));
        let notes = |file: &Path| run(Command::new("readelf").args(["-nW"]).arg(file));
        assert_eq!(notes(&extract), notes(program));
        let dump = Command::new("readelf")
            .args(["-SsW", "--debug-dump=decodedline"])
            .arg(&extract)
            .output()
            .expect("readelf");
        let complaints = String::from_utf8_lossy(&dump.stderr).into_owned();
        assert!(
            dump.status.success() && complaints.is_empty(),
            "{complaints}"
        );
        assert_eq!(
            prepared.size,
            std::fs::metadata(&extract).expect("there").len()
        );
        sizes.push(prepared.size);
    }
    println!("{}: {sizes:?} bytes", program.display());
    sizes.try_into().expect("three")
}

#[test]
fn position_independent_and_not() {
    for flags in [&["-pie", "-fPIE"][..], &["-no-pie"], &["-gdwarf-4", "-pie"]] {
        let (_directory, program) = c(flags);
        same(&program, Symbols::Dwarf);
    }
}

#[test]
fn a_static_program() {
    let (_directory, program) = c(&["-static"]);
    let [whole, extract, _] = same(&program, Symbols::Dwarf);
    assert!(extract < whole / 2, "{extract} of {whole}");
}

#[test]
fn a_shared_library() {
    let (_directory, program) = c(&["-shared", "-fPIC", "-DLIBRARY"]);
    same(&program, Symbols::Dwarf);
}

#[test]
fn c_plus_plus_gets_smaller_compressed() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = directory.path();
    let program = build(program, "g++", "program.cpp", &[]);
    let lines = addr2line(&program, &addresses(&program));
    assert!(lines.contains("deepest"), "{lines}");
    let extract = program.with_extension("extract");
    let mut sizes = Vec::new();
    for options in [PLAIN, COMPRESSED] {
        let prepared = prepare(&program, options, &extract).expect("extracted");
        assert_eq!(addr2line(&extract, &addresses(&program)), lines);
        sizes.push(prepared.size);
    }
    assert!(sizes[1] < sizes[0] * 2 / 3, "{sizes:?}");
    let header = run(Command::new("readelf").args(["-t", "-W"]).arg(&extract));
    assert!(header.contains("ZLIB"), "{header}");
}

#[test]
fn sections_that_were_compressed_stay_so() {
    for kind in ["zlib", "zstd", "zlib-gnu"] {
        let (_directory, program) = c(&[]);
        let kind = format!("--compress-debug-sections={kind}");
        run(Command::new("objcopy").arg(kind).arg(&program));
        let extract = program.with_extension("extract");
        prepare(&program, COMPRESSED, &extract).expect("extracted");
        let addresses = addresses(&program);
        let lines = addr2line(&program, &addresses);
        assert!(lines.contains("program.c:"), "{lines}");
        assert_eq!(addr2line(&extract, &addresses), lines);
    }
}

#[test]
fn split_debuginfo_keeps_what_leads_to_it() {
    let (_directory, program) = c(&["-gsplit-dwarf"]);
    let extract = program.with_extension("extract");
    prepare(&program, PLAIN, &extract).expect("extracted");
    let addresses = addresses(&program);
    let lines = addr2line(&program, &addresses);
    assert!(
        lines.contains("inner") && lines.contains("program.c:"),
        "{lines}"
    );
    assert_eq!(addr2line(&extract, &addresses), lines);
    let links = |file: &Path| {
        let text = run(Command::new("readelf")
            .args(["-wN", "--debug-dump=info"])
            .arg(file));
        let names = text.lines().filter(|line| line.contains("dwo_name"));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!links(&program).is_empty());
    assert_eq!(links(&extract), links(&program));
}

#[test]
fn go_programs_with_and_without_dwarf() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for (flags, symbols) in [
        (&[][..], Symbols::Dwarf),
        (&["-ldflags=-s -w"], Symbols::Functions),
        (&["-buildmode=pie", "-ldflags=-s -w"], Symbols::Functions),
    ] {
        let program = build(directory.path(), "go", "program.go", flags);
        let addresses = addresses(&program);
        let go = go_reader(&program, &addresses);
        let chosen = choose(open(&program), None).expect("has symbols");
        assert_eq!(chosen.symbols(), symbols);
        for options in [PLAIN, COMPRESSED] {
            let extract = program.with_extension("extract");
            let prepared = prepare(&program, options, &extract).expect("extracted");
            assert!(matches!(prepared.checked, Some(Checked::Names(named)) if named > 3));
            assert_eq!(go_reader(&extract, &addresses), go, "{flags:?}");
        }
        let named = go.contains("runtime.");
        assert!(named || flags.contains(&"-buildmode=pie"), "{go}");
    }
}

#[test]
fn a_rust_program() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = directory.path().join("program");
    run(Command::new("rustc")
        .args(["-O", "-g", "-o"])
        .arg(&program)
        .arg(source("program.rs")));
    same(&program, Symbols::Dwarf);
}

#[test]
fn what_has_no_symbols_is_refused() {
    let (_directory, program) = c(&[]);
    run(Command::new("strip").arg("-s").arg(&program));
    let refused = choose(open(&program), None).map(|_| ());
    assert!(matches!(refused, Err(Fault::NoSymbols)), "{refused:?}");
    // Without debuginfo there are still functions.
    let (_directory, program) = c(&[]);
    run(Command::new("strip").arg("-g").arg(&program));
    same(&program, Symbols::Functions);
    // A stripped library still has what it exports.
    let (_directory, program) = c(&["-shared", "-fPIC", "-DLIBRARY"]);
    run(Command::new("strip").arg("-s").arg(&program));
    let chosen = choose(open(&program), None).expect("exports functions");
    assert_eq!(chosen.symbols(), Symbols::Exported);
}

#[test]
fn a_debug_file_goes_as_it_is() {
    let (directory, program) = c(&[]);
    let debug_file = directory.path().join("program.debug");
    let objcopy = |arguments: &[&str], from: &Path, to: &Path| {
        run(Command::new("objcopy").args(arguments).arg(from).arg(to));
    };
    let lines = addr2line(&program, &addresses(&program));
    objcopy(&["--only-keep-debug"], &program, &debug_file);
    let stripped = directory.path().join("stripped");
    objcopy(&["--strip-all"], &program, &stripped);

    let chosen = choose(open(&stripped), Some(open(&debug_file))).expect("has symbols");
    assert!(chosen.is_debug_file() && !chosen.needs_temporary(PLAIN));
    let prepared = chosen
        .prepare(PLAIN, || panic!("needs no temporary file"))
        .expect("ready");
    let mut sent = Vec::new();
    let mut file = prepared.file;
    file.read_to_end(&mut sent).expect("read");
    assert_eq!(sent, std::fs::read(&debug_file).expect("read"));

    // Compressed where that is asked for.
    let extract = directory.path().join("extract");
    let chosen = choose(open(&stripped), Some(open(&debug_file))).expect("has symbols");
    let temporary = || {
        File::create_new(&extract)
            .and_then(|_new| File::options().read(true).write(true).open(&extract))
    };
    chosen.prepare(COMPRESSED, temporary).expect("extracted");
    assert_eq!(addr2line(&extract, &addresses(&program)), lines);

    // A debug file without debuginfo does not keep the executable away.
    let chosen = choose(open(&program), Some(open(&stripped))).expect("has symbols");
    assert!(!chosen.is_debug_file());
}

#[test]
fn a_file_goes_whole_when_told_so() {
    let (_directory, program) = c(&[]);
    let chosen = choose(open(&program), None).expect("has symbols");
    let whole = Options {
        strip: false,
        compress: true,
    };
    let prepared = chosen
        .prepare(whole, || panic!("needs no temporary file"))
        .expect("ready");
    assert_eq!(
        prepared.size,
        std::fs::metadata(&program).expect("there").len()
    );
    assert_eq!(prepared.checked, None);
}

/// Bytes of memory of its own that this process has had at most.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|text| text.trim().parse::<u64>().ok())
        .expect("a number")
        * 1024
}

#[test]
fn two_gigabytes_take_no_more_memory_than_two_megabytes() {
    const LARGE: u64 = 2 << 30;
    let (directory, program) = c(&[]);
    // A section of 2 GiB, of holes.
    let content = directory.path().join("content");
    std::fs::write(&content, b"x").expect("written");
    run(Command::new("objcopy")
        .args([
            "--add-section",
            &format!(".debug_large={}", content.display()),
        ])
        .arg(&program));
    let large = open(&program);
    let size = large.metadata().expect("known").len();
    let sections = run(Command::new("readelf").args(["-SW"]).arg(&program));
    let number = sections
        .lines()
        .find(|line| line.contains(".debug_large"))
        .and_then(|line| line.split(['[', ']']).nth(1)?.trim().parse::<u64>().ok())
        .expect("there");
    let mut header = [0; 64];
    large.read_exact_at(&mut header, 0).expect("read");
    let table = u64::from_le_bytes(header[40..48].try_into().expect("eight"));
    let file = File::options().write(true).open(&program).expect("opened");
    // sh_offset and sh_size: behind everything else.
    let start = size.next_multiple_of(4096);
    file.write_all_at(&start.to_le_bytes(), table + number * 64 + 24)
        .expect("written");
    file.write_all_at(&LARGE.to_le_bytes(), table + number * 64 + 32)
        .expect("written");
    file.set_len(start + LARGE).expect("grown");

    let before = peak_bytes();
    let extract = directory.path().join("extract");
    let prepared = prepare(&program, COMPRESSED, &extract).expect("extracted");
    assert!(matches!(prepared.checked, Some(Checked::Names(_))));
    let grown = peak_bytes() - before;
    println!(
        "{grown} bytes for {} compressed to {}",
        start + LARGE,
        prepared.size
    );
    assert!(grown < 64 << 20, "{grown} bytes more");
}

#[test]
fn damage_is_an_answer() {
    let (_directory, program) = c(&[]);
    let whole = std::fs::read(&program).expect("read");
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..600_u32 {
        let mut damaged = whole.clone();
        let length = damaged.len() as u64;
        if round % 3 == 0 {
            damaged.truncate((next() % length) as usize);
        }
        // Headers are where damage hurts: the first bytes, and the section headers at the end.
        for _ in 0..next() % 6 {
            let length = damaged.len() as u64;
            let place = match next() % 3 {
                0 => next() % length.clamp(1, 0x400),
                1 => length.saturating_sub(1 + next() % 0xa00),
                _ => next() % length.max(1),
            };
            if let Some(byte) = damaged.get_mut(place as usize) {
                *byte = match next() % 3 {
                    0 => 0,
                    1 => 0xff,
                    _ => next() as u8,
                };
            }
        }
        leadsman_debuginfo_uploader::fuzz::extract(&damaged);
    }
}

#[test]
fn a_file_that_shrinks_meanwhile_is_an_answer() {
    let (_directory, program) = c(&["-static"]);
    let mut file = tempfile::tempfile().expect("made");
    file.write_all(&std::fs::read(&program).expect("read"))
        .expect("written");
    file.seek(SeekFrom::Start(0)).expect("rewound");
    let chosen = choose(file.try_clone().expect("cloned"), None).expect("has symbols");
    file.set_len(5000).expect("cut");
    assert!(chosen.prepare(PLAIN, tempfile::tempfile).is_err());
}
