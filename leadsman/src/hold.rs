//! `leadsman hold --gate SOCKET -- COMMAND`: waits for a byte at the gate, then becomes the command. So a command is
//! recorded from its first instruction on. It runs as whoever asked, not as root.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::cli::Hold;
use crate::error::Failure;
use crate::invoker::Invoker;

/// Exit code when there is no such command, as shells have it.
pub(crate) const NOT_FOUND: u8 = 127;
/// Exit code when the command can't be executed, as shells have it.
const NOT_EXECUTABLE: u8 = 126;

/// Does not return when all goes well.
///
/// # Errors
/// The command can't be started.
pub(crate) fn run(hold: &Hold) -> Result<ExitCode, Failure> {
    let Some((program, arguments)) = hold.command.split_first() else {
        return Err(Failure::usage("no command"));
    };
    let cannot = |error: &io::Error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        };
        Failure::with_code(
            code,
            format!("cannot run {}: {error}", program.to_string_lossy()),
        )
    };
    match pass(&hold.gate, Invoker::read()) {
        Ok(true) => Err(cannot(&Command::new(program).args(arguments).exec())),
        // The recording did not start: neither does the command.
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => Err(cannot(&error)),
    }
}

/// Whether the gate was opened; it is shut when the front command gives up or dies.
fn pass(gate: &Path, invoker: Invoker) -> io::Result<bool> {
    let mut gate = UnixStream::connect(gate)?;
    if rustix::process::geteuid().is_root() && invoker.uid != 0 {
        let (uid, gid) = invoker.ids();
        set_thread_groups(&invoker.groups())?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    let mut byte = [0];
    Ok(gate.read(&mut byte)? == 1)
}
