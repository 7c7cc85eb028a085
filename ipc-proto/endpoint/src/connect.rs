//! The connecting end of a channel: tries again, ever more rarely, until somebody listens.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use ipc_proto::header::Message;
use ipc_proto::hello::Role;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};

use crate::link::{Expected, Link, LinkError, Violation};
use crate::peer_uid::peer_uid;
use crate::peers::Peers;

/// First and longest pause between two attempts, nanoseconds.
const FIRST_PAUSE: u64 = 50_000_000;
const LONGEST_PAUSE: u64 = 2_000_000_000;
/// Bytes that may be under way in the socket.
const SEND_BUFFER: usize = 1 << 20;

/// Makes links to one listening role.
#[derive(Debug)]
pub struct Connector<Out, In> {
    path: PathBuf,
    own: Role,
    peer: Role,
    peers: Peers,
    next_attempt: u64,
    pause: u64,
    directions: PhantomData<fn(Out) -> In>,
}

impl<Out: Message, In: Message> Connector<Out, In> {
    /// Will connect to `socket` in `directory`, where `peer` listens.
    #[must_use]
    pub fn new(directory: &Path, socket: &str, own: Role, peer: Role, peers: &Peers) -> Self {
        Self {
            path: directory.join(socket),
            own,
            peer,
            peers: peers.clone(),
            next_attempt: 0,
            pause: FIRST_PAUSE,
            directions: PhantomData,
        }
    }

    /// A new link, if it is time for an attempt (`now`: any clock that only grows, nanoseconds) and somebody listens.
    pub fn poll(&mut self, now: u64) -> Option<Link<Out, In>> {
        if now < self.next_attempt {
            return None;
        }
        match self.attempt() {
            Ok(link) => {
                self.pause = FIRST_PAUSE;
                self.next_attempt = now.saturating_add(FIRST_PAUSE);
                Some(link)
            }
            Err(error) => {
                log::debug!("cannot connect to {}: {error}", self.path.display());
                self.next_attempt = now.saturating_add(self.pause);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                None
            }
        }
    }

    fn attempt(&self) -> Result<Link<Out, In>, LinkError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(LinkError::Io)?;
        let address = SocketAddrUnix::new(&self.path).map_err(LinkError::Io)?;
        connect(&fd, &address).map_err(LinkError::Io)?;
        // More than net.core.wmem_max is cut by the kernel.
        sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER).map_err(LinkError::Io)?;
        let uid = peer_uid(&fd).map_err(LinkError::Io)?;
        if !self.peers.may_listen(self.peer, uid) {
            return Err(Violation::Role {
                role: self.peer as u8,
                uid,
            }
            .into());
        }
        let expected = Expected {
            roles: vec![self.peer],
            uid,
            peers: self.peers.clone(),
        };
        Link::new(fd, self.own, expected)
    }
}
