//! `cargo xtask up`: builds Leadsman and runs it, as root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, bail};

use crate::tool;

/// Builds, then becomes `leadsman up ARGUMENTS`.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    build()?;
    let program = tool::target_directory().join("release/leadsman");
    let mut command = as_root(&program)?;
    // In place of this process: signals and the exit status are Leadsman's own.
    let error = command.arg("up").args(arguments).exec();
    bail!("cannot run {}: {error}", program.display())
}

/// The release binaries of all processes.
pub(crate) fn build() -> Result<()> {
    tool::run(tool::cargo().args(["build", "--release", "--workspace", "--bins"]))
}

/// A command that runs as root: through sudo unless we are.
pub(crate) fn as_root(program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
    if rustix::process::geteuid().is_root() {
        return Ok(tool::command(program));
    }
    if !tool::exists("sudo") {
        bail!("this needs root and there is no sudo: run it as root");
    }
    let mut command = tool::command("sudo");
    command.arg(program);
    Ok(command)
}
