//! Unwind tables against gimli and readelf: at both ends of every row of real programs, one step by our table must find
//! what gimli's rows and expressions find on the same registers and memory, and its rule must be the row readelf prints.

mod oracle;

use std::path::{Path, PathBuf};
use std::process::Command;

use ipc_proto::table_file::TableFile;
use leadsman_symbolizer::unwind_table;
use oracle::{Comparison, Oracle, readelf};

/// Least share of the bytes of text that must have equal rules.
const EQUAL_SHARE: f64 = 0.999;
/// A program of the usual size: the runtime's functions for calls injected by a debugger have frames of up to a
/// gigabyte, which no rule says.
const GO_PROGRAM: &str = "package main

import \"net/http\"

func main() { http.ListenAndServe(\"localhost:0\", nil) }
";

fn compare(path: &Path) {
    let bytes = std::fs::read(path).expect("a readable file");
    let table = unwind_table::build(bytes.as_slice()).expect("an executable");
    let encoded = table.encode();
    let file = TableFile::open(&encoded).expect("a sound table");
    file.check_chunks().expect("sound chunks");
    let oracle = Oracle::read(&bytes);
    let comparison = oracle.compare(&file);
    report(path, "gimli", &comparison);
    let second = readelf::compare(path, &file, oracle.segments());
    report(path, "readelf", &second);
    for (omission, count) in table.omissions().iter() {
        println!("    {omission}: {count}");
    }
    for comparison in [comparison, second] {
        assert!(comparison.rows > 0, "{}: no row", path.display());
        assert!(
            comparison.different.is_empty(),
            "{}:\n{}",
            path.display(),
            comparison.different.join("\n")
        );
        assert!(
            comparison.equal_share() >= EQUAL_SHARE,
            "{}",
            path.display()
        );
    }
    let logical = oracle::compare_logical_rows(&bytes);
    assert!(
        logical.is_empty(),
        "{}:\n{}",
        path.display(),
        logical.join("\n")
    );
}

fn report(path: &Path, oracle: &str, comparison: &Comparison) {
    println!(
        "{}: {oracle}: {} rows, {:.5} % of {} bytes equal, {} bytes with a marker",
        path.display(),
        comparison.rows,
        100.0 * comparison.equal_share(),
        comparison.bytes,
        comparison.marked_bytes
    );
}

/// Compares those of the files that this machine has; the first is everywhere.
fn compare_present(paths: &[&str]) {
    let mut compared = 0;
    for path in paths.iter().map(Path::new).filter(|path| path.exists()) {
        compare(path);
        compared += 1;
    }
    assert!(compared > 0, "none of {paths:?} is on this machine");
}

#[test]
fn c_libraries_agree() {
    compare_present(&[
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/lib64/libc.so.6",
    ]);
}

#[test]
fn libraries_with_exceptions_and_assembly_agree() {
    compare_present(&[
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
        "/usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
        "/usr/lib64/libstdc++.so.6",
    ]);
}

#[test]
fn large_programs_agree() {
    compare_present(&[
        "/usr/bin/python3.11",
        "/usr/bin/node",
        "/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1",
        "/usr/bin/bash",
    ]);
}

#[test]
fn a_rust_program_agrees() {
    compare(&std::env::current_exe().expect("this test's own program"));
}

#[test]
fn a_go_program_agrees() {
    let Some(go) = go() else {
        panic!("no Go on this machine: tests/PACKAGES names it");
    };
    let directory = tempfile::tempdir().expect("temporary directory");
    let source = directory.path().join("main.go");
    std::fs::write(&source, GO_PROGRAM).expect("written");
    let build = |name: &str, flags: &str| {
        let program = directory.path().join(name);
        let status = Command::new(&go)
            .args(["build", "-ldflags", flags, "-o"])
            .arg(&program)
            .arg(&source)
            .current_dir(directory.path())
            .status()
            .expect("Go runs");
        assert!(status.success(), "Go built nothing");
        program
    };
    let program = build("program", "");
    compare(&program);

    // Without .debug_frame Go's own tables say the same of the same code.
    let stripped = std::fs::read(build("stripped", "-s -w")).expect("a readable file");
    let table = unwind_table::build(stripped.as_slice()).expect("an executable");
    let encoded = table.encode();
    let bytes = std::fs::read(&program).expect("a readable file");
    let table = TableFile::open(&encoded).expect("a sound table");
    let comparison = Oracle::read(&bytes).compare(&table);
    report(Path::new("stripped Go program"), "gimli", &comparison);
    assert!(
        comparison.different.is_empty(),
        "{}",
        comparison.different.join("\n")
    );
    assert!(comparison.equal_share() >= EQUAL_SHARE);
}

fn go() -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .chain([PathBuf::from("/usr/local/go/bin")])
        .map(|directory| directory.join("go"))
        .find(|path| path.exists())
}
