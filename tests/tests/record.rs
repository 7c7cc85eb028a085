//! `leadsman record`: what it records, which formats it writes, and how a command's life goes through it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::process::run;
use leadsman_tests::profile::{Profile, Stack};
use leadsman_tests::record::{DEADLINE, record, record_profile};
use leadsman_tests::workloads::{Workload, programs};
use leadsman_tests::{Machine, binaries};

/// `record MORE -- w-child ARGUMENTS`, into a file that comes back as a profile if it was written.
fn record_child(
    more: &[&str],
    program: &str,
    arguments: &[&str],
) -> Result<(leadsman_tests::process::Output, Option<Profile>)> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("profile.pb.gz");
    let output = run(
        Command::new(binaries::leadsman()?)
            .arg("record")
            .args(more)
            .arg("-o")
            .arg(&file)
            .arg("--")
            .arg(programs()?.path(program))
            .args(arguments),
        DEADLINE,
    )?;
    let profile = if file.exists() {
        Some(Profile::read(&file)?)
    } else {
        None
    };
    Ok((output, profile))
}

#[test]
fn a_command_of_50_milliseconds() -> Result<()> {
    let _machine = Machine::lock()?;
    let (output, profile) = record_child(&["-F", "997"], "w-short", &["spin", "50"])?;
    ensure!(output.code() == Some(0), "{output:?}");
    let profile = profile.context("no file")?;
    let spinning = profile.count(|stack| stack.workload_functions().starts_with(&["w_child_spin"]));
    // 50 ms at 997 Hz are 50 samples.
    ensure!(
        (40..=60).contains(&spinning),
        "{spinning} samples of w_child_spin"
    );
    let (share, all) = profile.complete(|_| true);
    ensure!(
        share >= 0.97,
        "{:.1} % of {all} reach the root, from the first instruction on",
        100.0 * share
    );
    ensure!(
        profile.stacks.iter().all(|stack| stack.comm != "w-child"),
        "only the command's own processes are recorded"
    );
    for word in ["samples", "complete", "CPU"] {
        ensure!(
            output.stderr.contains(word),
            "the summary does not speak of {word}: {}",
            output.stderr
        );
    }
    Ok(())
}

#[test]
fn the_commands_exit_status_and_signals_come_through() -> Result<()> {
    let _machine = Machine::lock()?;
    let (output, profile) = record_child(&["-F", "997"], "w-short", &["exit", "7"])?;
    ensure!(
        output.code() == Some(7),
        "exit status 7 became {}: {}",
        output.status,
        output.stderr
    );
    ensure!(
        profile.is_some(),
        "the profile of a failed command is still written"
    );
    let (output, profile) = record_child(&["-F", "997"], "w-short", &["signal", "15"])?;
    let signalled = output.signal() == Some(15) || output.code() == Some(128 + 15);
    ensure!(
        signalled,
        "death by SIGTERM became {}: {}",
        output.status,
        output.stderr
    );
    ensure!(
        profile.is_some(),
        "the profile of a killed command is still written"
    );
    Ok(())
}

#[test]
fn a_command_that_cannot_be_started() -> Result<()> {
    let _machine = Machine::lock()?;
    let output = record(&["--", "/nonexistent/command"])?;
    ensure!(
        matches!(output.code(), Some(126 | 127 | 1 | 2)),
        "{output:?}"
    );
    ensure!(
        output.stderr.contains("/nonexistent/command"),
        "the error does not name the command: {}",
        output.stderr
    );
    Ok(())
}

#[test]
fn the_whole_machine_and_the_formats() -> Result<()> {
    let _machine = Machine::lock()?;
    let workload = Workload::start("chains-O2", &["600", "plain", "syscall"])?;
    let other = Workload::start("chains-O3", &["600", "plain"])?;
    let recording = record_profile(&["-d", "2s", "-F", "97"])?;
    let profile = &recording.profile;
    for pid in [workload.id(), other.id()] {
        ensure!(
            profile.count(|stack| stack.pid == i64::from(pid)) > 20,
            "process {pid} is missing from the whole machine"
        );
    }
    ensure!(
        (profile.duration_nanos - 2_000_000_000).abs() < 200_000_000,
        "duration {}",
        profile.duration_nanos
    );
    ensure!(
        profile.time_nanos > 1_700_000_000_000_000_000,
        "time {}",
        profile.time_nanos
    );
    let kernel_first = |stack: &Stack| {
        // Root first: once in the kernel, a stack stays there.
        stack
            .frames
            .iter()
            .skip_while(|frame| !frame.is_kernel())
            .all(leadsman_tests::profile::Frame::is_kernel)
    };
    ensure!(
        profile.stacks.iter().all(kernel_first),
        "kernel frames stand above user frames"
    );
    ensure!(
        profile.count(|stack| stack.thread_name == "w-syscall"
            && stack
                .frames
                .last()
                .is_some_and(|frame| frame.is_kernel() && !frame.function.is_empty()))
            > 0,
        "no named kernel frame in a thread that calls the kernel all the time"
    );

    let directory = tempfile::tempdir()?;
    for (extension, check) in [
        ("folded", is_folded as fn(&str) -> Result<()>),
        ("json", is_speedscope),
        ("svg", is_svg),
    ] {
        let file = directory.path().join(format!("out.{extension}"));
        let output = run(
            Command::new(binaries::leadsman()?)
                .args(["record", "-d", "1s", "-F", "97", "-o"])
                .arg(&file),
            DEADLINE,
        )?;
        ensure!(output.code() == Some(0), "{output:?}");
        check(&std::fs::read_to_string(&file)?)
            .with_context(|| format!("the .{extension} file"))?;
        let others: Vec<_> = std::fs::read_dir(directory.path())?
            .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
            .collect();
        ensure!(
            others
                .iter()
                .all(|name| name.to_string_lossy().starts_with("out.")),
            "left beside the file: {others:?}"
        );
    }
    Ok(())
}

fn is_folded(text: &str) -> Result<()> {
    for line in text.lines() {
        let (stack, count) = line.rsplit_once(' ').context("a line without a count")?;
        ensure!(
            count.parse::<u64>().is_ok_and(|count| count > 0) && !stack.is_empty(),
            "{line}"
        );
    }
    let chain = "w_enter;w_plain_main;w_plain_a;w_plain_b;w_plain_c;w_spin";
    ensure!(text.contains(chain), "no {chain}");
    Ok(())
}

fn is_speedscope(text: &str) -> Result<()> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    ensure!(
        value["$schema"]
            .as_str()
            .is_some_and(|schema| schema.contains("speedscope")),
        "no speedscope schema: {}",
        value["$schema"]
    );
    let frames = value["shared"]["frames"]
        .as_array()
        .context("no shared.frames")?;
    let index = frames
        .iter()
        .position(|frame| frame["name"] == "w_plain_c")
        .context("w_plain_c is no frame")?;
    let profiles = value["profiles"].as_array().context("no profiles")?;
    let used = profiles.iter().any(|profile| {
        let samples = profile["samples"].as_array();
        let weights = profile["weights"].as_array();
        samples.map(Vec::len) == weights.map(Vec::len)
            && samples.is_some_and(|samples| {
                samples
                    .iter()
                    .filter_map(serde_json::Value::as_array)
                    .flatten()
                    .any(|frame| frame == index)
            })
    });
    ensure!(
        used,
        "no sample uses w_plain_c, or samples and weights differ in number"
    );
    Ok(())
}

fn is_svg(text: &str) -> Result<()> {
    ensure!(
        text.trim_start().starts_with("<?xml") || text.trim_start().starts_with("<svg"),
        "no SVG"
    );
    ensure!(
        text.trim_end().ends_with("</svg>") && text.contains("w_plain_c"),
        "not whole, or without names"
    );
    ensure!(
        !text.contains("http://")
            || text.matches("http://").count() == text.matches("http://www.w3.org/").count(),
        "asks for something from outside"
    );
    Ok(())
}

#[test]
fn standard_output() -> Result<()> {
    let _machine = Machine::lock()?;
    let _workload = Workload::start("chains-O2", &["600", "plain"])?;
    let output = record(&["-d", "1s", "-F", "97", "-o", "-"])?;
    ensure!(output.code() == Some(0), "{output:?}");
    ensure!(
        output.stdout.starts_with(&[0x1f, 0x8b]),
        "standard output is a gzip pprof and nothing else"
    );
    let profile = Profile::parse(&output.stdout)?;
    ensure!(
        profile.count(|stack| stack.thread_name == "w-plain") > 0,
        "w-plain is missing"
    );
    Ok(())
}

#[test]
fn only_the_named_processes_and_their_children() -> Result<()> {
    let _machine = Machine::lock()?;
    let wanted = Workload::start("chains-O2", &["600", "plain", "small", "spawn"])?;
    let other = Workload::start("chains-O3", &["600", "plain"])?;
    let pid = wanted.id().to_string();
    let with_children = record_profile(&["-d", "2s", "-F", "499", "-p", &pid])?.profile;
    let of = |profile: &Profile, thread: &str| profile.count(|stack| stack.thread_name == thread);
    ensure!(
        with_children.count(|stack| stack.pid == i64::from(other.id())) == 0,
        "another process was recorded"
    );
    for thread in ["w-plain", "w-small", "w-child"] {
        ensure!(
            of(&with_children, thread) > 0,
            "{thread} is missing: threads and children belong to the process"
        );
    }
    let alone = record_profile(&["-d", "2s", "-F", "499", "-p", &pid, "--children=false"])?.profile;
    ensure!(
        alone.count(|stack| stack.pid != i64::from(wanted.id())) == 0,
        "children were recorded in spite of --children=false"
    );
    ensure!(of(&alone, "w-plain") > 0, "the process itself is missing");
    let both = record_profile(&[
        "-d",
        "1s",
        "-F",
        "499",
        "-p",
        &pid,
        "-p",
        &other.id().to_string(),
    ])?
    .profile;
    for process in [&wanted, &other] {
        ensure!(
            both.count(|stack| stack.pid == i64::from(process.id())) > 0,
            "one of two processes is missing"
        );
    }
    Ok(())
}

#[test]
fn nothing_to_record() -> Result<()> {
    let _machine = Machine::lock()?;
    // A process that sleeps has no samples.
    let mut sleeper = Command::new("sleep").arg("60").spawn()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("empty.pb.gz");
    let output = record(&[
        "-d",
        "1s",
        "-p",
        &sleeper.id().to_string(),
        "-o",
        &file.to_string_lossy(),
    ]);
    sleeper.kill()?;
    sleeper.wait()?;
    let output = output?;
    ensure!(output.code() == Some(1), "{output:?}");
    ensure!(
        output.stderr.contains("no samples"),
        "the reason is missing: {}",
        output.stderr
    );
    ensure!(!file.exists(), "a file without samples was written");
    Ok(())
}

#[test]
fn an_interrupted_recording_is_still_written() -> Result<()> {
    let _machine = Machine::lock()?;
    let _workload = Workload::start("chains-O2", &["600", "plain"])?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("cut.pb.gz");
    let running = leadsman_tests::process::Running::start(
        Command::new(binaries::leadsman()?)
            .args(["record", "-d", "60s", "-F", "97", "-o"])
            .arg(&file),
    )?;
    std::thread::sleep(Duration::from_secs(3));
    running.signal(rustix::process::Signal::INT)?;
    let output = running.wait(Duration::from_secs(15))?;
    ensure!(file.exists(), "no file after SIGINT: {output:?}");
    ensure!(
        Profile::read(&file)?.count(|stack| stack.thread_name == "w-plain") > 0,
        "w-plain is missing"
    );
    Ok(())
}

#[test]
fn a_command_runs_as_the_user_who_asked() -> Result<()> {
    let _machine = Machine::lock()?;
    // Any user may pass and write here; the target directory may lie in somebody's closed home.
    let directory = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o777))
        .tempdir()?;
    let program = directory.path().join("w-short");
    std::fs::copy(programs()?.path("w-short"), &program)?;
    let output = run(
        Command::new(binaries::leadsman()?)
            .args(["record", "-F", "997", "-o"])
            .arg(directory.path().join("out.pb.gz"))
            .arg("--")
            .arg(program)
            .arg("identity")
            .env("SUDO_UID", "1234")
            .env("SUDO_GID", "1235")
            .env("SUDO_USER", "somebody"),
        DEADLINE,
    )?;
    ensure!(output.code() == Some(0), "{output:?}");
    ensure!(
        output.text().trim() == "1234 1235",
        "under sudo the command ran as {}",
        output.text().trim()
    );
    Ok(())
}
