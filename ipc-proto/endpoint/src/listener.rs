//! The listening end of a channel. The service manager made the socket, or a test did.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ipc_proto::header::Message;
use ipc_proto::hello::Role;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

use crate::link::{Expected, Link, LinkError};
use crate::peer_uid::peer_uid;
use crate::peers::Peers;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 8;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
}

impl Listener {
    /// Takes over an inherited listening socket.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Makes a listening socket at `path`, where nothing must be.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn bind(path: &Path) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&fd, &SocketAddrUnix::new(path)?)?;
        listen(&fd, BACKLOG)?;
        Ok(Self { fd })
    }

    /// The next connection, of one of `roles`; its hello is checked by the link's first `receive`.
    ///
    /// # Errors
    /// The connection failed; the listener goes on.
    pub fn accept<Out: Message, In: Message>(
        &self,
        own: Role,
        roles: &[Role],
        peers: &Peers,
    ) -> Result<Option<Link<Out, In>>, LinkError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = match accept_with(&self.fd, flags) {
            Ok(fd) => fd,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(None),
            Err(error) => return Err(LinkError::Io(error)),
        };
        let uid = peer_uid(&fd).map_err(LinkError::Io)?;
        let expected = Expected {
            roles: roles.to_vec(),
            uid,
            peers: peers.clone(),
        };
        // The listening end trusts nobody by being root: a role has its own uid.
        if !roles.iter().any(|role| peers.allows(*role, uid)) {
            return Err(crate::link::Violation::Role { role: 0, uid }.into());
        }
        Link::new(fd, own, expected).map(Some)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
