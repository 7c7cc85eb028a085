//! The link to the symbolizer with its queue, and the account of the samples that travel on it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_endpoint::connect::Connector;
use ipc_endpoint::link::{Link, LinkError, Received, Sent};
use ipc_proto::codec::{Bytes, List};
use ipc_proto::sample::{Drop, SamplerMessage, Start, SymbolizerMessage};

use crate::account::Account;
use crate::outbox::Outbox;

/// The link, while there is one.
#[derive(Debug)]
pub(crate) struct SymbolizerLink {
    connector: Connector<SamplerMessage, SymbolizerMessage>,
    link: Option<Link<SamplerMessage, SymbolizerMessage>>,
    pub(crate) outbox: Outbox,
    start: Start,
    kallsyms: Option<OwnedFd>,
    started: bool,
    /// Samples sent of each window that the symbolizer did not take yet.
    untaken: BTreeMap<u64, u64>,
    /// Links ended by a violation, by cause.
    pub(crate) violations: BTreeMap<&'static str, u64>,
}

impl SymbolizerLink {
    /// Each new symbolizer hears `start` and gets the kernel's symbols first.
    pub(crate) fn new(
        connector: Connector<SamplerMessage, SymbolizerMessage>,
        start: Start,
        kallsyms: Option<OwnedFd>,
    ) -> Self {
        Self {
            connector,
            link: None,
            outbox: Outbox::default(),
            start,
            kallsyms,
            started: false,
            untaken: BTreeMap::new(),
            violations: BTreeMap::new(),
        }
    }

    /// What the next symbolizer will hear of the sampling rate.
    pub(crate) fn set_frequency(&mut self, frequency: u32) {
        self.start.frequency = frequency;
    }

    /// Whether a new link was made.
    pub(crate) fn connect(&mut self, now: u64) -> bool {
        if self.link.is_some() {
            return false;
        }
        self.link = self.connector.poll(now);
        self.started = false;
        self.link.is_some()
    }

    /// The socket, to be polled.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(AsFd::as_fd)
    }

    /// Whether there is something to send and somebody to send it to.
    pub(crate) fn wants_to_send(&self) -> bool {
        self.link.is_some() && (!self.started || !self.outbox.is_empty())
    }

    /// Samples sent and not yet taken.
    pub(crate) fn untaken(&self) -> u64 {
        self.untaken.values().sum()
    }

    /// Queues a message; counts its samples where it ends.
    pub(crate) fn queue(&mut self, message: SamplerMessage, samples: u64, account: &mut Account) {
        account.link_produced += samples;
        if !self.outbox.push(message, samples) {
            let cause = if self.link.is_some() {
                "symbolizer_slow"
            } else {
                "symbolizer_away"
            };
            account.drop_on_link(cause, samples);
        }
    }

    /// Sends as much as the socket takes.
    pub(crate) fn send(&mut self, account: &mut Account) {
        let Some(link) = &mut self.link else { return };
        if !self.started {
            let fds: Vec<BorrowedFd<'_>> = self.kallsyms.iter().map(AsFd::as_fd).collect();
            match link.send(&SamplerMessage::Start(self.start.clone()), &fds) {
                Ok(Sent::Done) => self.started = true,
                // A peer that ended may have said something before: `receive` hears it, then finds the end.
                Ok(Sent::WouldBlock) | Err(LinkError::Closed) => return,
                Err(error) => return self.end(&error, account),
            }
        }
        while let Some(outgoing) = self.outbox.front_mut() {
            if let SamplerMessage::WindowEnd(end) = &mut outgoing.message {
                // Said once: when it really goes, everything before it has gone.
                let (samples, drops) = account.window();
                end.samples = samples;
                end.drops = List(
                    drops
                        .iter()
                        .take(32)
                        .map(|(cause, samples)| Drop {
                            cause: Bytes::cut(cause.as_bytes()),
                            samples: *samples,
                        })
                        .collect(),
                );
            }
            match link.send(&outgoing.message, &[]) {
                Ok(Sent::Done) => {}
                // A peer that ended may have said something before: `receive` hears it, then finds the end.
                Ok(Sent::WouldBlock) | Err(LinkError::Closed) => return,
                Err(error) => return self.end(&error, account),
            }
            let window = match &outgoing.message {
                SamplerMessage::Batch(batch) => batch.window.0,
                SamplerMessage::Snapshot(snapshot) => snapshot.window.0,
                SamplerMessage::WindowEnd(_) => {
                    account.window_is_sent();
                    0
                }
                _ => 0,
            };
            if outgoing.samples > 0 {
                *self.untaken.entry(window).or_default() += outgoing.samples;
                account.sent(outgoing.samples);
            }
            self.outbox.pop();
        }
    }

    /// The next message; `None`: nothing has come, or the link just ended.
    pub(crate) fn receive(&mut self, account: &mut Account) -> Option<Received<SymbolizerMessage>> {
        match self.link.as_mut()?.receive() {
            Ok(received) => received,
            Err(error) => {
                self.end(&error, account);
                None
            }
        }
    }

    /// The symbolizer took a window.
    pub(crate) fn taken(&mut self, window: u64, samples: u64, account: &mut Account) {
        let sent = self.untaken.remove(&window).unwrap_or(0);
        account.link_delivered += samples.min(sent);
        account.drop_on_link("symbolizer_dropped", sent.saturating_sub(samples));
    }

    fn end(&mut self, error: &LinkError, account: &mut Account) {
        if let LinkError::Violation(violation) = error {
            *self.violations.entry(violation.name()).or_default() += 1;
        }
        log::warn!("the link to the symbolizer ended: {error}");
        self.link = None;
        // What it had of our samples died with it.
        let lost = std::mem::take(&mut self.untaken).values().sum();
        account.drop_on_link("symbolizer_died", lost);
    }

    /// Whether everything was sent and taken.
    pub(crate) fn is_done(&self) -> bool {
        self.outbox.is_empty() && self.untaken.is_empty()
    }

    /// Gives up what still waits, at the end.
    pub(crate) fn give_up(&mut self, account: &mut Account) {
        account.drop_on_link("shutdown", self.outbox.samples() + self.untaken());
        self.outbox = Outbox::default();
        self.untaken.clear();
    }
}
