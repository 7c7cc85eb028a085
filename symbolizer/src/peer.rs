//! The connecting end of one channel with its queue: reconnects, sends as much as the socket takes, counts violations.
//! Knows nothing of what the messages say.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_endpoint::connect::Connector;
use ipc_endpoint::link::{Link, LinkError, Received, Sent};
use ipc_proto::header::Message;

/// A channel that this process connects to.
#[derive(Debug)]
pub(crate) struct Peer<Out, In> {
    name: &'static str,
    connector: Connector<Out, In>,
    link: Option<Link<Out, In>>,
    queue: VecDeque<(Out, Vec<OwnedFd>)>,
    max_queue: usize,
    /// Messages that the queue had no room for.
    pub(crate) overflows: u64,
    /// Links ended by a violation, by cause.
    pub(crate) violations: BTreeMap<&'static str, u64>,
}

impl<Out: Message, In: Message> Peer<Out, In> {
    /// A channel that is not connected yet; `max_queue` messages may wait.
    pub(crate) fn new(name: &'static str, connector: Connector<Out, In>, max_queue: usize) -> Self {
        Self {
            name,
            connector,
            link: None,
            queue: VecDeque::new(),
            max_queue,
            overflows: 0,
            violations: BTreeMap::new(),
        }
    }

    /// Whether a new link was made.
    pub(crate) fn connect(&mut self, now: u64) -> bool {
        if self.link.is_some() {
            return false;
        }
        self.link = self.connector.poll(now);
        self.link.is_some()
    }

    /// Whether there is a link.
    pub(crate) fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// The socket and whether something waits to be sent.
    pub(crate) fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        let link = self.link.as_ref()?;
        Some((link.as_fd(), !self.queue.is_empty()))
    }

    /// Queues a message; without room it is lost and counted.
    pub(crate) fn queue(&mut self, message: Out, fds: Vec<OwnedFd>) {
        if self.queue.len() >= self.max_queue {
            self.overflows += 1;
        } else {
            self.queue.push_back((message, fds));
        }
    }

    /// Forgets what waits.
    pub(crate) fn forget(&mut self) {
        self.queue.clear();
    }

    /// Sends what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) {
        while let Some((message, fds)) = self.queue.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            let Some(link) = &mut self.link else { return };
            match link.send(message, &fds) {
                Ok(Sent::Done) => {
                    self.queue.pop_front();
                }
                Ok(Sent::WouldBlock) => return,
                Err(error) => return self.end(&error),
            }
        }
    }

    /// Sends a message that stays its owner's; `false`: it did not go.
    pub(crate) fn send(&mut self, message: &Out) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        match link.send(message, &[]) {
            Ok(Sent::Done) => true,
            Ok(Sent::WouldBlock) => false,
            Err(error) => {
                self.end(&error);
                false
            }
        }
    }

    /// The next message; `None`: nothing has come, or the link just ended.
    pub(crate) fn receive(&mut self) -> Option<Received<In>> {
        match self.link.as_mut()?.receive() {
            Ok(received) => received,
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
        log::warn!("the link to the {} ended: {error}", self.name);
        self.link = None;
    }
}
