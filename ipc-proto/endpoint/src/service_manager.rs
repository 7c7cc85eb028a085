//! Tells the service manager that this process is ready, and that it is alive (sd_notify(3)). Says nothing where nobody asked.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with,
};

/// The channel to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    to: Option<(OwnedFd, SocketAddrUnix)>,
}

impl ServiceManager {
    /// The one that `NOTIFY_SOCKET` names.
    #[must_use]
    pub fn from_environment() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET");
        Self {
            to: name.as_deref().and_then(open),
        }
    }

    /// The process listens and is locked down.
    pub fn ready(&self) {
        self.say(b"READY=1");
    }

    /// The process's loop goes round.
    pub fn alive(&self) {
        self.say(b"WATCHDOG=1");
    }

    fn say(&self, what: &[u8]) {
        if let Some((socket, address)) = &self.to {
            // A manager that does not read is not waited for: it notices the silence.
            let _unheard = sendto(socket, what, SendFlags::NOSIGNAL, address);
        }
    }
}

/// A path, or a name in the abstract namespace behind `@`.
fn open(name: &OsStr) -> Option<(OwnedFd, SocketAddrUnix)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name).ok()?,
        path => SocketAddrUnix::new(path).ok()?,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok()?;
    Some((socket, address))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn the_manager_hears_both() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        let own = ServiceManager {
            to: open(path.as_os_str()),
        };
        own.ready();
        own.alive();
        let mut heard = [0; 64];
        for expected in ["READY=1", "WATCHDOG=1"] {
            let length = manager.recv(&mut heard).expect("a datagram");
            assert_eq!(heard.get(..length), Some(expected.as_bytes()));
        }
        ServiceManager::default().ready();
    }
}
