//! `cargo xtask test`: installs what the tests need, then runs every check and every test.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::steps::{Steps, quiet};
use crate::{
    build_ebpf, cargo_tools, debian_root, docker, fuzz, kernels, kubernetes, packages, tool, up,
};

/// Runs all steps; fails when one did.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    if let [only] = arguments
        && let Some(address) = parca_address(only)
    {
        return against_parca(&address);
    }
    if !arguments.is_empty() {
        bail!("usage: cargo xtask test [--parca-address=HOST:PORT]");
    }
    let mut steps = Steps::default();
    steps.step("packages", || {
        packages::install_for_tests(&build_ebpf::PACKAGES)
    });
    steps.cargo(&["fmt", "--all", "--check"]);
    steps.cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--release",
        "--",
        "-D",
        "warnings",
    ]);
    steps.step("build-ebpf --check", || {
        build_ebpf::run(&[OsString::from("--check")])
    });
    steps.step("generate-protos --check", || {
        crate::generate_protos(&[OsString::from("--check")])
    });
    steps.step("check-dependencies", crate::check_dependencies);
    steps.step("Debian tree", debian_root::run);
    steps.step("docker", docker::run);
    steps.step("Kubernetes manifests", kubernetes::run);
    deny(&mut steps);
    fuzz::steps(&mut steps);
    if steps.step("release binaries", up::build) {
        cargo_test(&mut steps);
        steps.step("kernels", || kernels::run(&[]));
    } else {
        steps.cannot_run("cargo test", "there are no binaries to test");
        steps.cannot_run("kernels", "there are no binaries to test");
    }
    if !steps.close() {
        std::process::exit(1);
    }
    Ok(())
}

fn parca_address(argument: &OsString) -> Option<String> {
    let argument = argument.to_str()?;
    Some(argument.strip_prefix("--parca-address=")?.to_owned())
}

/// The suite that asks a Parca server, against one that runs already instead of the tests' stand-in.
fn against_parca(address: &str) -> Result<()> {
    packages::install_for_tests(&build_ebpf::PACKAGES)?;
    up::build()?;
    tool::run(
        quiet(&mut tool::cargo())
            .args(["test", "--release", "--package", "leadsman-tests"])
            .args([
                "--test",
                "parca_rules",
                "--test",
                "parca",
                "--no-fail-fast",
                "--",
                "--nocapture",
            ])
            .env("LEADSMAN_BIN_DIR", tool::target_directory().join("release"))
            .env("LEADSMAN_PARCA_ADDRESS", address),
    )
}

fn deny(steps: &mut Steps) {
    steps.step("cargo deny check licenses bans sources", || {
        let program = cargo_tools::DENY.program()?;
        tool::run(tool::command(program).args(["check", "licenses", "bans", "sources"]))
    });
    steps.cannot_run(
        "cargo deny check advisories",
        "it reads a database from the network, and tests use none",
    );
}

/// All tests of the workspace, with the release binaries; each is counted.
fn cargo_test(steps: &mut Steps) {
    let mut counted = (0, 0);
    let whole = steps.step("cargo test", || {
        let binaries = tool::target_directory().join("release");
        run_tests(&binaries, &mut counted)
    });
    let (passed, failed) = counted;
    steps.tests(passed, failed);
    if !whole {
        println!("cargo test: {passed} tests passed, {failed} failed");
    }
}

fn run_tests(binaries: &Path, counted: &mut (usize, usize)) -> Result<()> {
    let mut child = quiet(&mut tool::cargo())
        .args(["test", "--workspace", "--release", "--no-fail-fast"])
        .env("LEADSMAN_BIN_DIR", binaries)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read what cargo test prints")?;
        println!("{line}");
        if let Some((passed, failed)) = result(&line) {
            counted.0 += passed;
            counted.1 += failed;
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("it ended with {status}");
    }
    if counted.0 == 0 {
        bail!("it ran no test");
    }
    Ok(())
}

/// Passed and failed tests of a test program's last line: `test result: ok. 3 passed; 0 failed; ...`.
fn result(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = counts.split("; ");
    let passed = counts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = counts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::result;

    #[test]
    fn result_lines_are_counted_and_others_are_not() {
        let ok = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s";
        assert_eq!(result(ok), Some((3, 0)));
        let failed = "test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured";
        assert_eq!(result(failed), Some((12, 2)));
        assert_eq!(result("test result_lines ... ok"), None);
        assert_eq!(result("running 3 tests"), None);
    }
}
