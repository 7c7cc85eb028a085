//! Go's own pprof tool accepts what this crate builds and writes, and this crate reads what Go writes. Needs `go`; without
//! it each test says so and that it did not run.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use pprof::{Builder, Frames, Labels, Line, LocationId, Mapping, Meta, Profile, Summary};

/// Whether Go is there.
fn has_go(test: &str) -> bool {
    let why = match Command::new("go").arg("version").output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => format!("`go version` ends with {}", output.status),
        Err(error) => format!("`go` cannot be started: {error}; install golang"),
    };
    // Not eprintln!, which the test runner keeps to itself when a test passes.
    let line = format!("{test} DID NOT RUN: {why}\n");
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("standard error is open");
    false
}

fn go(arguments: &[&str], directory: &Path) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new("go")
        .args(arguments)
        .current_dir(directory)
        .env("GOFLAGS", "-mod=mod")
        .env("PPROF_TMPDIR", directory)
        // Profiles are symbolized: no executable is to be looked for.
        .env("PPROF_BINARY_PATH", directory)
        .output()
        .expect("go starts");
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "go {arguments:?}: {stderr}");
    String::from_utf8(stdout).expect("go writes UTF-8")
}

fn built() -> Profile {
    let mut builder = Builder::new(Meta {
        time_nanos: 1_795_528_358_000_000_000,
        duration_nanos: 10_000_000_000,
        frequency: 97,
    });
    let app = builder.mapping(&Mapping {
        start: 0x40_0000,
        limit: 0x50_0000,
        file_offset: 0x1000,
        filename: "/usr/bin/app",
        build_id: "0123456789abcdef0123456789abcdef01234567",
    });
    let kernel = builder.mapping(&Mapping {
        start: 0xffff_ffff_8000_0000,
        limit: 0xffff_ffff_c000_0000,
        filename: "[kernel.kallsyms]",
        ..Mapping::default()
    });
    let place = |builder: &mut Builder, mapping, address, names: &[&str]| -> LocationId {
        let lines: Vec<Line> = names
            .iter()
            .map(|name| Line {
                function: builder.function(name, &format!("_Z{name}"), "app.c"),
                line: 12,
            })
            .collect();
        builder.location(mapping, address, &lines)
    };
    let main = place(&mut builder, Some(app), 0x40_1000, &["main"]);
    let work = place(&mut builder, Some(app), 0x40_2000, &["inlined", "work"]);
    let unnamed = place(&mut builder, Some(app), 0x40_3000, &[]);
    let syscall = place(
        &mut builder,
        Some(kernel),
        0xffff_ffff_8000_1234,
        &["do_syscall"],
    );
    let stopped = place(&mut builder, None, 0, &["[unwind stopped: no_row]"]);
    let mut add = |pid, comm, stack: &[LocationId], count| {
        let labels = Labels {
            pid: Some(pid),
            thread_id: Some(pid + 1),
            comm,
            thread_name: "worker 1",
            others: &[("node", "n1")],
        };
        builder.sample(stack, &labels, count);
    };
    add(10, "app", &[work, main], 60);
    add(10, "app", &[syscall, work, main], 30);
    add(20, "db", &[unnamed, main], 9);
    add(20, "db", &[work, stopped], 1);
    builder.comment("dropped: ring_full: 3");
    builder.finish()
}

#[test]
fn go_tool_pprof_accepts_a_built_profile() {
    if !has_go("go_tool_pprof_accepts_a_built_profile") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("built.pb.gz");
    std::fs::write(&file, pprof::write_gzip(&built())).unwrap();
    let file = file.to_str().unwrap();

    let raw = go(&["tool", "pprof", "-raw", file], directory.path());
    for expected in [
        "PeriodType: cpu nanoseconds",
        "Period: 10309278",
        "Time: 2026-11-24 13:52:38",
        "Duration: 10s",
        "samples/count",
        "comm:[app]",
        "thread_name:[worker 1]",
        "node:[n1]",
        "pid:[10]",
        "thread_id:[21]",
        "0x401000 M=1 main app.c:12",
        "0x402000 M=1 inlined app.c:12",
        "             work app.c:12",
        "/usr/bin/app 0123456789abcdef0123456789abcdef01234567 [FN][FL][LN][IN]",
        "[kernel.kallsyms]  [FN][FL][LN]",
        "dropped: ring_full: 3",
    ] {
        assert!(raw.contains(expected), "no {expected:?} in -raw:\n{raw}");
    }

    let top = go(&["tool", "pprof", "-top", file], directory.path());
    assert!(top.contains("Total samples = 100"), "{top}");
    let row = |name: &str| -> Vec<String> {
        let line = top.lines().find(|line| line.contains(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in -top:\n{top}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(
        row("inlined")[..5],
        ["61", "61.00%", "61.00%", "91", "91.00%"]
    );
    assert_eq!(row("do_syscall")[..2], ["30", "30.00%"]);
    assert_eq!(row("main")[3..5], ["99", "99.00%"]);

    let traces = go(&["tool", "pprof", "-traces", file], directory.path());
    let stack: Vec<&str> = traces
        .lines()
        .skip_while(|line| !line.contains("do_syscall"))
        .take(4)
        .map(|line| line.trim().trim_start_matches("30").trim())
        .collect();
    assert_eq!(
        stack,
        ["do_syscall", "inlined (inline)", "work", "main"],
        "{traces}"
    );
}

#[test]
fn go_reads_back_the_very_profile() {
    if !has_go("go_reads_back_the_very_profile") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("built.pb.gz");
    std::fs::write(&file, pprof::write_gzip(&built())).unwrap();
    let output = directory.path().join("copy.pb.gz");
    go(
        &[
            "tool",
            "pprof",
            "-proto",
            "-output",
            output.to_str().unwrap(),
            file.to_str().unwrap(),
        ],
        directory.path(),
    );
    let copy = pprof::read(&std::fs::read(&output).unwrap()).unwrap();
    let stacks = |profile: &Profile| {
        let frames = Frames::new(profile);
        let mut folded = Vec::new();
        pprof::folded::write(&frames, &mut folded).unwrap();
        String::from_utf8(folded).unwrap()
    };
    assert_eq!(stacks(&copy), stacks(&built()));
    assert_eq!(copy.mapping.len(), built().mapping.len());
}

const PROGRAM: &str = r#"package main

import (
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

var kept [][]byte

//go:noinline
func allocate() {
	for range 2000 {
		kept = append(kept, make([]byte, 4096))
	}
}

//go:noinline
func burn(until time.Time) (sum int) {
	for time.Now().Before(until) {
		for index := range 10000 {
			sum += index
		}
	}
	return
}

func main() {
	runtime.MemProfileRate = 1
	cpu, _ := os.Create("cpu.pb.gz")
	pprof.StartCPUProfile(cpu)
	burn(time.Now().Add(500 * time.Millisecond))
	pprof.StopCPUProfile()
	cpu.Close()
	allocate()
	runtime.GC()
	heap, _ := os.Create("heap.pb.gz")
	pprof.WriteHeapProfile(heap)
	heap.Close()
}
"#;

#[test]
fn profiles_that_go_writes_are_read() {
    if !has_go("profiles_that_go_writes_are_read") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("main.go"), PROGRAM).unwrap();
    go(&["run", "main.go"], directory.path());
    let profile = |name: &str| pprof::read(&std::fs::read(directory.path().join(name)).unwrap());

    let cpu = profile("cpu.pb.gz").unwrap();
    let frames = Frames::new(&cpu);
    assert_eq!(
        (frames.value().kind, frames.value().unit),
        ("cpu", "nanoseconds")
    );
    let summary = Summary::new(&frames);
    let burn = summary
        .functions
        .iter()
        .find(|value| value.function.name == "main.burn");
    let burn = burn.expect("main.burn is in the CPU profile");
    assert!(
        burn.total * 2 > summary.total,
        "{burn:?} of {}",
        summary.total
    );

    let heap = profile("heap.pb.gz").unwrap();
    let frames = Frames::new(&heap);
    assert_eq!(
        (frames.value().kind, frames.value().unit),
        ("inuse_space", "bytes")
    );
    let summary = Summary::new(&frames);
    let allocate = summary
        .functions
        .iter()
        .find(|value| value.function.name == "main.allocate");
    let allocate = allocate.expect("main.allocate is in the heap profile");
    assert!(allocate.total >= 2000 * 4096, "{allocate:?}");
}
