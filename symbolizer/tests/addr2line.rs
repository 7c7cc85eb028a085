//! Functions, files and lines as GNU addr2line has them, for what compilers on this machine make.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use leadsman_symbolizer::cache::ExecutableKey;
use leadsman_symbolizer::debuglink::DebugFileWanted;
use leadsman_symbolizer::elf::Elf;
use leadsman_symbolizer::file_bytes::FileBytes;
use leadsman_symbolizer::reason::Reason;
use leadsman_symbolizer::resolve::Symbolizer;

const KEY: ExecutableKey = ExecutableKey(1);
/// Addresses that are compared of each program.
const ADDRESSES: usize = 4000;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/addr2line")
        .join(name)
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}: install the compiler and binutils"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Compiles a source file and says where the result is.
fn build(directory: &Path, compiler: &str, name: &str, flags: &[&str]) -> PathBuf {
    let program = directory.join("program");
    run(Command::new(compiler)
        .args(["-O2", "-g"])
        .args(flags)
        .arg(source(name))
        .arg("-o")
        .arg(&program));
    program
}

/// One frame as text: function, file name below its last directory, line.
fn shown(function: &str, file: Option<&str>, line: Option<u32>) -> String {
    let file = file.map_or("??", |file| file.rsplit('/').next().unwrap_or(file));
    let line = line.map_or("?".to_owned(), |line| line.to_string());
    format!("{function} {file}:{line}")
}

/// What addr2line says of each address, innermost first.
fn addr2line(program: &Path, addresses: &[u64]) -> Vec<Vec<String>> {
    let mut answers = Vec::new();
    for addresses in addresses.chunks(2000) {
        let text = run(Command::new("addr2line")
            .args(["-a", "-f", "-i", "-e"])
            .arg(program)
            .args(addresses.iter().map(|address| format!("{address:#x}"))));
        let mut lines = text.lines().peekable();
        while lines.next().is_some() {
            let mut frames = Vec::new();
            while let Some(function) = lines.next_if(|line| !line.starts_with("0x")) {
                let place = lines.next().expect("place");
                let place = place.split(" (discriminator").next().expect("place");
                let (file, line) = place.rsplit_once(':').expect("file:line");
                frames.push(shown(
                    function,
                    (file != "??").then_some(file),
                    line.parse().ok().filter(|line| *line != 0),
                ));
            }
            answers.push(frames);
        }
    }
    answers
}

fn symbolizer(program: &Path) -> Symbolizer {
    let mut symbolizer = Symbolizer::default();
    symbolizer
        .add_executable(KEY, File::open(program).expect("program"))
        .expect("ELF");
    symbolizer
}

fn ours(symbolizer: &mut Symbolizer, address: u64) -> (Vec<String>, Option<Reason>) {
    let resolved = symbolizer.frames(KEY, address);
    let frames = resolved.frames.iter().map(|frame| {
        shown(
            resolved.names.get(frame.system_name),
            frame.file.map(|file| resolved.names.get(file)),
            (frame.line != 0).then_some(frame.line),
        )
    });
    (frames.collect(), resolved.reason)
}

/// Addresses spread over a program's code.
fn spread(program: &Path) -> Vec<u64> {
    let file = FileBytes::of_file(File::open(program).expect("program")).expect("file");
    let elf = Elf::read(&file).expect("ELF");
    let text = elf.section(b".text").expect(".text");
    let step = (text.size / ADDRESSES as u64).max(1);
    (0..text.size.min(ADDRESSES as u64))
        .map(|index| text.address + index * step)
        .collect()
}

/// Whether two frames are the same, but for what addr2line says of a function without a linkage name: the first time
/// it is asked, the symbol's name (of a part of the function perhaps), afterwards the plain one.
fn is_same(ours: &str, theirs: &str) -> bool {
    let whole = |frame: &str| frame.replace(".cold", "");
    let (ours, theirs) = (whole(ours), whole(theirs));
    let mangled = |(function, place): (&str, &str), (mangled, same_place): (&str, &str)| {
        place == same_place && mangled.starts_with("_Z") && mangled.contains(function)
    };
    ours == theirs
        || match (ours.rsplit_once(' '), theirs.rsplit_once(' ')) {
            (Some(ours), Some(theirs)) => mangled(theirs, ours),
            _ => false,
        }
}

/// All addresses of some functions.
fn function_addresses(program: &Path, functions: &[&str]) -> Vec<u64> {
    let symbols = run(Command::new("nm").arg("-S").arg(program));
    symbols
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| matches!(fields[..], [_, _, _, name] if functions.contains(&name)))
        .flat_map(|fields| {
            let number = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
            (number(fields[0])..).take(number(fields[1]) as usize)
        })
        .collect()
}

/// Compares all addresses that addr2line finds a line for, and returns how many they were.
fn compare(program: &Path, symbolizer: &mut Symbolizer, tolerated: usize) -> usize {
    compare_with(program, program, symbolizer, tolerated)
}

fn compare_with(
    program: &Path,
    oracle: &Path,
    symbolizer: &mut Symbolizer,
    tolerated: usize,
) -> usize {
    compare_at(oracle, symbolizer, &spread(program), tolerated)
}

fn compare_at(
    oracle: &Path,
    symbolizer: &mut Symbolizer,
    addresses: &[u64],
    tolerated: usize,
) -> usize {
    let theirs = addr2line(oracle, addresses);
    assert_eq!(theirs.len(), addresses.len());
    let (mut compared, mut different) = (0, 0);
    let mut report = String::new();
    for (address, theirs) in addresses.iter().zip(theirs) {
        // Without a line, binutils shows the file that the symbol table names, which is no path.
        if theirs.iter().all(|frame| frame.ends_with(":?")) {
            continue;
        }
        compared += 1;
        let (ours, reason) = ours(symbolizer, *address);
        if ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(a, b)| is_same(a, b)) {
            continue;
        }
        different += 1;
        if different <= 12 {
            let mut frames = ours.iter().zip(&theirs);
            let frame = frames.find(|(ours, theirs)| !is_same(ours, theirs));
            let counts = (ours.len(), theirs.len());
            writeln!(report, "{address:#x} {counts:?} {reason:?} {frame:#?}").expect("write");
        }
    }
    println!(
        "{}: {compared} compared, {different} different",
        oracle.display()
    );
    assert!(
        different <= tolerated,
        "{different} of {compared} differ:\n{report}"
    );
    compared
}

fn compared_program(compiler: &str, name: &str, flags: &[&str]) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = build(directory.path(), compiler, name, flags);
    let compared = compare(&program, &mut symbolizer(&program), 0);
    assert!(compared > 100, "only {compared} addresses have lines");
}

#[test]
fn c_position_independent_dwarf_5() {
    compared_program("gcc", "program.c", &["-gdwarf-5"]);
}

#[test]
fn c_fixed_dwarf_4() {
    compared_program("gcc", "program.c", &["-gdwarf-4", "-no-pie"]);
}

#[test]
fn c_static() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = build(directory.path(), "gcc", "program.c", &["-static"]);
    let addresses = function_addresses(&program, &["main", "exported"]);
    let compared = compare_at(&program, &mut symbolizer(&program), &addresses, 0);
    assert!(compared > 100, "only {compared} addresses have lines");
}

#[test]
fn c_shared_library() {
    compared_program("gcc", "program.c", &["-shared", "-fPIC"]);
}

#[test]
fn c_compressed() {
    compared_program("gcc", "program.c", &["-gz=zlib"]);
}

#[test]
fn c_compressed_the_old_way() {
    compared_program("gcc", "program.c", &["-gz=zlib-gnu", "-gdwarf-4"]);
}

#[test]
fn c_without_aranges() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let flags = ["-ffunction-sections", "-Wl,--gc-sections"];
    let program = build(directory.path(), "gcc", "program.c", &flags);
    run(Command::new("objcopy")
        .args(["--remove-section", ".debug_aranges"])
        .arg(&program));
    assert!(compare(&program, &mut symbolizer(&program), 0) > 100);
}

#[test]
fn cpp_with_templates_and_lambdas() {
    for flags in [["-gdwarf-5"], ["-gdwarf-4"], ["-no-pie"]] {
        let directory = tempfile::tempdir().expect("temporary directory");
        let program = build(directory.path(), "g++", "program.cpp", &flags);
        // Of an inlined function without a linkage name, binutils shows the outermost one's when first asked for it.
        let once_each = 60;
        assert!(compare(&program, &mut symbolizer(&program), once_each) > 1000);
    }
}

#[test]
fn rust_with_traits_and_closures() {
    for flags in [
        ["-Csymbol-mangling-version=legacy", "-Zunstable-options"],
        ["-Csymbol-mangling-version=v0", "-Cdebuginfo=2"],
    ] {
        let directory = tempfile::tempdir().expect("temporary directory");
        let program = directory.path().join("program");
        run(Command::new("rustc")
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["-g", "-Copt-level=2", "--edition=2024"])
            .args(flags)
            .arg(source("program.rs"))
            .arg("-o")
            .arg(&program));
        assert!(compare(&program, &mut symbolizer(&program), 0) > 1000);
    }
}

/// Compares with Go's own tool, which knows no inlined frames: it shows the outermost function at the innermost line.
#[test]
fn go_with_and_without_debuginfo() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = directory.path().join("program");
    go_build(&program, &[]);
    let addresses = spread(&program);
    let input: String = addresses
        .iter()
        .map(|address| format!("{address:#x}\n"))
        .collect();
    let list = directory.path().join("addresses");
    std::fs::write(&list, input).expect("write");
    let theirs = run(Command::new("go")
        .args(["tool", "addr2line"])
        .arg(&program)
        .stdin(File::open(&list).expect("addresses")));
    let theirs: Vec<_> = theirs.lines().collect();
    assert_eq!(theirs.len(), addresses.len() * 2);
    let stripped = directory.path().join("stripped");
    go_build(&stripped, &["-ldflags=-s -w"]);
    let pie = directory.path().join("pie");
    go_build(&pie, &["-buildmode=pie"]);

    for (program, tolerated) in [(&program, 60), (&stripped, 0)] {
        let mut symbolizer = symbolizer(program);
        let mut different = Vec::new();
        let mut compared = 0;
        for (address, theirs) in addresses.iter().zip(theirs.chunks(2)) {
            let (function, place) = (theirs[0], theirs[1]);
            // Assembly and padding have a line and no function, or the other way round.
            if function == "?" || place.ends_with(":0") || place.ends_with(":-1") {
                continue;
            }
            compared += 1;
            let resolved = symbolizer.frames(KEY, *address);
            let ours = resolved.frames.first().zip(resolved.frames.last());
            let ours = ours.map(|(innermost, outermost)| {
                let file = innermost.file.map_or("?", |file| resolved.names.get(file));
                let function = resolved.names.get(outermost.function);
                (function.to_owned(), format!("{file}:{}", innermost.line))
            });
            if ours != Some((function.to_owned(), place.to_owned())) {
                different.push((address, ours, function, place));
            }
        }
        assert!(compared > 1000, "{compared}");
        assert!(
            different.len() <= tolerated,
            "{} of {compared}: {:#x?}",
            different.len(),
            &different[..different.len().min(5)]
        );
    }
    let total = function_addresses(&pie, &["main.total"])[0];
    go_build(&pie, &["-buildmode=pie", "-ldflags=-s -w"]);
    let (frames, reason) = ours(&mut symbolizer(&pie), total);
    assert_eq!(
        (frames, reason),
        (vec!["main.total program.go:18".to_owned()], None)
    );
}

fn go_build(program: &Path, flags: &[&str]) {
    run(Command::new("go")
        .arg("build")
        .args(flags)
        .arg("-o")
        .arg(program)
        .arg(source("program.go")));
}

/// Strips a copy of the program; its debuginfo goes to a file of its own.
fn split(program: &Path) -> (PathBuf, PathBuf) {
    let stripped = program.with_extension("stripped");
    let debug = program.with_extension("debug");
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .arg(program)
        .arg(&debug));
    run(Command::new("objcopy")
        .arg("--strip-all")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .arg(program)
        .arg(&stripped));
    (stripped, debug)
}

#[test]
fn a_stripped_file_and_its_debug_file() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for (flag, by_build_id) in [
        ("-Wl,--build-id=sha1", true),
        ("-Wl,--build-id=none", false),
    ] {
        let program = build(directory.path(), "gcc", "program.c", &[flag]);
        let (stripped, debug) = split(&program);
        let mut symbolizer = symbolizer(&stripped);
        let wanted = symbolizer.debug_files_wanted(KEY);
        let first = wanted.first().expect("a debug file is wanted").clone();
        assert_eq!(matches!(first, DebugFileWanted::ByBuildId(_)), by_build_id);
        let unnamed = ours(&mut symbolizer, spread(&program)[300]);
        assert_eq!(unnamed, (Vec::new(), Some(Reason::MissingDebugFile)));

        let other = File::open("/proc/self/exe").expect("another file");
        let refused = symbolizer.attach_debug_file(KEY, &first, other);
        assert_eq!(refused, Err(Reason::DebugFileMismatch));
        for wanted in wanted {
            let file = File::open(&debug).expect("debug file");
            assert_eq!(symbolizer.attach_debug_file(KEY, &wanted, file), Ok(()));
        }
        assert!(compare_with(&program, &program, &mut symbolizer, 0) > 100);
    }
}

#[test]
fn c_compressed_with_zstd() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = build(directory.path(), "gcc", "program.c", &[]);
    let packed = directory.path().join("packed");
    run(Command::new("objcopy")
        .arg("--compress-debug-sections=zstd")
        .args([&program, &packed]));
    assert!(compare_with(&packed, &program, &mut symbolizer(&packed), 0) > 100);
}

/// The recipe of the GDB manual, "MiniDebugInfo".
#[test]
fn symbols_left_in_gnu_debugdata() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = build(directory.path(), "gcc", "program.c", &[]);
    let path = |name: &str| directory.path().join(name);
    run(Command::new("objcopy")
        .args([
            "--only-keep-debug",
            "--strip-debug",
            "--remove-section=.comment",
        ])
        .args([&program, &path("mini")]));
    run(Command::new("xz").arg("--keep").arg(path("mini")));
    run(Command::new("objcopy")
        .arg("--strip-all")
        .arg(format!(
            "--add-section=.gnu_debugdata={}",
            path("mini.xz").display()
        ))
        .args([&program, &path("stripped")]));
    let mut symbolizer = symbolizer(&path("stripped"));
    for address in function_addresses(&program, &["exported", "compare"]) {
        let (frames, reason) = ours(&mut symbolizer, address);
        assert_eq!(reason, None, "{address:#x}");
        assert!(
            matches!(&*frames[0], "exported ??:?" | "compare ??:?"),
            "{frames:?}"
        );
    }
}
