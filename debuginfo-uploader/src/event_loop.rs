//! Accepts the symbolizer, takes its offers, answers verdicts, hands jobs to the thread that uploads. Decides nothing
//! itself.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipc_endpoint::clock::{monotonic, timespec};
use ipc_endpoint::link::{Link, LinkError, Received, Sent, Violation};
use ipc_endpoint::listener::Listener;
use ipc_endpoint::peers::Peers;
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_proto::debuginfo::{DebuginfoVerdict, OfferMessage, OfferRoom, Verdict, VerdictMessage};
use ipc_proto::hello::Role;
use ipc_proto::ids::BuildId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use thiserror::Error;
use traces::Traces;

use crate::ROLE;
use crate::engine::{Engine, Then};
use crate::metrics::metrics;
use crate::offered_file;
use crate::outcome::Outcome;
use crate::outcome_log::{OutcomeLog, hexadecimal};
use crate::upload::{Context, Files};
use crate::uploads::Uploads;

/// Links at once: the symbolizer, and one that replaces it.
const MAX_LINKS: usize = 2;
/// Verdicts that may wait for a peer that does not read; it is not heard before it takes some.
const MAX_VERDICTS: usize = 256;

/// Why the loop can't go on.
#[derive(Debug, Error)]
pub(crate) enum LoopError {
    /// The kernel refused to wait.
    #[error("cannot wait for messages: {0}")]
    Wait(#[from] Errno),
    /// The thread that uploads ended.
    #[error("the thread that uploads ended unexpectedly")]
    ThreadEnded,
}

struct Client {
    link: Link<VerdictMessage, OfferMessage>,
    verdicts: VecDeque<VerdictMessage>,
}

impl Client {
    fn tell(&mut self, build_id: BuildId, verdict: Verdict) {
        self.verdicts
            .push_back(VerdictMessage::Verdict(DebuginfoVerdict {
                build_id,
                verdict: verdict as u8,
            }));
    }

    fn give_room(&mut self, offers: usize) {
        if let Ok(offers) = u32::try_from(offers)
            && offers > 0
        {
            self.verdicts
                .push_back(VerdictMessage::Room(OfferRoom { offers }));
        }
    }
}

/// The executable, and the debug file where one was announced.
fn take_files(
    fds: Vec<OwnedFd>,
    with_debug_file: bool,
) -> Result<(OwnedFd, Option<OwnedFd>), Violation> {
    let found = fds.len();
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next(), with_debug_file) {
        (Some(executable), None, false) => Ok((executable, None)),
        (Some(executable), Some(debug_file), true) => Ok((executable, Some(debug_file))),
        _ => Err(Violation::Descriptors(found)),
    }
}

/// Everything the loop waits for and acts on.
pub(crate) struct EventLoop {
    listener: Listener,
    peers: Peers,
    engine: Engine,
    /// What uploads; none without a store.
    uploads: Option<(Arc<Context>, Uploads)>,
    /// The open files of the engine's jobs: the executable, and its debug file.
    files: HashMap<BuildId, (File, Option<File>)>,
    reporter: Reporter,
    termination: Termination,
    clients: Vec<Client>,
    violations: BTreeMap<&'static str, u64>,
    log: OutcomeLog,
    /// What sends traces, where somebody asked for them.
    traces: Option<Traces>,
}

impl EventLoop {
    /// Nobody is connected yet.
    pub(crate) fn new(
        listener: Listener,
        peers: Peers,
        engine: Engine,
        uploads: Option<(Arc<Context>, Uploads)>,
        reporter: Reporter,
        termination: Termination,
    ) -> Self {
        Self {
            listener,
            peers,
            engine,
            uploads,
            files: HashMap::new(),
            reporter,
            termination,
            clients: Vec::new(),
            violations: BTreeMap::new(),
            log: OutcomeLog::default(),
            traces: None,
        }
    }

    /// Uploads are traced.
    pub(crate) fn with_traces(self, traces: Option<Traces>) -> Self {
        Self { traces, ..self }
    }

    /// Runs until the process is asked to end.
    pub(crate) fn run(&mut self) -> Result<(), LoopError> {
        loop {
            self.wait()?;
            let now = monotonic();
            if self.termination.asked() {
                self.report(now, true);
                // What is under way is called off.
                self.uploads = None;
                return Ok(());
            }
            self.accept();
            for mut client in std::mem::take(&mut self.clients) {
                match self.serve(&mut client, now) {
                    Ok(()) => self.clients.push(client),
                    Err(error) => self.note(&error),
                }
            }
            self.begin(now);
            self.collect(now)?;
            if self.reporter.is_due(now) {
                self.report(now, false);
            }
        }
    }

    fn wait(&self) -> Result<(), Errno> {
        let mut fds = vec![PollFd::new(&self.termination, PollFlags::IN)];
        if let Some((_, uploads)) = &self.uploads {
            fds.push(PollFd::new(uploads, PollFlags::IN));
        }
        if self.clients.len() < MAX_LINKS {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        fds.extend(self.clients.iter().map(|client| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, client.verdicts.len() < MAX_VERDICTS);
            flags.set(PollFlags::OUT, !client.verdicts.is_empty());
            PollFd::new(&client.link, flags)
        }));
        let now = monotonic();
        let due = self.engine.next_due().unwrap_or(u64::MAX);
        let wait = due.saturating_sub(now).min(self.reporter.pause(now));
        match poll(&mut fds, Some(&timespec(wait))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn accept(&mut self) {
        while self.clients.len() < MAX_LINKS {
            match self.listener.accept(ROLE, &[Role::Symbolizer], &self.peers) {
                Ok(Some(link)) => {
                    let mut client = Client {
                        link,
                        verdicts: VecDeque::new(),
                    };
                    client.give_room(self.engine.room());
                    self.clients.push(client);
                }
                Ok(None) => return,
                Err(error) => self.note(&error),
            }
        }
    }

    fn serve(&mut self, client: &mut Client, now: u64) -> Result<(), LinkError> {
        while client.verdicts.len() < MAX_VERDICTS {
            let Some(Received { message, fds }) = client.link.receive()? else {
                break;
            };
            let OfferMessage::Offer(offer) = message;
            let (executable, debug_file) = take_files(fds, offer.debug_size != 0)?;
            let mut checked = offered_file::check(&executable, offer.size);
            if let (Ok(()), Some(file)) = (&checked, &debug_file) {
                checked = offered_file::check(file, offer.debug_size);
            }
            let verdict = self.engine.on_offer(&offer, checked, now);
            if verdict == Verdict::Accepted {
                let files = (executable.into(), debug_file.map(File::from));
                self.files.insert(offer.build_id.clone(), files);
            }
            client.tell(offer.build_id, verdict);
            if matches!(verdict, Verdict::Known | Verdict::Refused) {
                client.give_room(1);
            }
        }
        while let Some(verdict) = client.verdicts.front() {
            match client.link.send(verdict, &[])? {
                Sent::Done => client.verdicts.pop_front(),
                Sent::WouldBlock => break,
            };
        }
        Ok(())
    }

    /// Starts what is due.
    fn begin(&mut self, now: u64) {
        let Some((_, uploads)) = &self.uploads else {
            return;
        };
        while let Some(build_id) = self.engine.next(now) {
            let copies = self.files.get(&build_id).map(|(executable, debug_file)| {
                let debug_file = debug_file.as_ref().map(File::try_clone).transpose();
                Ok::<_, std::io::Error>((executable.try_clone()?, debug_file?))
            });
            match copies {
                Some(Ok((executable, debug_file))) => {
                    let files = Files {
                        build_id: hexadecimal(&build_id),
                        executable,
                        debug_file,
                    };
                    uploads.begin((build_id, files));
                }
                Some(Err(error)) => {
                    let outcome = Outcome::no_descriptor(&error);
                    self.engine.on_outcome(&build_id, &outcome, now);
                }
                None => {
                    self.engine.on_outcome(&build_id, &Outcome::Exists, now);
                }
            }
        }
    }

    /// Takes what ended.
    fn collect(&mut self, now: u64) -> Result<(), LoopError> {
        let Some((_, uploads)) = &self.uploads else {
            return Ok(());
        };
        let outcomes = uploads.collect().ok_or(LoopError::ThreadEnded)?;
        for (build_id, outcome) in outcomes {
            self.log
                .tell(self.engine.path(&build_id), &build_id, &outcome);
            let then = self.engine.on_outcome(&build_id, &outcome, now);
            if then == Then::Keep {
                continue;
            }
            self.files.remove(&build_id);
            // The symbolizer that connected last is the one that lives.
            if let Some(client) = self.clients.last_mut() {
                if then == Then::OfferAgain {
                    client.tell(build_id, Verdict::Busy);
                }
                client.give_room(1);
            }
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
        let context = self.uploads.as_ref().map(|(context, _)| &**context);
        let mut metrics = metrics(&self.engine, context, &self.violations);
        metrics.extend(self.traces.iter().flat_map(Traces::metrics));
        self.reporter.report(now, metrics, last);
    }
}
