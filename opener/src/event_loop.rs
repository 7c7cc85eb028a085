//! Accepts the sampler and the symbolizer, moves requests to the workers and answers back. Decides nothing itself, and
//! opens nothing itself: it is never held up.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use ipc_endpoint::clock::{monotonic, timespec};
use ipc_endpoint::link::{Link, LinkError, Received, Sent, Violation};
use ipc_endpoint::listener::Listener;
use ipc_endpoint::peers::Peers;
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::{Reporter, counter, gauge};
use ipc_proto::hello::Role;
use ipc_proto::opener::{OpenStatus, Opened, OpenerReply, OpenerRequest};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::engine::{Decision, Engine};
use crate::files::OpenFile;
use crate::workers::{Job, Outcome, Workers};

/// Links at once: the two roles, and one of each being replaced.
const MAX_LINKS: usize = 4;
/// Requests of one peer that are under way or answered but not taken; it is not heard before it takes some.
const MAX_UNDER_WAY: usize = 128;
/// Longest wait while a request is under way, nanoseconds.
const LONGEST_WAIT: u64 = 1_000_000_000;
const ROLES: [Role; 2] = [Role::Sampler, Role::Symbolizer];

struct Client {
    number: u64,
    link: Link<OpenerReply, OpenerRequest>,
    /// Requests that wait for a worker or are with one.
    under_way: usize,
    replies: VecDeque<(Opened, Option<OwnedFd>)>,
}

impl Client {
    fn has_room(&self) -> bool {
        self.under_way + self.replies.len() < MAX_UNDER_WAY
    }
}

/// Everything the loop waits for and acts on.
pub(crate) struct EventLoop {
    listener: Listener,
    peers: Peers,
    engine: Engine,
    workers: Workers,
    /// Jobs that no worker has taken yet; bounded by what each client may have under way.
    waiting: VecDeque<Job>,
    reporter: Reporter,
    termination: Termination,
    clients: Vec<Client>,
    accepted: u64,
    violations: BTreeMap<&'static str, u64>,
}

impl EventLoop {
    /// Nobody is connected yet.
    pub(crate) fn new(
        listener: Listener,
        peers: Peers,
        workers: Workers,
        reporter: Reporter,
        termination: Termination,
    ) -> Self {
        Self {
            listener,
            peers,
            engine: Engine::new(),
            workers,
            waiting: VecDeque::new(),
            reporter,
            termination,
            clients: Vec::new(),
            accepted: 0,
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
            self.each_client(|this, client| this.hear(client, now));
            self.hand_out(now);
            for outcome in self.workers.collect(now) {
                self.on_outcome(outcome, now);
            }
            self.hand_out(now);
            self.each_client(|_this, client| reply(client));
            if self.reporter.is_due(now) {
                self.report(now, false);
            }
        }
    }

    fn wait(&self) -> Result<(), Errno> {
        let mut fds = vec![
            PollFd::new(&self.termination, PollFlags::IN),
            PollFd::new(&self.workers, PollFlags::IN),
        ];
        if self.clients.len() < MAX_LINKS {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        fds.extend(self.clients.iter().map(|client| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.has_room());
            flags.set(PollFlags::OUT, !client.replies.is_empty());
            PollFd::new(&client.link, flags)
        }));
        // Whoever is under way may take too long.
        let is_idle = self.clients.iter().all(|client| client.under_way == 0);
        let longest = if is_idle { u64::MAX } else { LONGEST_WAIT };
        let wait = longest.min(self.reporter.pause(monotonic()));
        match poll(&mut fds, Some(&timespec(wait))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn accept(&mut self) {
        while self.clients.len() < MAX_LINKS {
            match self.listener.accept(Role::Opener, &ROLES, &self.peers) {
                Ok(Some(link)) => {
                    self.accepted += 1;
                    self.clients.push(Client {
                        number: self.accepted,
                        link,
                        under_way: 0,
                        replies: VecDeque::new(),
                    });
                }
                Ok(None) => return,
                Err(error) => self.note(&error),
            }
        }
    }

    /// Does something with each client; a client with whom it fails is gone.
    fn each_client(
        &mut self,
        mut act: impl FnMut(&mut Self, &mut Client) -> Result<(), LinkError>,
    ) {
        for mut client in std::mem::take(&mut self.clients) {
            match act(self, &mut client) {
                Ok(()) => self.clients.push(client),
                Err(error) => {
                    self.waiting.retain(|job| job.client != client.number);
                    self.note(&error);
                }
            }
        }
    }

    fn hear(&mut self, client: &mut Client, now: u64) -> Result<(), LinkError> {
        while client.has_room() {
            let Some(Received { message, fds }) = client.link.receive()? else {
                break;
            };
            if !fds.is_empty() {
                return Err(Violation::Descriptors(fds.len()).into());
            }
            let Some(role) = client.link.peer() else {
                break;
            };
            match self.engine.on_request(role, &message, now) {
                Decision::Noted => {}
                Decision::Forbidden => return Err(Violation::Forbidden(role).into()),
                Decision::Answer(status) => {
                    self.engine.answered(status);
                    client
                        .replies
                        .push_back((refusal(message.number(), status), None));
                }
                Decision::Open(ways) => {
                    client.under_way += 1;
                    self.waiting.push_back(Job {
                        client: client.number,
                        request: message,
                        ways,
                    });
                }
            }
        }
        Ok(())
    }

    fn hand_out(&mut self, now: u64) {
        while let Some(job) = self.waiting.pop_front() {
            if self.workers.is_exhausted() {
                self.answer(job.client, job.request.number(), Err(OpenStatus::TimedOut));
            } else if let Err(job) = self.workers.take(job, now) {
                self.waiting.push_front(job);
                return;
            }
        }
    }

    fn on_outcome(&mut self, outcome: Outcome, now: u64) {
        if let Err(status) = outcome.result {
            log::debug!("process {}: {}", outcome.pid, status.name());
            if status == OpenStatus::TimedOut {
                self.engine.on_timeout(outcome.pid, now);
            }
        }
        self.answer(outcome.client, outcome.request, outcome.result);
    }

    /// Answers a request that was under way.
    fn answer(&mut self, number: u64, request: u64, result: Result<OpenFile, OpenStatus>) {
        let status = result.as_ref().err().copied();
        self.engine.answered(status.unwrap_or(OpenStatus::Opened));
        let mut clients = self.clients.iter_mut();
        let Some(client) = clients.find(|client| client.number == number) else {
            return;
        };
        client.under_way = client.under_way.saturating_sub(1);
        client.replies.push_back(match result {
            Ok(file) => (file.describe(request), Some(file.fd)),
            Err(status) => (refusal(request, status), None),
        });
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
        let answers = self.engine.answers.iter().map(|(status, count)| {
            let help = "Requests to open files of sampled processes, by how they ended.";
            let labels = [("status", *status)];
            counter(
                "leadsman_opener_requests_total",
                help,
                &labels,
                *count as f64,
            )
        });
        let violations = self.violations.iter().map(|(cause, count)| {
            let help = "Links closed because the peer broke the protocol, by cause.";
            let labels = [("process", "opener"), ("edge", "opener"), ("cause", *cause)];
            counter(
                "leadsman_link_violations_total",
                help,
                &labels,
                *count as f64,
            )
        });
        let hanging = gauge(
            "leadsman_opener_hanging_threads",
            "Threads of the opener that a file system does not answer.",
            &[],
            self.workers.hanging() as f64,
        );
        let metrics = answers.chain(violations).chain([hanging]).collect();
        self.reporter.report(now, metrics, last);
    }
}

fn reply(client: &mut Client) -> Result<(), LinkError> {
    while let Some((opened, fd)) = client.replies.front() {
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        let message = OpenerReply::Opened(opened.clone());
        match client.link.send(&message, &fds)? {
            Sent::Done => client.replies.pop_front(),
            Sent::WouldBlock => break,
        };
    }
    Ok(())
}

fn refusal(request: u64, status: OpenStatus) -> Opened {
    Opened {
        request,
        status: status as u8,
        ..Opened::default()
    }
}
