//! SIGINT, SIGTERM and SIGHUP, told apart, as something to poll.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// Which signals came since they were last asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Came {
    /// SIGINT.
    pub(crate) interrupt: bool,
    /// SIGTERM.
    pub(crate) terminate: bool,
    /// SIGHUP.
    pub(crate) hangup: bool,
}

impl Came {
    /// Whether any did.
    pub(crate) fn any(self) -> bool {
        self.interrupt || self.terminate || self.hangup
    }
}

/// From its making on, the three signals no longer end this process.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: UnixStream,
    terminate: UnixStream,
    hangup: UnixStream,
}

impl Signals {
    /// Starts to watch.
    ///
    /// # Errors
    /// No pipe, or no signal handler.
    pub(crate) fn watch() -> io::Result<Self> {
        Ok(Self {
            interrupt: watch(SIGINT)?,
            terminate: watch(SIGTERM)?,
            hangup: watch(SIGHUP)?,
        })
    }

    /// What came.
    pub(crate) fn take(&mut self) -> Came {
        Came {
            interrupt: came(&mut self.interrupt),
            terminate: came(&mut self.terminate),
            hangup: came(&mut self.hangup),
        }
    }

    /// What to poll.
    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; 3] {
        [
            self.interrupt.as_fd(),
            self.terminate.as_fd(),
            self.hangup.as_fd(),
        ]
    }
}

fn watch(signal: i32) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    pipe::register(signal, write)?;
    Ok(read)
}

fn came(pipe: &mut UnixStream) -> bool {
    let mut bytes = [0; 64];
    matches!(pipe.read(&mut bytes), Ok(count) if count > 0)
}
