//! Accepts the sampler and the symbolizer, serves their requests in order. Decides nothing itself.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use ipc_endpoint::link::{Link, LinkError, Received, Sent};
use ipc_endpoint::listener::Listener;
use ipc_endpoint::peers::Peers;
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::{Reporter, counter};
use ipc_proto::hello::Role;
use ipc_proto::opener::{OpenStatus, Opened, OpenerReply, OpenerRequest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::engine::{Decision, Engine};
use crate::files::{self, OpenFile};
use crate::process_directory::ProcessDirectory;

/// Links at once: the two roles, and one of each being replaced.
const MAX_LINKS: usize = 4;
/// Replies that may wait for a peer that does not read; then its link is closed.
const MAX_REPLIES: usize = 256;
const ROLES: [Role; 2] = [Role::Sampler, Role::Symbolizer];

struct Client {
    link: Link<OpenerReply, OpenerRequest>,
    replies: VecDeque<(Opened, Option<OwnedFd>)>,
}

/// Everything the loop waits for and acts on.
pub(crate) struct EventLoop {
    pub(crate) listener: Listener,
    pub(crate) peers: Peers,
    pub(crate) engine: Engine,
    pub(crate) reporter: Reporter,
    pub(crate) termination: Termination,
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
            engine: Engine::new(),
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
                match self.serve(&mut client, now) {
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
            let out = if client.replies.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::OUT
            };
            PollFd::new(&client.link, PollFlags::IN | out)
        }));
        match poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            }),
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn accept(&mut self) {
        while self.clients.len() < MAX_LINKS {
            match self.listener.accept(Role::Opener, &ROLES, &self.peers) {
                Ok(Some(link)) => self.clients.push(Client {
                    link,
                    replies: VecDeque::new(),
                }),
                Ok(None) => return,
                Err(error) => self.note(&error),
            }
        }
    }

    fn serve(&mut self, client: &mut Client, now: u64) -> Result<(), LinkError> {
        while client.replies.len() < MAX_REPLIES {
            let Some(Received { message, fds }) = client.link.receive()? else {
                break;
            };
            if !fds.is_empty() {
                return Err(ipc_endpoint::link::Violation::Descriptors(fds.len()).into());
            }
            let Some(role) = client.link.peer() else {
                break;
            };
            match self.engine.on_request(role, &message, now) {
                Decision::Noted => {}
                Decision::Forbidden => {
                    let violation = ipc_endpoint::link::Violation::Role {
                        role: role as u8,
                        uid: 0,
                    };
                    return Err(violation.into());
                }
                Decision::Answer(status) => self.answer(client, &message, Err(status)),
                Decision::Open { by_path } => {
                    self.answer(client, &message, open(&message, by_path))
                }
            }
        }
        while let Some((opened, fd)) = client.replies.front() {
            let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
            match client
                .link
                .send(&OpenerReply::Opened(opened.clone()), &fds)?
            {
                Sent::Done => client.replies.pop_front(),
                Sent::WouldBlock => break,
            };
        }
        Ok(())
    }

    fn answer(
        &mut self,
        client: &mut Client,
        message: &OpenerRequest,
        result: Result<OpenFile, OpenStatus>,
    ) {
        let request = number(message);
        match result {
            Ok(file) => {
                self.engine.answered(OpenStatus::Opened);
                client
                    .replies
                    .push_back((file.describe(request), Some(file.fd)));
            }
            Err(status) => {
                self.engine.answered(status);
                let opened = Opened {
                    request,
                    status: status as u8,
                    ..Opened::default()
                };
                client.replies.push_back((opened, None));
            }
        }
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
            counter(
                "leadsman_opener_requests_total",
                help,
                &[("status", status)],
                *count as f64,
            )
        });
        let violations = self.violations.iter().map(|(cause, count)| {
            counter(
                "leadsman_link_violations_total",
                "Links closed because the peer broke the protocol, by cause.",
                &[("process", "opener"), ("edge", "opener"), ("cause", cause)],
                *count as f64,
            )
        });
        self.reporter
            .report(now, answers.chain(violations).collect(), last);
    }
}

fn number(request: &OpenerRequest) -> u64 {
    match request {
        OpenerRequest::Sampled(_) => 0,
        OpenerRequest::OpenMaps(wanted) => wanted.request,
        OpenerRequest::OpenExecutable(wanted) => wanted.request,
        OpenerRequest::OpenPerfMap(wanted) => wanted.request,
        OpenerRequest::OpenDebugFile(wanted) => wanted.request,
    }
}

fn open(request: &OpenerRequest, by_path: bool) -> Result<OpenFile, OpenStatus> {
    match request {
        OpenerRequest::Sampled(_) => Err(OpenStatus::NotFound),
        OpenerRequest::OpenMaps(wanted) => {
            files::maps(&ProcessDirectory::open(wanted.pid.0, wanted.start_time)?)
        }
        OpenerRequest::OpenExecutable(wanted) => {
            let mapped = ProcessDirectory::open(wanted.pid.0, wanted.start_time)
                .and_then(|process| files::mapped(&process, wanted));
            match mapped {
                Err(OpenStatus::ProcessGone | OpenStatus::NotFound | OpenStatus::Denied)
                    if by_path =>
                {
                    files::by_path(&files::initial_root()?, &wanted.path.0)
                }
                result => result,
            }
        }
        OpenerRequest::OpenPerfMap(wanted) => {
            let process = ProcessDirectory::open(wanted.pid.0, wanted.start_time)?;
            files::perf_map(&process, wanted.pid.0)
        }
        OpenerRequest::OpenDebugFile(wanted) => {
            let inside = ProcessDirectory::open(wanted.pid.0, wanted.start_time)
                .and_then(|process| files::root_of(&process))
                .and_then(|root| files::debug_file(&root, wanted));
            inside.or_else(|_absent| files::debug_file(&files::initial_root()?, wanted))
        }
    }
}

/// CLOCK_MONOTONIC, nanoseconds.
fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    (time.tv_sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec as u64)
}
