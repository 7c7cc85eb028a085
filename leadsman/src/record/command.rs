//! The recorded command: held before its first instruction, released, signalled, waited for.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpgrp, pidfd_open, pidfd_send_signal};
use rustix::termios::tcgetpgrp;

use crate::error::Failure;
use crate::hold::NOT_FOUND;
use crate::runtime_directory::GATE;
use crate::signals::{Came, Signals};

/// A command that was started and waits, or runs, or has ended.
#[derive(Debug)]
pub(crate) struct HeldCommand {
    child: Child,
    pidfd: OwnedFd,
    /// Opened by a byte, shut by being dropped.
    gate: Option<UnixStream>,
    outcome: Option<Outcome>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome(ExitStatus);

impl Outcome {
    /// Whether it exited with status 0.
    pub(crate) fn is_success(self) -> bool {
        self.0.success()
    }

    /// Its exit status; 128 + n when signal n ended it, as shells have it.
    pub(crate) fn exit_code(self) -> ExitCode {
        let signal = self.0.signal().map(|signal| 128 + signal);
        let code = self.0.code().or(signal).unwrap_or(1);
        ExitCode::from(u8::try_from(code).unwrap_or(1))
    }
}

/// Checks that there is such a program, before anything is started for it.
///
/// # Errors
/// There is none.
pub(crate) fn find(program: &OsStr) -> Result<(), Failure> {
    let executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let found = if program.as_encoded_bytes().contains(&b'/') {
        executable(Path::new(program))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| executable(&directory.join(program)))
    };
    if found {
        return Ok(());
    }
    let program = program.to_string_lossy();
    Err(Failure::with_code(
        NOT_FOUND,
        format!("cannot run {program}: there is no such program"),
    ))
}

impl HeldCommand {
    /// Starts `leadsman hold`, which becomes the command when it is let.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn start(command: &[OsString], runtime_directory: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            let program = command.first().map(|program| program.to_string_lossy());
            Failure::failed(format!(
                "cannot start {}: {error}",
                program.unwrap_or_default()
            ))
        };
        let path = runtime_directory.join(GATE);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let mut child = Command::new("/proc/self/exe")
            .arg0("leadsman")
            .arg("hold")
            .arg("--gate")
            .arg(&path)
            .arg("--")
            .args(command)
            .spawn()
            .map_err(failed)?;
        let held = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(std::io::Error::from)
            .and_then(|pidfd| Ok((accept(&listener, &pidfd)?, pidfd)));
        match held {
            Ok((gate, pidfd)) => Ok(Self {
                child,
                pidfd,
                gate: Some(gate),
                outcome: None,
            }),
            Err(error) => {
                let _gone = child.kill();
                let _reaped = child.wait();
                Err(failed(error))
            }
        }
    }

    /// Its process id, before and after it becomes the command.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Readable when it ended; none once that is known.
    pub(crate) fn ended_fd(&self) -> Option<BorrowedFd<'_>> {
        self.outcome.is_none().then(|| self.pidfd.as_fd())
    }

    /// Lets it go.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn release(&mut self) -> Result<(), Failure> {
        match self.gate.take() {
            Some(mut gate) => gate
                .write_all(&[1])
                .map_err(|error| Failure::failed(format!("the command is gone: {error}"))),
            None => Ok(()),
        }
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn has_ended(&mut self) -> Result<bool, Failure> {
        if self.outcome.is_none() {
            let status = self.child.try_wait().map_err(|error| {
                Failure::failed(format!("cannot wait for the command: {error}"))
            })?;
            self.outcome = status.map(Outcome);
        }
        Ok(self.outcome.is_some())
    }

    /// Hands signals on. Ctrl-C on the terminal has reached the command already: it is of the same process group.
    pub(crate) fn forward(&mut self, came: Came) {
        let send = |signal| {
            let _gone = pidfd_send_signal(&self.pidfd, signal);
        };
        if came.terminate {
            send(Signal::TERM);
        }
        if came.interrupt && !in_foreground() {
            send(Signal::INT);
        }
    }

    /// Waits for its end, which may come after the recording's.
    ///
    /// # Errors
    /// The kernel does not say.
    pub(crate) fn wait(mut self, signals: &mut Signals) -> Result<Outcome, Failure> {
        // Never released: it ends by itself now.
        self.gate = None;
        loop {
            if self.has_ended()?
                && let Some(outcome) = self.outcome
            {
                return Ok(outcome);
            }
            let fds = signals.fds();
            let mut polled: Vec<PollFd<'_>> = fds
                .into_iter()
                .chain([self.pidfd.as_fd()])
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            let _interrupted = poll(&mut polled, None);
            self.forward(signals.take());
        }
    }
}

/// The other end of the gate, unless the process ends before it gets there.
fn accept(listener: &UnixListener, pidfd: &OwnedFd) -> std::io::Result<UnixStream> {
    let mut polled = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(pidfd, PollFlags::IN),
    ];
    poll(&mut polled, None)?;
    let [connected, _ended] = &polled;
    if !connected.revents().contains(PollFlags::IN) {
        return Err(std::io::Error::other("it ended at once"));
    }
    Ok(listener.accept()?.0)
}

/// Whether this process group is the one that the terminal sends Ctrl-C to.
fn in_foreground() -> bool {
    tcgetpgrp(std::io::stdin()).is_ok_and(|foreground| foreground == getpgrp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(find(OsStr::new("sh")).is_ok());
        assert!(find(OsStr::new("/bin/sh")).is_ok());
        for missing in [
            "/nonexistent/command",
            "no-such-program",
            "/etc/passwd",
            "/tmp",
        ] {
            let failure = find(OsStr::new(missing)).expect_err(missing).to_string();
            assert!(failure.contains(missing), "{failure}");
        }
    }
}
