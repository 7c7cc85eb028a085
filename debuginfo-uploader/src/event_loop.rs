//! Accepts the symbolizer, takes its offers, answers verdicts. Decides nothing itself.

use std::collections::{BTreeMap, VecDeque};

use ipc_endpoint::clock::monotonic;
use ipc_endpoint::link::{Link, LinkError, Received, Sent, Violation};
use ipc_endpoint::listener::Listener;
use ipc_endpoint::peers::Peers;
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::{Reporter, counter};
use ipc_proto::debuginfo::{DebuginfoVerdict, OfferMessage, VerdictMessage};
use ipc_proto::hello::Role;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::ROLE;
use crate::engine::Engine;
use crate::offered_file;

/// Links at once: the symbolizer, and one that replaces it.
const MAX_LINKS: usize = 2;
/// Verdicts that may wait for a peer that does not read; it is not heard before it takes some.
const MAX_VERDICTS: usize = 256;

struct Client {
    link: Link<VerdictMessage, OfferMessage>,
    verdicts: VecDeque<VerdictMessage>,
}

/// Everything the loop waits for and acts on.
pub(crate) struct EventLoop {
    listener: Listener,
    peers: Peers,
    engine: Engine,
    reporter: Reporter,
    termination: Termination,
    clients: Vec<Client>,
    violations: BTreeMap<&'static str, u64>,
}

impl EventLoop {
    /// Nobody is connected yet.
    pub(crate) fn new(
        listener: Listener,
        peers: Peers,
        reporter: Reporter,
        termination: Termination,
    ) -> Self {
        Self {
            listener,
            peers,
            engine: Engine::default(),
            reporter,
            termination,
            clients: Vec::new(),
            violations: BTreeMap::new(),
        }
    }

    /// Runs until the process is asked to end.
    pub(crate) fn run(&mut self) -> Result<(), Errno> {
        loop {
            self.wait()?;
            let now = monotonic();
            if self.termination.asked() {
                self.report(now, true);
                return Ok(());
            }
            self.accept();
            for mut client in std::mem::take(&mut self.clients) {
                match self.serve(&mut client) {
                    Ok(()) => self.clients.push(client),
                    Err(error) => self.note(&error),
                }
            }
            if self.reporter.is_due(now) {
                self.report(now, false);
            }
        }
    }

    fn wait(&self) -> Result<(), Errno> {
        let mut fds = vec![PollFd::new(&self.termination, PollFlags::IN)];
        if self.clients.len() < MAX_LINKS {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        fds.extend(self.clients.iter().map(|client| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.verdicts.len() < MAX_VERDICTS);
            flags.set(PollFlags::OUT, !client.verdicts.is_empty());
            PollFd::new(&client.link, flags)
        }));
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        match poll(&mut fds, Some(&second)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn accept(&mut self) {
        while self.clients.len() < MAX_LINKS {
            match self.listener.accept(ROLE, &[Role::Symbolizer], &self.peers) {
                Ok(Some(link)) => self.clients.push(Client {
                    link,
                    verdicts: VecDeque::new(),
                }),
                Ok(None) => return,
                Err(error) => self.note(&error),
            }
        }
    }

    fn serve(&mut self, client: &mut Client) -> Result<(), LinkError> {
        while client.verdicts.len() < MAX_VERDICTS {
            let Some(Received { message, fds }) = client.link.receive()? else {
                break;
            };
            let OfferMessage::Offer(offer) = message;
            let [file] = fds.as_slice() else {
                return Err(Violation::Descriptors(fds.len()).into());
            };
            let checked = offered_file::check(file, offer.size);
            let verdict = self.engine.on_offer(&offer, checked);
            client
                .verdicts
                .push_back(VerdictMessage::Verdict(DebuginfoVerdict {
                    build_id: offer.build_id,
                    verdict: verdict as u8,
                }));
        }
        while let Some(verdict) = client.verdicts.front() {
            match client.link.send(verdict, &[])? {
                Sent::Done => client.verdicts.pop_front(),
                Sent::WouldBlock => break,
            };
        }
        Ok(())
    }

    fn note(&mut self, error: &LinkError) {
        if let LinkError::Violation(violation) = error {
            log::warn!("link closed: {error}");
            *self.violations.entry(violation.name()).or_default() += 1;
        } else {
            log::info!("link ended: {error}");
        }
    }

    fn report(&mut self, now: u64, last: bool) {
        let process = ROLE.name();
        let verdicts = self.engine.verdicts.iter().map(|(verdict, count)| {
            let help = "Executables offered for upload, by what became of the offer.";
            let labels = [("verdict", *verdict)];
            counter(
                "leadsman_debuginfo_offers_total",
                help,
                &labels,
                *count as f64,
            )
        });
        let violations = self.violations.iter().map(|(cause, count)| {
            let help = "Links closed because the peer broke the protocol, by cause.";
            let labels = [
                ("process", process),
                ("edge", "debuginfo"),
                ("cause", *cause),
            ];
            counter(
                "leadsman_link_violations_total",
                help,
                &labels,
                *count as f64,
            )
        });
        let bytes = counter(
            "leadsman_debuginfo_offered_bytes_total",
            "Bytes of the distinct executables offered for upload.",
            &[],
            self.engine.bytes as f64,
        );
        let metrics = verdicts.chain(violations).chain([bytes]).collect();
        self.reporter.report(now, metrics, last);
    }
}
