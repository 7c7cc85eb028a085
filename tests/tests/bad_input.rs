//! What bad input gets: an exact exit code, one line that says what to do, and nothing half done.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use leadsman_tests::process::{Output, run};
use leadsman_tests::workloads::programs;
use leadsman_tests::{Machine, binaries, require_command, require_root};

const DEADLINE: Duration = Duration::from_secs(30);

fn leadsman(arguments: &[&str]) -> Result<Output> {
    run(
        Command::new(binaries::leadsman()?).args(arguments),
        DEADLINE,
    )
}

/// The exit code, one line on standard error with all `words` (in any case), and nothing on standard output.
fn refused(what: &str, output: &Output, code: i32, words: &[&str]) -> Result<()> {
    ensure!(
        output.code() == Some(code),
        "{what}: {} instead of exit code {code}: {}",
        output.status,
        output.stderr
    );
    let lines: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    ensure!(
        lines.len() == 1,
        "{what}: {} lines instead of one: {}",
        lines.len(),
        output.stderr
    );
    for word in words {
        ensure!(
            output.stderr.to_lowercase().contains(&word.to_lowercase()),
            "{what}: no '{word}' in: {}",
            output.stderr
        );
    }
    ensure!(
        !output.stderr.contains("panicked"),
        "{what}: {}",
        output.stderr
    );
    ensure!(
        output.stdout.is_empty(),
        "{what}: something on standard output"
    );
    Ok(())
}

#[test]
fn numbers_without_sense_are_usage_errors() -> Result<()> {
    for (arguments, word) in [
        (["record", "-F", "0"].as_slice(), "0"),
        (&["record", "-F", "1001"], "1000"),
        (&["record", "-F", "100000000"], "1000"),
        (&["record", "-F", "-5"], "-"),
        (&["record", "-F", "often"], "often"),
        (&["record", "-d", "0s"], "0s"),
        (&["record", "-d", "99999999999d"], "99999999999d"),
        (&["record", "-d", "soon"], "soon"),
        (&["record", "-p", "init"], "init"),
        (&["record", "-p", "0"], "0"),
        (&["record", "--no-such-option"], "no-such-option"),
        (&["up", "--http-address", "nowhere"], "nowhere"),
        (
            &["up", "--profiling-cpu-sampling-frequency", "9999999"],
            "9999999",
        ),
        (&["symbolize", "--exe", "/bin/true", "xyz"], "xyz"),
    ] {
        let output = leadsman(arguments)?;
        let what = arguments.join(" ");
        ensure!(
            output.code() == Some(2),
            "{what}: {} instead of exit code 2: {}",
            output.status,
            output.stderr
        );
        ensure!(
            output.stderr.contains(word),
            "{what}: the message does not name '{word}': {}",
            output.stderr
        );
        ensure!(
            !output.stderr.contains("panicked"),
            "{what}: {}",
            output.stderr
        );
    }
    Ok(())
}

#[test]
fn files_that_are_not_what_they_should_be() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, [0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9])?;
    let truncated = directory.path().join("truncated");
    let whole = std::fs::read(programs()?.path("chains-O2"))?;
    std::fs::write(&truncated, &whole[..100])?;
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "")?;
    let missing = directory.path().join("missing");
    for file in [
        &garbage,
        &truncated,
        &empty,
        &missing,
        &directory.path().to_path_buf(),
    ] {
        let name = file.to_string_lossy();
        for arguments in [
            ["report", &name].as_slice(),
            &["unwind-table", &name, "--format", "json"],
            &["symbolize", "--exe", &name, "0x1000"],
        ] {
            refused(&arguments.join(" "), &leadsman(arguments)?, 1, &[&name])?;
        }
    }
    Ok(())
}

#[test]
fn without_rights() -> Result<()> {
    require_root()?;
    let copies = binaries::copied_for_everybody()?;
    let program = copies.path().join("leadsman");
    for command in [["record", "-d", "1s"].as_slice(), &["up"]] {
        let output = run(
            Command::new(require_command("setpriv")?)
                .args([
                    "--reuid",
                    "65534",
                    "--regid",
                    "65534",
                    "--clear-groups",
                    "--",
                ])
                .arg(&program)
                .args(command)
                .current_dir("/"),
            DEADLINE,
        )?;
        refused(
            &format!("{} as nobody", command.join(" ")),
            &output,
            2,
            &["sudo", "leadsman", command[0]],
        )?;
    }
    Ok(())
}

#[test]
fn root_without_capabilities() -> Result<()> {
    require_root()?;
    let output = run(
        Command::new(require_command("capsh")?)
            .args([
                "--drop=cap_bpf,cap_perfmon,cap_sys_admin",
                "--shell=/bin/sh",
                "--",
                "-c",
            ])
            .arg(format!(
                "exec '{}' record -d 1s",
                binaries::leadsman()?.display()
            )),
        DEADLINE,
    )?;
    refused("root without CAP_BPF", &output, 2, &["CAP_BPF"])
}

#[test]
fn a_kernel_without_btf() -> Result<()> {
    let _machine = Machine::lock()?;
    let output = run(
        Command::new(require_command("unshare")?)
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!(
                "mount -t tmpfs none /sys/kernel/btf && exec '{}' record -d 1s -o /dev/null",
                binaries::leadsman()?.display()
            )),
        DEADLINE,
    )?;
    refused("no BTF", &output, 1, &["BTF"])
}

#[test]
fn places_that_cannot_be_written() -> Result<()> {
    let _machine = Machine::lock()?;
    let output = leadsman(&[
        "record",
        "-d",
        "1s",
        "-o",
        "/nonexistent/directory/out.pb.gz",
    ])?;
    refused(
        "record into a missing directory",
        &output,
        1,
        &["/nonexistent/directory"],
    )?;
    let output = leadsman(&["record", "-d", "1s", "-o", "/tmp/out.unknown"])?;
    ensure!(output.code() == Some(2), "an unknown extension: {output:?}");
    ensure!(
        !Path::new("/tmp/out.unknown").exists(),
        "a file of unknown format was written"
    );
    let output = up_with(&[("--local-store-directory", "/proc/store")], &[])?;
    refused("a store under /proc", &output, 1, &["/proc/store"])
}

#[test]
fn a_process_that_is_gone() -> Result<()> {
    let _machine = Machine::lock()?;
    let mut child = Command::new("true").spawn()?;
    child.wait()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("gone.pb.gz");
    let pid = child.id().to_string();
    let output = leadsman(&[
        "record",
        "-d",
        "1s",
        "-p",
        &pid,
        "-o",
        &file.to_string_lossy(),
    ])?;
    refused("a PID that is gone", &output, 1, &[&pid])?;
    ensure!(
        !file.exists(),
        "a file was written for a process that is gone"
    );
    Ok(())
}

#[test]
fn a_port_in_use() -> Result<()> {
    let _machine = Machine::lock()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let directory = tempfile::tempdir()?;
    let runtime = directory.path().join("run");
    let output = up_with(&[("--http-address", &address)], &[&runtime])?;
    refused("a port in use", &output, 1, &[&address])?;
    ensure!(!runtime.exists(), "the runtime directory was left behind");
    Ok(())
}

/// `leadsman up` with places of its own for everything that is not in `options`.
fn up_with(options: &[(&str, &str)], runtime: &[&Path]) -> Result<Output> {
    let directory = tempfile::tempdir()?;
    let mut command = Command::new(binaries::leadsman()?);
    command.arg("up");
    let own = directory.path().join("run");
    command
        .arg("--runtime-directory")
        .arg(runtime.first().copied().unwrap_or(&own));
    for (name, value) in [
        (
            "--local-store-directory",
            directory.path().join("store").into_os_string(),
        ),
        ("--http-address", OsString::from("127.0.0.1:0")),
    ] {
        if !options.iter().any(|(option, _)| *option == name) {
            command.arg(name).arg(value);
        }
    }
    for (name, value) in options {
        command.arg(name).arg(value);
    }
    run(&mut command, DEADLINE)
}
