//! Accepts the symbolizer, receives its windows one at a time, executes the engine's actions. Decides nothing itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use ipc_endpoint::clock::{monotonic, nanoseconds};
use ipc_endpoint::histogram::Histogram;
use ipc_endpoint::link::{Link, LinkError, Sent};
use ipc_endpoint::listener::Listener;
use ipc_endpoint::peers::Peers;
use ipc_endpoint::settings::Publisher;
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_proto::hello::Role;
use ipc_proto::sample::Taken;
use ipc_proto::symbolized::{ShipperMessage, SymbolizedBatch, SymbolizedMessage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::ClockId;
use traces::{Traces, Work};

use crate::engine::{Action, Engine};
use crate::labels::{Labelled, Labeller};
use crate::metrics::{metrics, remote_metrics};
use crate::reload::Reload;
use crate::remote::runtime::{Remote, Submission};
use crate::store::LocalStore;
use crate::window_span::WindowSpans;

/// Links at once: the symbolizer's, and the one of its successor.
const MAX_LINKS: usize = 2;
/// Acknowledgements that may wait for a symbolizer that does not read; then its link is closed.
const MAX_ACKNOWLEDGEMENTS: usize = 256;

#[derive(Debug)]
struct Client {
    link: Link<ShipperMessage, SymbolizedMessage>,
    acknowledgements: VecDeque<Taken>,
}

/// Everything the loop waits for and acts on.
#[derive(Debug)]
pub struct EventLoop {
    /// Where the symbolizer connects.
    pub listener: Listener,
    /// Who may.
    pub peers: Peers,
    /// What gives samples their labels.
    pub labeller: Labeller,
    /// What decides.
    pub engine: Engine,
    /// Where profiles go.
    pub store: LocalStore,
    /// Where metrics go.
    pub reporter: Reporter,
    /// Says when to end.
    pub termination: Termination,
    /// The way to the remote store, where there is one.
    pub remote: Option<Remote>,
    /// The configuration file.
    pub reload: Option<Reload>,
    /// Who tells the others of it.
    pub publisher: Option<Publisher>,
    windows: WindowSpans,
    /// What sends traces, where somebody asked for them; it ends behind the last window.
    pub traces: Option<Traces>,
    clients: Vec<Client>,
    violations: BTreeMap<&'static str, u64>,
    /// How long writing into the store took.
    writing: Histogram,
    /// Samples of windows that the way to the remote store had no room for.
    refused: u64,
}

impl EventLoop {
    /// Nobody is connected yet.
    pub fn new(
        listener: Listener,
        peers: Peers,
        labeller: Labeller,
        engine: Engine,
        store: LocalStore,
        reporter: Reporter,
        termination: Termination,
    ) -> Self {
        Self {
            listener,
            peers,
            labeller,
            engine,
            store,
            reporter,
            termination,
            remote: None,
            reload: None,
            publisher: None,
            traces: None,
            windows: WindowSpans::default(),
            refused: 0,
            clients: Vec::new(),
            violations: BTreeMap::new(),
            writing: Histogram::default(),
        }
    }

    /// Windows go to the remote store, too.
    #[must_use]
    pub fn with_remote(self, remote: Option<Remote>) -> Self {
        Self { remote, ..self }
    }

    /// Windows are traced.
    #[must_use]
    pub fn with_traces(self, traces: Option<Traces>) -> Self {
        Self { traces, ..self }
    }

    /// Settings follow the configuration file.
    #[must_use]
    pub fn with_settings(self, reload: Reload, publisher: Option<Publisher>) -> Self {
        let mut with = Self {
            reload: Some(reload),
            publisher,
            ..self
        };
        with.apply_settings();
        with
    }

    /// From the next window on what the file says holds.
    fn apply_settings(&mut self) {
        let Some(reload) = &self.reload else { return };
        self.labeller.set_rules(reload.settings().rules().to_vec());
        self.labeller.set_base(&reload.labels());
        if let Some(level) = reload.log_level() {
            log::set_max_level(level);
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.publish(reload.published());
        }
    }

    /// Runs until the process is asked to end; what the symbolizer sent before is stored.
    ///
    /// # Errors
    /// The kernel refused to wait.
    pub fn run(&mut self) -> Result<(), Errno> {
        loop {
            self.wait()?;
            let ends = self.termination.asked();
            if self.reload.as_mut().is_some_and(Reload::look) {
                self.apply_settings();
            }
            if let Some(publisher) = &mut self.publisher {
                publisher.poll();
            }
            self.accept();
            for mut client in std::mem::take(&mut self.clients) {
                match self.serve(&mut client) {
                    Ok(()) => self.clients.push(client),
                    Err(error) => self.note(&error),
                }
            }
            if ends && let Some(remote) = &mut self.remote {
                remote.finish();
            }
            self.settle();
            let now = monotonic();
            if ends || self.reporter.is_due(now) {
                let mut metrics = metrics(
                    self.engine.account(),
                    &self.labeller.counts(),
                    &self.store,
                    &self.violations,
                    &self.writing,
                );
                metrics.extend(self.reload.iter().flat_map(Reload::metrics));
                metrics.extend(self.traces.iter().flat_map(Traces::metrics));
                if let Some(remote) = &self.remote {
                    metrics.extend(remote_metrics(remote, self.refused));
                }
                self.reporter.report(now, metrics, ends);
            }
            if ends {
                self.say_last_words();
                return Ok(());
            }
        }
    }

    fn wait(&self) -> Result<(), Errno> {
        let mut fds = vec![PollFd::new(&self.termination, PollFlags::IN)];
        if self.clients.len() < MAX_LINKS {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        fds.extend(
            self.remote
                .iter()
                .map(|remote| PollFd::new(remote, PollFlags::IN)),
        );
        let settings = self.reload.iter().flat_map(Reload::fds);
        let subscribers = self.publisher.iter().flat_map(Publisher::fds);
        fds.extend(
            settings
                .chain(subscribers)
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        fds.extend(self.clients.iter().map(|client| {
            let out = if client.acknowledgements.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::OUT
            };
            PollFd::new(&client.link, PollFlags::IN | out)
        }));
        let timeout = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn accept(&mut self) {
        while self.clients.len() < MAX_LINKS {
            let roles = [Role::Symbolizer];
            match self.listener.accept(Role::Shipper, &roles, &self.peers) {
                Ok(Some(link)) => self.clients.push(Client {
                    link,
                    acknowledgements: VecDeque::new(),
                }),
                Ok(None) => return,
                Err(error) => self.note(&error),
            }
        }
    }

    fn serve(&mut self, client: &mut Client) -> Result<(), LinkError> {
        while client.acknowledgements.len() < MAX_ACKNOWLEDGEMENTS {
            let Some(received) = client.link.receive()? else {
                break;
            };
            if !received.fds.is_empty() {
                return Err(ipc_endpoint::link::Violation::Descriptors(received.fds.len()).into());
            }
            let SymbolizedMessage::Batch(batch) = received.message;
            let window = self.windows.begin(&batch);
            let labels = window.part("labels");
            let labelled = self.labeller.label(&batch, monotonic());
            drop(labels);
            let profile = window.part("profile");
            let action = labelled.and_then(|labelled| {
                let action = self.engine.on_batch(&batch, &labelled)?;
                Ok((action, labelled))
            });
            drop(profile);
            match action {
                Ok((action, labelled)) => {
                    self.act(client, action);
                    self.submit(client, batch, labelled);
                }
                Err(fault) => {
                    window.fail(&fault);
                    self.windows.end(batch.start, batch.window.0);
                    log::warn!("the symbolizer sent a batch that {fault}: its link is closed");
                    *self.violations.entry("batch").or_default() += 1;
                    return Err(LinkError::Closed);
                }
            }
        }
        acknowledge(client)
    }

    /// Hands a window on to the remote store's thread.
    fn submit(&mut self, client: &mut Client, batch: SymbolizedBatch, labelled: Labelled) {
        let (start, window) = (batch.start, batch.window.0);
        let Some(remote) = &self.remote else {
            self.windows.end(start, window);
            return;
        };
        let span = self.windows.get(start, window).map(Work::span_context);
        if let Err(refused) = remote.submit(Submission {
            batch,
            labelled,
            span,
        }) {
            self.windows.end(start, window);
            let batch = refused.batch;
            let samples = batch.samples.0.iter().map(|sample| sample.count);
            self.refused = samples.fold(self.refused, u64::saturating_add);
            if let Some(action) = self.engine.on_settled(start, window) {
                self.act(client, action);
            }
        }
    }

    /// Acknowledges what the remote store's thread has settled, to whoever listens now.
    fn settle(&mut self) {
        let Some(remote) = &self.remote else { return };
        for (start, window) in remote.take_settled() {
            self.windows.end(start, window);
            if let Some(Action::Acknowledge(taken)) = self.engine.on_settled(start, window) {
                for client in &mut self.clients {
                    client.acknowledgements.push_back(taken.clone());
                }
            }
        }
    }

    /// What was settled at the end is still told: who does not read now never will.
    fn say_last_words(&mut self) {
        for client in &mut self.clients {
            let _nobody_reads = acknowledge(client);
        }
    }

    fn act(&mut self, client: &mut Client, action: Action) {
        match action {
            Action::Store(outgoing) => {
                let now_millis = nanoseconds(ClockId::Realtime) / 1_000_000;
                let window = self.windows.get(outgoing.start_nanos, outgoing.window.0);
                let span = window.map(|window| window.part("store"));
                let begun = Instant::now();
                let result = self
                    .store
                    .write(outgoing.start, &outgoing.profile, now_millis);
                self.writing.observe(begun.elapsed());
                if let (Some(span), Err(error)) = (&span, &result) {
                    span.fail(error);
                }
                drop(span);
                for action in self.engine.on_stored(&outgoing, result) {
                    self.act(client, action);
                }
            }
            Action::Acknowledge(taken) => client.acknowledgements.push_back(taken),
            Action::WarnStore(error) => log::warn!(
                "cannot store profiles in {}: {error}; their samples are dropped and counted until it works again",
                self.store.path().display()
            ),
            Action::StoreRecovered { dropped } => log::info!(
                "profiles are stored in {} again; {dropped} samples were dropped meanwhile",
                self.store.path().display()
            ),
        }
    }

    fn note(&mut self, error: &LinkError) {
        if let LinkError::Violation(violation) = error {
            log::warn!("the symbolizer's link is closed: {error}");
            *self.violations.entry(violation.name()).or_default() += 1;
        } else {
            log::info!("the symbolizer's link ended: {error}");
        }
    }
}

/// Says what is settled, as far as the peer reads.
fn acknowledge(client: &mut Client) -> Result<(), LinkError> {
    while let Some(taken) = client.acknowledgements.front() {
        match client
            .link
            .send(&ShipperMessage::Taken(taken.clone()), &[])?
        {
            Sent::Done => client.acknowledgements.pop_front(),
            Sent::WouldBlock => break,
        };
    }
    Ok(())
}
