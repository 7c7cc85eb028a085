//! SIGTERM and SIGINT, and SIGHUP, as something to poll: a byte in a pipe.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// Readable once the process was asked to end.
#[derive(Debug)]
pub struct Termination {
    pipe: UnixStream,
}

impl Termination {
    /// From now on SIGTERM and SIGINT no longer kill the process.
    ///
    /// # Errors
    /// No pipe, or no signal handler.
    pub fn watch() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        pipe::register(SIGTERM, write.try_clone()?)?;
        pipe::register(SIGINT, write)?;
        Ok(Self { pipe: read })
    }

    /// Whether the process was asked to end since the last call.
    pub fn asked(&mut self) -> bool {
        let mut bytes = [0; 16];
        matches!(io::Read::read(&mut self.pipe, &mut bytes), Ok(count) if count > 0)
    }
}

impl AsFd for Termination {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Readable once somebody wants the configuration to be read again.
#[derive(Debug)]
pub struct Hangup {
    pipe: UnixStream,
}

impl Hangup {
    /// From now on SIGHUP no longer kills the process.
    ///
    /// # Errors
    /// No pipe, or no signal handler.
    pub fn watch() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        pipe::register(SIGHUP, write)?;
        Ok(Self { pipe: read })
    }

    /// Whether it came since the last call.
    pub fn came(&mut self) -> bool {
        let mut bytes = [0; 16];
        matches!(io::Read::read(&mut self.pipe, &mut bytes), Ok(count) if count > 0)
    }
}

impl AsFd for Hangup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
