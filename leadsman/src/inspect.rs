//! Commands that parse a file: they become the symbolizer's binary, which gives up every right before it reads a byte.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use ipc_proto::hello::Role;

use crate::cli::{Symbolize, UnwindTable};
use crate::error::Failure;
use crate::launch::binary;
use crate::roles;

/// Prints a file's unwind table; returns only when that fails.
pub(crate) fn unwind_table(options: &UnwindTable) -> Result<ExitCode, Failure> {
    become_symbolizer(vec![
        "unwind-table".into(),
        options.file.clone().into(),
        "--format".into(),
        options.format.clone().into(),
    ])
}

/// Names addresses of a file; returns only when that fails.
pub(crate) fn symbolize(options: &Symbolize) -> Result<ExitCode, Failure> {
    let mut arguments: Vec<OsString> = vec![
        "symbolize".into(),
        "--exe".into(),
        options.exe.clone().into(),
    ];
    let addresses = options.addresses.iter();
    arguments.extend(addresses.map(|address| OsString::from(format!("{:#x}", address.0))));
    become_symbolizer(arguments)
}

fn become_symbolizer(arguments: Vec<OsString>) -> Result<ExitCode, Failure> {
    let binary = binary(&roles::binary(Role::Symbolizer))?;
    let error = Command::new(&binary).arg("inspect").args(arguments).exec();
    Err(Failure::failed(format!(
        "cannot run {}: {error}",
        binary.display()
    )))
}
