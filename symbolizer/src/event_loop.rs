//! Receives from the peers and the threads, executes the engine's actions. Decides nothing itself.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ipc_endpoint::clock::{monotonic, timespec};
use ipc_endpoint::link::{Link, LinkError, Sent};
use ipc_endpoint::listener::Listener;
use ipc_endpoint::memfd;
use ipc_endpoint::peers::Peers;
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_proto::debuginfo::{OfferMessage, Verdict, VerdictMessage};
use ipc_proto::hello::Role;
use ipc_proto::opener::{OpenerReply, OpenerRequest};
use ipc_proto::sample::{SamplerMessage, SymbolizerMessage};
use ipc_proto::symbolized::{ShipperMessage, SymbolizedMessage};
use leadsman_symbolizer::cache::ExecutableKey;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use thiserror::Error;

use crate::engine::{Action, Engine};
use crate::metrics::{Sources, metrics};
use crate::name_worker::{NameAnswer, NameRequest, NameWorker};
use crate::peer::Peer;
use crate::quarantine::Quarantine;
use crate::table_worker::{TableCounts, TableJob, TableResult, TableWorker};

/// Messages taken from the sampler before the others are heard again.
const MAX_MESSAGES_AT_ONCE: usize = 256;
/// Messages that may wait for a sampler that does not read; then its link is closed.
const MAX_SAMPLER_QUEUE: usize = 8192;
/// Longest wait for somebody to listen, nanoseconds.
const CONNECT_WAIT: u64 = 200_000_000;
/// How long the sampler's last window is waited for after the process was asked to end, nanoseconds.
const LAST_WINDOW_PATIENCE: u64 = 700_000_000;
/// How long everything may take after that, nanoseconds.
const END_PATIENCE: u64 = 1_500_000_000;

/// Why the loop can't go on.
#[derive(Debug, Error)]
pub(crate) enum LoopError {
    /// The kernel refused to wait, or to make what is needed for it.
    #[error("cannot wait for messages: {0}")]
    Wait(#[from] Errno),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// A thread ended.
    #[error("a thread of the symbolizer ended unexpectedly")]
    ThreadEnded,
}

/// The other processes.
#[derive(Debug)]
pub(crate) struct Others {
    pub(crate) listener: Listener,
    pub(crate) peers: Peers,
    pub(crate) opener: Peer<OpenerRequest, OpenerReply>,
    pub(crate) shipper: Peer<SymbolizedMessage, ShipperMessage>,
    pub(crate) uploader: Peer<OfferMessage, VerdictMessage>,
}

/// What the threads share with the loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) quarantine: Arc<Mutex<Quarantine>>,
    pub(crate) table_counts: Arc<Mutex<TableCounts>>,
    pub(crate) name_bytes: Arc<Mutex<usize>>,
}

type SamplerLink = Link<SymbolizerMessage, SamplerMessage>;

/// The threads, from here.
struct Threads {
    wake: Arc<OwnedFd>,
    tables: Sender<TableJob>,
    found: Receiver<(ExecutableKey, TableResult)>,
    names: Sender<NameRequest>,
    named: Receiver<NameAnswer>,
}

/// Everything the loop waits for and acts on.
pub(crate) struct EventLoop {
    engine: Engine,
    others: Others,
    sampler: Option<SamplerLink>,
    sampler_queue: VecDeque<(SymbolizerMessage, Option<OwnedFd>)>,
    reporter: Reporter,
    termination: Termination,
    shared: Shared,
    threads: Threads,
    violations: BTreeMap<&'static str, u64>,
}

impl Threads {
    fn start(tables: TableWorker, names: NameWorker) -> Result<Self, LoopError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags)?);
        let (mut tables, mut names) = (tables, names);
        let (found, table_jobs) = spawn("tables", &wake, move |job| Some(tables.work(job)))?;
        let (named, name_requests) = spawn("names", &wake, move |request| names.work(request))?;
        Ok(Self {
            wake,
            tables: table_jobs,
            found,
            names: name_requests,
            named,
        })
    }

    /// Forgets that somebody rang.
    fn quiet(&self) {
        let mut count = [0; 8];
        // Nobody rang: the descriptor does not block.
        let _empty = rustix::io::read(&self.wake, &mut count);
    }
}

/// Starts a thread that does jobs one after the other, and rings when it has an answer.
fn spawn<Job: Send + 'static, Answer: Send + 'static>(
    name: &str,
    wake: &Arc<OwnedFd>,
    mut work: impl FnMut(Job) -> Option<Answer> + Send + 'static,
) -> Result<(Receiver<Answer>, Sender<Job>), LoopError> {
    let (jobs, from_loop) = channel::<Job>();
    let (to_loop, answers) = channel::<Answer>();
    let wake = Arc::clone(wake);
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            while let Ok(job) = from_loop.recv() {
                if let Some(answer) = work(job) {
                    if to_loop.send(answer).is_err() {
                        return;
                    }
                    // A full counter rings as well.
                    let _rung = rustix::io::write(&wake, &1u64.to_ne_bytes());
                }
            }
        })?;
    Ok((answers, jobs))
}

impl EventLoop {
    /// Starts the threads: call after the lockdown, which they inherit.
    pub(crate) fn start(
        others: Others,
        reporter: Reporter,
        termination: Termination,
        shared: Shared,
        tables: TableWorker,
        names: NameWorker,
    ) -> Result<Self, LoopError> {
        Ok(Self {
            engine: Engine::default(),
            others,
            sampler: None,
            sampler_queue: VecDeque::new(),
            reporter,
            termination,
            shared,
            threads: Threads::start(tables, names)?,
            violations: BTreeMap::new(),
        })
    }

    /// Runs until the process is asked to end and what it has is delivered.
    pub(crate) fn run(&mut self) -> Result<(), LoopError> {
        let mut ending: Option<u64> = None;
        let mut reads = true;
        loop {
            self.wait(ending.is_some())?;
            let now = monotonic();
            if self.termination.asked() && ending.is_none() {
                ending = Some(now);
            }
            self.hear(now, reads)?;
            self.engine.on_tick(now);
            self.act(now);
            self.send();
            if self.reporter.is_due(now) {
                self.report(now, false);
            }
            let Some(asked) = ending else { continue };
            let waited = now.saturating_sub(asked);
            let cut_off = self.sampler.is_none()
                || self.engine.is_last_seen()
                || waited >= LAST_WINDOW_PATIENCE;
            if reads && cut_off {
                reads = false;
                self.engine.on_sampler_down(now);
                self.act(now);
                self.send();
            }
            if !reads && self.engine.is_done() || waited >= END_PATIENCE {
                return self.finish(now);
            }
        }
    }

    /// Tells everybody what they still must know.
    fn finish(&mut self, now: u64) -> Result<(), LoopError> {
        self.engine.give_up();
        self.act(now);
        self.send();
        self.report(now, true);
        let quarantine = &self.shared.quarantine;
        quarantine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear_all();
        Ok(())
    }

    fn wait(&self, ends: bool) -> Result<(), LoopError> {
        let mut fds = vec![
            PollFd::new(&self.termination, PollFlags::IN),
            PollFd::new(&self.threads.wake, PollFlags::IN),
            PollFd::new(&self.others.listener, PollFlags::IN),
        ];
        if let Some(link) = &self.sampler {
            fds.push(PollFd::new(link, interest(!self.sampler_queue.is_empty())));
        }
        let shipper = self.others.shipper.fd().map(|(fd, _)| {
            // What it does not take is the engine's to keep.
            (fd, self.engine.delivery.next().is_some())
        });
        let connected = [self.others.opener.fd(), shipper, self.others.uploader.fd()];
        for (fd, sends) in connected.into_iter().flatten() {
            fds.push(PollFd::from_borrowed_fd(fd, interest(sends)));
        }
        let now = monotonic();
        let mut wait = self.reporter.pause(now);
        if ends || !(self.others.opener.is_up() && self.others.shipper.is_up()) {
            wait = wait.min(CONNECT_WAIT);
        }
        if let Some(next) = self.engine.next_tick() {
            wait = wait.min(next.saturating_sub(now));
        }
        match poll(&mut fds, Some(&timespec(wait))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn hear(&mut self, now: u64, reads: bool) -> Result<(), LoopError> {
        if self.others.opener.connect(now) {
            self.others.opener.forget();
            self.engine.on_opener_up();
        }
        let uploader_was_up = self.others.uploader.is_up();
        if self.others.uploader.connect(now) {
            self.others.uploader.forget();
        }
        if reads {
            self.hear_sampler(now);
        }
        while let Some(received) = self.others.opener.receive() {
            let OpenerReply::Opened(opened) = received.message;
            let file = received.fds.into_iter().next().map(File::from);
            self.engine.on_opened(&opened, file, now);
        }
        self.hear_shipper(now);
        while let Some(received) = self.others.uploader.receive() {
            match received.message {
                VerdictMessage::Verdict(verdict) if verdict.verdict == Verdict::Busy as u8 => {
                    self.engine.on_offer_refused(&verdict.build_id, now);
                }
                VerdictMessage::Verdict(_) => {}
                VerdictMessage::Room(room) => self.engine.on_offer_room(room.offers, now),
            }
        }
        if uploader_was_up && !self.others.uploader.is_up() {
            self.engine.on_uploader_down();
        }
        self.threads.quiet();
        loop {
            match self.threads.found.try_recv() {
                Ok((key, result)) => self.engine.on_table(key, result, now),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(LoopError::ThreadEnded),
            }
        }
        loop {
            match self.threads.named.try_recv() {
                Ok(answer) => self.engine.on_named(answer, now),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(LoopError::ThreadEnded),
            }
        }
    }

    fn hear_shipper(&mut self, now: u64) {
        let was_up = self.others.shipper.is_up();
        while let Some(received) = self.others.shipper.receive() {
            let ShipperMessage::Taken(taken) = received.message;
            self.engine.on_shipper_taken(taken.window);
        }
        if was_up && !self.others.shipper.is_up() {
            self.engine.delivery.link_down();
        }
        self.others.shipper.connect(now);
    }

    fn hear_sampler(&mut self, now: u64) {
        let accepted =
            self.others
                .listener
                .accept(Role::Symbolizer, &[Role::Sampler], &self.others.peers);
        match accepted {
            Ok(Some(link)) if self.sampler.is_none() => {
                self.sampler = Some(link);
                self.sampler_queue.clear();
                self.engine.on_sampler_up();
            }
            // One sampler at a time: another one tries again until this one's end was seen.
            Ok(Some(_second)) => log::warn!("a second sampler is turned away"),
            Ok(None) => {}
            Err(error) => self.note(&error),
        }
        for _ in 0..MAX_MESSAGES_AT_ONCE {
            let Some(link) = &mut self.sampler else {
                return;
            };
            match link.receive() {
                Ok(Some(received)) => {
                    let files = received.fds.into_iter().map(File::from).collect();
                    if let Err(violation) = self.engine.on_sampler(received.message, files, now) {
                        log::warn!("the sampler's link is closed: it sent {violation}");
                        *self.violations.entry("content").or_default() += 1;
                        return self.close_sampler(now);
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.note(&error);
                    return self.close_sampler(now);
                }
            }
        }
    }

    fn close_sampler(&mut self, now: u64) {
        self.sampler = None;
        self.sampler_queue.clear();
        self.engine.on_sampler_down(now);
    }

    fn note(&mut self, error: &LinkError) {
        if let LinkError::Violation(violation) = error {
            log::warn!("the sampler's link is closed: {error}");
            *self.violations.entry(violation.name()).or_default() += 1;
        } else {
            log::info!("the sampler's link ended: {error}");
        }
    }

    fn act(&mut self, now: u64) {
        for action in self.engine.take_actions() {
            match action {
                Action::TellSampler(message, table) => self.tell_sampler(message, table, now),
                Action::Ask(request) => self.others.opener.queue(request, Vec::new()),
                Action::Offer(offer, files) => {
                    let message = OfferMessage::Offer(offer);
                    let fds = files.into_iter().map(OwnedFd::from).collect();
                    self.others.uploader.queue(message, fds);
                }
                // A thread that ended is noticed where its answers are taken.
                Action::FindTable(job) => drop(self.threads.tables.send(job)),
                Action::Name(request) => drop(self.threads.names.send(request)),
            }
        }
    }

    fn tell_sampler(&mut self, message: SymbolizerMessage, table: Option<Arc<Vec<u8>>>, now: u64) {
        if self.sampler.is_none() {
            return;
        }
        let fd = match table.map(|table| memfd::sealed(&table)).transpose() {
            Ok(fd) => fd,
            Err(error) => {
                log::warn!("cannot hand a table over: {error}");
                return;
            }
        };
        if self.sampler_queue.len() >= MAX_SAMPLER_QUEUE {
            log::warn!("the sampler's link is closed: it does not read");
            *self.violations.entry("not_reading").or_default() += 1;
            return self.close_sampler(now);
        }
        self.sampler_queue.push_back((message, fd));
    }

    fn send(&mut self) {
        self.send_to_sampler();
        self.others.opener.flush();
        self.others.uploader.flush();
        while let Some(message) = self.engine.delivery.next() {
            if !self.others.shipper.send(message) {
                break;
            }
            self.engine.delivery.sent();
        }
        if !self.others.shipper.is_up() {
            self.engine.delivery.link_down();
        }
    }

    fn send_to_sampler(&mut self) {
        while let (Some(link), Some((message, fd))) =
            (&mut self.sampler, self.sampler_queue.front())
        {
            let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
            match link.send(message, &fds) {
                Ok(Sent::Done) => self.sampler_queue.pop_front(),
                // What is wrong with the link shows when it is read.
                Ok(Sent::WouldBlock) | Err(_) => return,
            };
        }
    }

    fn report(&mut self, now: u64, last: bool) {
        let links = [
            ("samples", &self.violations),
            ("opener", &self.others.opener.violations),
            ("symbolized", &self.others.shipper.violations),
            ("debuginfo", &self.others.uploader.violations),
        ];
        let sources = Sources {
            engine: &self.engine,
            links,
            overflows: [
                ("opener", self.others.opener.overflows),
                ("debuginfo", self.others.uploader.overflows),
            ],
            shared: &self.shared,
        };
        self.reporter.report(now, metrics(&sources), last);
    }
}

fn interest(sends: bool) -> PollFlags {
    if sends {
        PollFlags::IN | PollFlags::OUT
    } else {
        PollFlags::IN
    }
}
