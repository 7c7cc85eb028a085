//! `cargo xtask`: everything about the repository that is more than one cargo command.
//!
//! Knows the tree, the tools and their versions; links none of Leadsman's own code.
#![forbid(unsafe_code)]

mod apt;
mod bench;
mod build_ebpf;
mod cargo_tools;
mod debian_root;
mod dependencies;
mod docker;
mod fuzz;
mod install;
mod kernels;
mod kubernetes;
mod packages;
mod sizes;
mod steps;
mod test;
mod tool;
mod up;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
Usage: cargo xtask TASK

  up [OPTIONS]            build Leadsman and run `leadsman up`, through sudo when not root
  install [--root DIR]    build Leadsman and install it with its systemd units
  test                    install what the tests need, run all checks and tests
  test --parca-address=HOST:PORT
                          run the tests that ask a Parca server against that one
  build-ebpf [--check]    build ebpf/leadsman-bpf.o; --check: compare it with the committed one
  generate-protos [--check]
                          write the Rust code of proto/; --check: compare it with the committed one
  bench [SECONDS]         record a mixed load with Leadsman and with perf, and say what each cost
  fuzz [TARGET [SECONDS]] run the fuzz targets
  kernels [VERSION...]    run the tests of known stacks on Debian's kernels 5.10, 6.1 (when none is named), 6.12
  check-dependencies      check what each process may link, and how much code there is
";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let task = arguments.next().unwrap_or_default();
    match run(&task.to_string_lossy(), arguments.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &str, arguments: Vec<OsString>) -> Result<()> {
    match task {
        "up" => up::run(&arguments),
        "install" => install::run(&arguments),
        "test" => test::run(&arguments),
        "build-ebpf" => build_ebpf::run(&arguments),
        "generate-protos" => generate_protos(&arguments),
        "bench" => bench::run(&arguments),
        "fuzz" => fuzz::run(&arguments),
        "kernels" => kernels::run(&arguments),
        "check-dependencies" => check_dependencies(),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        "" => bail!("no task given\n{USAGE}"),
        other => bail!("there is no task {other:?}\n{USAGE}"),
    }
}

/// A program of its own: what it links would make every other task wait for its build.
fn generate_protos(arguments: &[OsString]) -> Result<()> {
    tool::run(
        tool::cargo()
            .args([
                "run",
                "--quiet",
                "--release",
                "--package",
                "generate-protos",
                "--",
            ])
            .args(arguments),
    )
}

fn check_dependencies() -> Result<()> {
    // Both, so that one run says everything.
    let dependencies = dependencies::check();
    let sizes = sizes::check();
    dependencies.and(sizes)
}
