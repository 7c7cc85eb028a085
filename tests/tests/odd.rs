//! Stacks that are made, left or stored in odd ways: coroutines, jumps, nested signals, assembly, Go and C in turn, programs
//! linked, started and kept in every way Linux knows. Each thread shows exactly the stack it has.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leadsman_tests::odd::{
    async_chain, cgo_chain, crypto_chains, odd_chains, odd_child_chains, simple_chains,
    unframed_chain,
};
use leadsman_tests::record::record_profile;
use leadsman_tests::report::Report;
use leadsman_tests::workloads::{Workload, go_chain, programs, some_chains, variant};
use leadsman_tests::{Machine, require_command};

/// Share of a thread's samples that must show its exact chain.
const SHARE: f64 = 0.98;
/// The same for processes that live some milliseconds and share what they run with others.
const SHORT_SHARE: f64 = 0.94;

#[test]
fn stacks_made_and_left_in_odd_ways() -> Result<()> {
    let _machine = Machine::lock()?;
    let odd = Workload::start("odd", &["600"])?;
    let futures = Workload::start("chains-async", &["600"])?;
    let recording = record_profile(&["-d", "6s", "-F", "997"])?;
    let (odd, futures) = (i64::from(odd.id()), i64::from(futures.id()));
    let profile = &recording.profile;
    let mut report = Report::demanding(SHARE);
    for chain in odd_chains() {
        report.judge(profile, "odd", &chain, |stack| {
            stack.pid == odd && stack.thread_name == chain.thread
        })?;
    }
    let chain = async_chain();
    report.judge(profile, "chains-async", &chain, |stack| {
        stack.pid == futures && stack.thread_name == chain.thread
    })?;
    report.finish()?;
    let mut report = Report::demanding(SHORT_SHARE);
    for chain in odd_child_chains() {
        report.judge(profile, "children", &chain, |stack| {
            stack.thread_name == chain.thread
        })?;
    }
    report.finish()
}

#[test]
fn assembly_of_openssl() -> Result<()> {
    let _machine = Machine::lock()?;
    let workload = Workload::start("crypto", &["600"])?;
    let recording = record_profile(&["-d", "4s", "-F", "997"])?;
    let pid = i64::from(workload.id());
    let mut report = Report::demanding(SHARE);
    for chain in crypto_chains() {
        report.judge(&recording.profile, "crypto", &chain, |stack| {
            stack.pid == pid && stack.thread_name == chain.thread
        })?;
    }
    report.finish()
}

#[test]
fn frames_that_are_not_made_yet() -> Result<()> {
    let _machine = Machine::lock()?;
    let workload = Workload::start("w-unframed", &[])?;
    let recording = record_profile(&["-d", "3s", "-F", "997"])?;
    let pid = i64::from(workload.id());
    let mut report = Report::demanding(SHARE);
    report.judge(
        &recording.profile,
        "w-unframed",
        &unframed_chain(),
        |stack| stack.pid == pid,
    )?;
    report.finish()
}

#[test]
fn go_and_c_call_each_other() -> Result<()> {
    let _machine = Machine::lock()?;
    let both = Workload::start("chains-cgo", &["600"])?;
    let stripped = Workload::start("chains-gostrip", &["600"])?;
    let recording = record_profile(&["-d", "4s", "-F", "997"])?;
    let mut report = Report::demanding(SHARE);
    for (program, workload, chain) in [
        ("chains-cgo", &both, cgo_chain()),
        ("chains-gostrip", &stripped, go_chain()),
    ] {
        let pid = i64::from(workload.id());
        report.judge(&recording.profile, program, &chain, |stack| {
            stack.pid == pid
        })?;
    }
    report.finish()
}

#[test]
fn plt_entries_of_all_kinds() -> Result<()> {
    let _machine = Machine::lock()?;
    let variants = ["chains-ibt", "chains-bareplt"];
    let running = variants
        .iter()
        .map(|name| Workload::start(name, &["600", "plt", "plain", "dlopen"]))
        .collect::<Result<Vec<_>>>()?;
    let recording = record_profile(&["-d", "4s", "-F", "997"])?;
    let mut report = Report::demanding(SHARE);
    for (name, workload) in variants.iter().zip(&running) {
        let pid = i64::from(workload.id());
        for chain in some_chains(variant("chains-O2")?, &["w-plt", "w-plain", "w-dlopen"]) {
            report.judge(&recording.profile, name, &chain, |stack| {
                stack.pid == pid && stack.thread_name == chain.thread
            })?;
        }
    }
    report.finish()
}

/// One program in several places: copied, deleted, replaced, without a file, below other mounts, moved to other memory.
#[test]
fn programs_stored_and_started_in_odd_ways() -> Result<()> {
    let _machine = Machine::lock()?;
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let programs = programs()?;
    let copy = |name: &str| -> Result<PathBuf> {
        let path = directory.path().join(name);
        fs::copy(programs.path("simple"), &path)?;
        Ok(path)
    };

    let mut running = Vec::new();
    let deleted = copy("w-deleted")?;
    running.push(("w-deleted", Workload::run(&mut Command::new(&deleted))?));
    fs::remove_file(&deleted)?;
    let replaced = copy("w-replaced")?;
    running.push(("w-replaced", Workload::run(&mut Command::new(&replaced))?));
    fs::remove_file(&replaced)?;
    fs::copy(programs.path("w-child"), &replaced)?;
    running.push(("w-remapped", {
        let remapped = copy("w-remapped")?;
        Workload::run(Command::new(remapped).arg("remap"))?
    }));
    running.push(("w-memfd", memory_file(&programs.path("simple"))?));
    running.push(("w-overlay", overlay(directory.path(), &copy("w-overlay")?)?));
    running.push(("w-leaderless", {
        let leaderless = copy("w-leaderless")?;
        Workload::run(Command::new(leaderless).arg("leave"))?
    }));
    running.push(("simple-musl", Workload::start("simple-musl", &[])?));
    running.push(("simple-muslst", Workload::start("simple-muslst", &[])?));

    let recording = record_profile(&["-d", "5s", "-F", "997"])?;
    let mut report = Report::demanding(SHARE);
    for (name, workload) in &running {
        let pid = i64::from(workload.id());
        for chain in simple_chains(name) {
            let is_second = chain.thread == "w-second";
            // One has no first thread any more. musl says nothing about its own code, and what runs `main` there uses
            // rbp for something else.
            if !is_second && (*name == "w-leaderless" || name.starts_with("simple-musl")) {
                continue;
            }
            report.judge(&recording.profile, name, &chain, |stack| {
                stack.pid == pid && (stack.thread_name == "w-second") == is_second
            })?;
        }
    }
    report.finish()
}

/// A program that has no name in any directory.
fn memory_file(program: &Path) -> Result<Workload> {
    let memory = rustix::fs::memfd_create("w-memfd", rustix::fs::MemfdFlags::empty())?;
    let mut memory = File::from(memory);
    std::io::copy(&mut File::open(program)?, &mut memory)?;
    // Written to no more: a file that somebody may still write to can't be run.
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    let read_only = File::open(&path)?;
    drop(memory);
    let path = format!("/proc/{}/fd/{}", std::process::id(), read_only.as_raw_fd());
    Workload::run(&mut Command::new(path))
}

/// The program on an overlay file system, in a mount namespace of its own.
fn overlay(directory: &Path, program: &Path) -> Result<Workload> {
    let base = directory.join("overlay");
    for part in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(base.join(part))?;
    }
    let name = program.file_name().context("the program has a name")?;
    fs::rename(program, base.join("lower").join(name))?;
    // The temporary directory may lie on an overlay itself, which can't be the upper layer of another.
    let script = "set -e; mount -t tmpfs none \"$0/upper\"; mkdir \"$0/upper/u\" \"$0/upper/w\"; \
        mount -t overlay overlay -o \"lowerdir=$0/lower,upperdir=$0/upper/u,workdir=$0/upper/w\" \"$0/merged\"; \
        exec \"$0/merged/$1\"";
    Workload::run(
        Command::new(require_command("unshare")?)
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(&base)
            .arg(name),
    )
}

#[test]
fn processes_of_32_bits_are_counted_and_never_walked() -> Result<()> {
    let _machine = Machine::lock()?;
    let workload = Workload::start("w-compat", &[])?;
    let recording = record_profile(&["-d", "2s", "-F", "499"])?;
    let pid = i64::from(workload.id());
    let stacks = recording.profile.stacks.iter();
    let (mut all, mut in_kernel) = (0, 0);
    for stack in stacks.filter(|stack| stack.pid == pid) {
        all += stack.count;
        in_kernel += i64::from(!stack.frames.is_empty()) * stack.count;
        ensure!(
            stack.stopped.as_deref() == Some("compat_32_bit"),
            "{}",
            stack.shown()
        );
        ensure!(
            stack.frames.iter().all(|frame| frame.is_kernel()),
            "{}",
            stack.shown()
        );
    }
    ensure!(all >= 200, "only {all} samples");
    ensure!(in_kernel > 0, "no system call was seen");
    Ok(())
}

#[test]
fn kernel_stacks_are_joined_with_user_stacks() -> Result<()> {
    let _machine = Machine::lock()?;
    let calls = Workload::start("chains-O2", &["600", "syscall", "plain"])?;
    let faults = Workload::start("odd", &["600"])?;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let file = directory.path().join("written");
    // What is written back is written by threads of the kernel.
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        for _ in 0..8 {
            fs::write(&file, vec![7; 48 << 20])?;
            File::open(&file)?.sync_all()?;
        }
        Ok(())
    });
    let recording = record_profile(&["-d", "5s", "-F", "997"])?;
    writer
        .join()
        .map_err(|_panic| anyhow::anyhow!("the writing thread panicked"))??;
    let profile = &recording.profile;
    let joined = |pid: u32, function: &str, kernel: &[&str]| {
        profile.count(|stack| {
            stack.pid == i64::from(pid)
                && stack.stopped.is_none()
                && stack.workload_functions().last() == Some(&function)
                && stack
                    .frames
                    .iter()
                    .any(|frame| frame.is_kernel() && kernel.contains(&frame.function.as_str()))
        })
    };
    let reads = joined(calls.id(), "w_syscall_loop", &["ksys_read", "vfs_read"]);
    ensure!(reads >= 30, "only {reads} samples of reads");
    let touched = joined(
        faults.id(),
        "w_faults_touch",
        &["asm_exc_page_fault", "exc_page_fault", "handle_mm_fault"],
    );
    ensure!(touched >= 30, "only {touched} samples of page faults");
    // The timer that interrupts user code leaves no kernel frames of its own behind.
    let plain = |kernel: bool| {
        profile.count(|stack| {
            stack.pid == i64::from(calls.id())
                && stack.thread_name == "w-plain"
                && stack.frames.iter().any(|frame| frame.is_kernel()) == kernel
        })
    };
    ensure!(plain(false) > 100 && plain(true) * 5 < plain(false));
    let threads = profile.count(|stack| {
        stack.stopped.is_none()
            && !stack.frames.is_empty()
            && !stack.is_user()
            && [
                "kworker",
                "jbd2",
                "ksoftirqd",
                "kswapd",
                "rcu",
                "kcompactd",
                "khugepaged",
            ]
            .iter()
            .any(|name| stack.thread_name.starts_with(name))
    });
    ensure!(threads > 0, "no thread of the kernel was seen");
    Ok(())
}
