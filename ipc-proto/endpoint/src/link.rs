//! One end of a connected channel: checked messages out and in, never blocking.
//!
//! A message that breaks a rule ends the link: it is not answered, and what it carried is closed.

use std::io::{IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_proto::codec::{DecodeError, Reader, Wire, Writer};
use ipc_proto::header::{BODY_IN_MEMFD, HEADER_BYTES, Header, Message};
use ipc_proto::hello::{HELLO, Hello, Role};
use ipc_proto::limits::{MAX_BODY, MAX_FDS, MAX_INLINE, PROTOCOL_VERSION};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use thiserror::Error;

use crate::memfd::{self, MemfdError};
use crate::peers::Peers;

/// How a peer broke the protocol.
#[derive(Debug, Error)]
pub enum Violation {
    /// More bytes or file descriptors than a message may have.
    #[error("oversized message")]
    Oversized,
    /// The header or body does not decode.
    #[error("malformed message: {0}")]
    Malformed(#[from] DecodeError),
    /// The header announces another body than came.
    #[error("body of {found} bytes, {announced} announced")]
    Length {
        /// Bytes that came.
        found: usize,
        /// Bytes announced.
        announced: u32,
    },
    /// A message is missing or came twice.
    #[error("message {found} where {expected} was due")]
    Sequence {
        /// Number found.
        found: u32,
        /// Number due.
        expected: u32,
    },
    /// The first message is no hello, or a later one is.
    #[error("hello missing or repeated")]
    Hello,
    /// Another protocol version.
    #[error("protocol version {0}, ours is {PROTOCOL_VERSION}")]
    Version(u32),
    /// A role that may not speak here, or not with that uid.
    #[error("role {role} of uid {uid} may not speak here")]
    Role {
        /// The role's number.
        role: u8,
        /// The uid.
        uid: u32,
    },
    /// A message that this role may not send.
    #[error("{} may not send that", .0.name())]
    Forbidden(Role),
    /// A body's memfd is missing, not sealed, or of another size.
    #[error("body: {0}")]
    Body(#[from] MemfdError),
    /// File descriptors where none belong, or none where one belongs.
    #[error("{0} file descriptors attached")]
    Descriptors(usize),
}

impl Violation {
    /// The cause's name in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::Malformed(_) => "malformed",
            Self::Length { .. } => "length",
            Self::Sequence { .. } => "sequence",
            Self::Hello => "hello",
            Self::Version(_) => "version",
            Self::Role { .. } => "role",
            Self::Forbidden(_) => "forbidden",
            Self::Body(_) => "body",
            Self::Descriptors(_) => "descriptors",
        }
    }
}

/// Why a link ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The peer is gone.
    #[error("the peer closed the link")]
    Closed,
    /// The peer broke the protocol.
    #[error("protocol violation: {0}")]
    Violation(#[from] Violation),
    /// The socket failed.
    #[error("socket: {0}")]
    Io(Errno),
}

/// Whether a message was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Done,
    /// The socket is full: offer it again later.
    WouldBlock,
}

/// Who may be at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) roles: Vec<Role>,
    pub(crate) uid: u32,
    pub(crate) peers: Peers,
}

/// A message with what it carried.
#[derive(Debug)]
pub struct Received<In> {
    /// The message.
    pub message: In,
    /// File descriptors, without the body's.
    pub fds: Vec<OwnedFd>,
}

/// A connected channel end that sends `Out` and receives `In`.
#[derive(Debug)]
pub struct Link<Out, In> {
    fd: OwnedFd,
    expected: Expected,
    peer: Option<Role>,
    sent: u32,
    received: u32,
    buffer: Vec<u8>,
    directions: PhantomData<fn(Out) -> In>,
}

impl<Out: Message, In: Message> Link<Out, In> {
    /// Takes over a connected socket and says hello.
    pub(crate) fn new(fd: OwnedFd, own: Role, expected: Expected) -> Result<Self, LinkError> {
        let mut link = Self {
            fd,
            expected,
            peer: None,
            sent: 0,
            received: 0,
            buffer: vec![0; MAX_INLINE],
            directions: PhantomData,
        };
        let hello = Hello {
            version: PROTOCOL_VERSION,
            role: own as u8,
        };
        match link.send_body(HELLO, &hello.to_bytes(), &[])? {
            Sent::Done => Ok(link),
            Sent::WouldBlock => Err(LinkError::Io(Errno::AGAIN)),
        }
    }

    /// The peer's role, once its hello came.
    #[must_use]
    pub fn peer(&self) -> Option<Role> {
        self.peer
    }

    /// Sends a message with file descriptors (without its body's).
    ///
    /// # Errors
    /// The link is unusable for sending. After [`LinkError::Closed`] the peer's last messages may still wait:
    /// [`Link::receive`] hands them out before it says the same.
    pub fn send(&mut self, message: &Out, fds: &[BorrowedFd<'_>]) -> Result<Sent, LinkError> {
        self.send_body(message.number(), &message.encode_body(), fds)
    }

    fn send_body(
        &mut self,
        number: u16,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Sent, LinkError> {
        let inline = body.len() + HEADER_BYTES <= MAX_INLINE;
        let memfd = if inline {
            None
        } else {
            Some(memfd::sealed(body).map_err(Violation::Body)?)
        };
        let header = Header {
            number,
            flags: if inline { 0 } else { BODY_IN_MEMFD },
            body: body.len() as u32,
            sequence: self.sent,
        };
        let mut writer = Writer::default();
        header.encode(&mut writer);
        let header = writer.into_bytes();
        let descriptors: Vec<BorrowedFd<'_>> = memfd
            .iter()
            .map(AsFd::as_fd)
            .chain(fds.iter().copied())
            .collect();
        if descriptors.len() > MAX_FDS || body.len() > MAX_BODY {
            return Err(Violation::Oversized.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let parts = [
            IoSlice::new(&header),
            IoSlice::new(if inline { body } else { &[] }),
        ];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(&self.fd, &parts, &mut control, flags) {
            Ok(_bytes) => {
                self.sent = self.sent.wrapping_add(1);
                Ok(Sent::Done)
            }
            // TOOMANYREFS: too many descriptors of this user are in sockets, unread.
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR | Errno::TOOMANYREFS) => {
                Ok(Sent::WouldBlock)
            }
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Err(LinkError::Closed),
            Err(error) => Err(LinkError::Io(error)),
        }
    }

    /// The next message; `None`: nothing has come yet.
    ///
    /// # Errors
    /// The link is unusable.
    pub fn receive(&mut self) -> Result<Option<Received<In>>, LinkError> {
        loop {
            let Some((header, body, fds)) = self.receive_datagram()? else {
                return Ok(None);
            };
            if self.peer.is_none() {
                self.greet(&header, &body, fds.len())?;
                continue;
            }
            if header.number == HELLO {
                return Err(Violation::Hello.into());
            }
            let message = In::decode_body(header.number, &body).map_err(Violation::Malformed)?;
            return Ok(Some(Received { message, fds }));
        }
    }

    fn greet(&mut self, header: &Header, body: &[u8], fds: usize) -> Result<(), LinkError> {
        if header.number != HELLO {
            return Err(Violation::Hello.into());
        }
        if fds != 0 {
            return Err(Violation::Descriptors(fds).into());
        }
        let hello = Hello::from_bytes(body).map_err(Violation::Malformed)?;
        if hello.version != PROTOCOL_VERSION {
            return Err(Violation::Version(hello.version).into());
        }
        let uid = self.expected.uid;
        let role = self
            .expected
            .roles
            .iter()
            .find(|role| **role as u8 == hello.role);
        match role {
            Some(role)
                if self.expected.peers.allows(*role, uid)
                    || self.expected.peers.may_listen(*role, uid) =>
            {
                self.peer = Some(*role);
                Ok(())
            }
            _ => Err(Violation::Role {
                role: hello.role,
                uid,
            }
            .into()),
        }
    }

    #[expect(
        clippy::type_complexity,
        reason = "one datagram's three parts, taken apart at once"
    )]
    fn receive_datagram(&mut self) -> Result<Option<(Header, Vec<u8>, Vec<OwnedFd>)>, LinkError> {
        // Room for one descriptor more than allowed: too many are then seen, not silently closed.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS + 1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let mut received = recvmsg(&self.fd, &mut parts, &mut control, flags);
        if matches!(received, Err(Errno::CONNRESET)) {
            // Said once when the peer ended without reading all we sent. What it sent before is still to be read.
            received = recvmsg(&self.fd, &mut parts, &mut control, flags);
        }
        let result = match received {
            Ok(result) => result,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(LinkError::Closed),
            Err(error) => return Err(LinkError::Io(error)),
        };
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if result
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
            || fds.len() > MAX_FDS
        {
            return Err(Violation::Oversized.into());
        }
        if result.bytes == 0 {
            return Err(LinkError::Closed);
        }
        let mut reader = Reader::new(self.buffer.get(..result.bytes).unwrap_or_default());
        let header = Header::decode(&mut reader).map_err(Violation::Malformed)?;
        if header.sequence != self.received {
            let (found, expected) = (header.sequence, self.received);
            return Err(Violation::Sequence { found, expected }.into());
        }
        self.received = self.received.wrapping_add(1);
        let found = reader.remaining();
        let inline = if header.flags & BODY_IN_MEMFD == 0 {
            header.body
        } else {
            0
        };
        if found != inline as usize {
            return Err(Violation::Length {
                found,
                announced: header.body,
            }
            .into());
        }
        let body = if header.flags & BODY_IN_MEMFD == 0 {
            reader.take(found).map_err(Violation::Malformed)?.to_vec()
        } else {
            if fds.is_empty() {
                return Err(Violation::Descriptors(0).into());
            }
            let memfd = fds.remove(0);
            memfd::read_sealed(&memfd, header.body.into(), MAX_BODY).map_err(Violation::Body)?
        };
        Ok(Some((header, body, fds)))
    }
}

impl<Out, In> AsFd for Link<Out, In> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
