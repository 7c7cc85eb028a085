//! The link to the opener: asks for maps files, hands their mappings on.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_endpoint::connect::Connector;
use ipc_endpoint::link::{Link, LinkError, Sent};
use ipc_proto::opener::{OpenerReply, OpenerRequest};
use rustix::io::{Errno, pread};

use crate::maps_file;
use crate::sideband::NewMapping;

/// Requests that may wait while the opener is away.
const MAX_WAITING: usize = 4096;

/// The link, while there is one.
#[derive(Debug)]
pub(crate) struct OpenerLink {
    connector: Connector<OpenerRequest, OpenerReply>,
    link: Option<Link<OpenerRequest, OpenerReply>>,
    waiting: VecDeque<OpenerRequest>,
    /// Requests given up because the opener was away for long.
    pub(crate) given_up: u64,
    /// Links ended by a violation, by cause.
    pub(crate) violations: BTreeMap<&'static str, u64>,
}

impl OpenerLink {
    /// Not connected yet.
    pub(crate) fn new(connector: Connector<OpenerRequest, OpenerReply>) -> Self {
        Self {
            connector,
            link: None,
            waiting: VecDeque::new(),
            given_up: 0,
            violations: BTreeMap::new(),
        }
    }

    /// Connects if need be.
    pub(crate) fn connect(&mut self, now: u64) {
        if self.link.is_none() {
            self.link = self.connector.poll(now);
        }
    }

    /// The socket, to be polled.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(AsFd::as_fd)
    }

    /// Whether there is something to send and somebody to send it to.
    pub(crate) fn wants_to_send(&self) -> bool {
        self.link.is_some() && !self.waiting.is_empty()
    }

    /// Queues a request.
    pub(crate) fn ask(&mut self, request: OpenerRequest) {
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.pop_front();
            self.given_up += 1;
        }
        self.waiting.push_back(request);
    }

    /// Sends as much as the socket takes.
    pub(crate) fn send(&mut self) {
        let Some(link) = &mut self.link else { return };
        while let Some(request) = self.waiting.front() {
            match link.send(request, &[]) {
                Ok(Sent::Done) => {
                    self.waiting.pop_front();
                }
                Ok(Sent::WouldBlock) => return,
                Err(error) => return self.end(&error),
            }
        }
    }

    /// The next reply: its request's number, and the mappings if there were any to be had.
    pub(crate) fn receive(&mut self) -> Option<(u64, Option<Vec<NewMapping>>)> {
        match self.link.as_mut()?.receive() {
            Ok(Some(received)) => {
                let OpenerReply::Opened(opened) = received.message;
                let maps = received.fds.first().and_then(|fd| read_maps(fd).ok());
                Some((opened.request, maps))
            }
            Ok(None) => None,
            Err(error) => {
                self.end(&error);
                None
            }
        }
    }

    fn end(&mut self, error: &LinkError) {
        if let LinkError::Violation(violation) = error {
            *self.violations.entry(violation.name()).or_default() += 1;
        }
        log::warn!("the link to the opener ended: {error}");
        self.link = None;
    }
}

fn read_maps(fd: &OwnedFd) -> Result<Vec<NewMapping>, Errno> {
    let mut text = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let count = pread(fd, &mut piece, text.len() as u64)?;
        if count == 0 || text.len() >= maps_file::MAX_BYTES {
            return Ok(maps_file::executable_mappings(&text));
        }
        text.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
}
