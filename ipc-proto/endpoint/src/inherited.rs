//! File descriptors that the service manager passed, by name (sd_listen_fds(3)).

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use thiserror::Error;

use crate::listener::Listener;

/// Why they could not be taken.
#[derive(Debug, Error)]
pub enum InheritedError {
    /// `LISTEN_FDS` and its companions do not parse.
    #[error("LISTEN_FDS, LISTEN_PID or LISTEN_FDNAMES is malformed")]
    Environment,
    /// No descriptor of that name was passed.
    #[error(
        "no file descriptor named {0} was passed: start this process by `leadsman up` or its systemd units"
    )]
    Missing(&'static str),
}

/// The descriptors not yet taken.
#[derive(Debug, Default)]
pub struct Inherited {
    by_name: HashMap<String, OwnedFd>,
}

impl Inherited {
    /// Takes what was passed to this process. Call once.
    ///
    /// # Errors
    /// A malformed environment.
    pub fn from_environment() -> Result<Self, InheritedError> {
        let passed = sd_listen_fds::get().map_err(|_error| InheritedError::Environment)?;
        let by_name = passed
            .into_iter()
            .filter_map(|(name, fd)| {
                let fd: OwnedFd = fd.into_std();
                // A process that we start must not inherit them once more.
                rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).ok()?;
                Some((name?, fd))
            })
            .collect();
        Ok(Self { by_name })
    }

    /// The descriptor of that name.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.by_name.remove(name)
    }

    /// The listening socket of that name.
    ///
    /// # Errors
    /// It was not passed.
    pub fn listener(&mut self, name: &'static str) -> Result<Listener, InheritedError> {
        let missing = InheritedError::Missing(name);
        let Some(fd) = self.take(name) else {
            return Err(missing);
        };
        // Whoever made it may have left it blocking; nobody here ever waits in accept.
        rustix::io::ioctl_fionbio(&fd, true).map_err(|_no_socket| missing)?;
        Ok(Listener::from_fd(fd))
    }
}
