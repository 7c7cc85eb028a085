//! The thread that talks to the remote store: takes windows, asks the engine, sends, spools, says what is settled. Decides
//! nothing itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipc_endpoint::clock::nanoseconds;
use ipc_proto::symbolized::SymbolizedBatch;
use opentelemetry::trace::SpanContext;
use remote_store::{CallError, CallMetrics, RemoteStore};
use rustix::event::{EventfdFlags, eventfd};
use rustix::time::ClockId;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::engine::{Account, Engine, Note, Outgoing, Refusal, Shelf, Window};
use super::links::Links;
use super::parcel;
use super::protocol::Protocol;
use super::series::{self, Style};
use super::spool::Spool;
use crate::labels::Labelled;

/// Windows on their way to the thread.
const MAX_WINDOWS: usize = 16;
/// Shortest sleep: what may be sent at once is asked for before.
const SHORTEST: Duration = Duration::from_millis(50);
/// Longest sleep: age bounds are looked at so often.
const LONGEST: Duration = Duration::from_secs(30);
/// What is under way at the end may take so long; then it is spooled.
const LAST_ANSWER: Duration = Duration::from_millis(300);
/// Bytes of one parcel before compression: with several in a request, one of them is soon found.
pub const PARCEL_BYTES: usize = 1 << 20;

/// A window with its labels.
#[derive(Debug)]
pub struct Submission {
    /// The window.
    pub batch: SymbolizedBatch,
    /// Its labels.
    pub labelled: Labelled,
    /// Its span: what is made of it links there.
    pub span: Option<SpanContext>,
}

/// Everything the thread needs, made while files may still be opened.
pub struct Prepared {
    /// Where to send.
    pub store: RemoteStore,
    /// In whose words.
    pub protocol: Box<dyn Protocol>,
    /// Where to keep.
    pub spool: Spool,
    /// What decides.
    pub engine: Engine,
    /// What profiles carry.
    pub style: Style,
    /// What runs it.
    pub runtime: tokio::runtime::Runtime,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("Prepared");
        shown.field("store", &self.store).finish_non_exhaustive()
    }
}

/// What the metrics show.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The account.
    pub account: Account,
    /// Samples in the spool.
    pub spooled: u64,
    /// Bytes of the spool.
    pub spool_bytes: u64,
    /// Parcels in the spool.
    pub spool_parcels: usize,
    /// Files that a killed run left half written.
    pub torn: u64,
    /// Whether the last request failed.
    pub away: bool,
}

/// The running thread.
#[derive(Debug)]
pub struct Remote {
    windows: Option<Sender<Submission>>,
    settled: std::sync::mpsc::Receiver<Window>,
    wake: Arc<OwnedFd>,
    snapshot: Arc<Mutex<Snapshot>>,
    calls: CallMetrics,
    thread: Option<JoinHandle<()>>,
}

impl Remote {
    /// Starts the thread; call after the lockdown.
    ///
    /// # Errors
    /// No thread, or no descriptor.
    pub fn start(prepared: Prepared) -> io::Result<Self> {
        let (windows, receiver) = mpsc::channel(MAX_WINDOWS);
        let (sender, settled) = std::sync::mpsc::channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let snapshot = Arc::new(Mutex::new(Snapshot::default()));
        let calls = prepared.store.metrics().clone();
        let Prepared {
            store,
            protocol,
            spool,
            engine,
            style,
            runtime,
        } = prepared;
        let worker = Worker {
            store,
            protocol: protocol.into(),
            spool,
            engine,
            style,
            links: Links::default(),
            began: Instant::now(),
            settled: sender,
            wake: Arc::clone(&wake),
            snapshot: Arc::clone(&snapshot),
        };
        let thread = std::thread::Builder::new()
            .name("remote-store".to_owned())
            .spawn(move || runtime.block_on(worker.run(receiver)))?;
        Ok(Self {
            windows: Some(windows),
            settled,
            wake,
            snapshot,
            calls,
            thread: Some(thread),
        })
    }

    /// Hands a window over; gives it back when too many wait.
    ///
    /// # Errors
    /// The window.
    pub fn submit(&self, submission: Submission) -> Result<(), Box<Submission>> {
        match &self.windows {
            Some(windows) => windows
                .try_send(submission)
                .map_err(|error| Box::new(error.into_inner())),
            None => Err(Box::new(submission)),
        }
    }

    /// Windows that are delivered, dropped or on disk since the last call.
    #[must_use]
    pub fn take_settled(&self) -> Vec<Window> {
        let mut count = [0; 8];
        // Nothing to read: nothing new.
        let _ = rustix::io::read(&*self.wake, &mut count);
        self.settled.try_iter().collect()
    }

    /// What the metrics show.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let snapshot = self.snapshot.lock();
        snapshot.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls to the store.
    #[must_use]
    pub fn calls(&self) -> &CallMetrics {
        &self.calls
    }

    /// Ends the thread: what it holds is spooled then.
    pub fn finish(&mut self) {
        self.windows = None;
        if let Some(thread) = self.thread.take() {
            // A panic aborts the process: there is no other failure.
            let _ = thread.join();
        }
    }
}

impl AsFd for Remote {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

type Flight = Pin<Box<dyn Future<Output = Result<(), CallError>>>>;

struct Worker {
    store: RemoteStore,
    protocol: Arc<dyn Protocol>,
    spool: Spool,
    engine: Engine,
    style: Style,
    links: Links,
    began: Instant,
    settled: std::sync::mpsc::Sender<Window>,
    wake: Arc<OwnedFd>,
    snapshot: Arc<Mutex<Snapshot>>,
}

impl Worker {
    async fn run(mut self, mut windows: Receiver<Submission>) {
        let mut flight: Option<Flight> = None;
        loop {
            self.expire();
            if flight.is_none() {
                let next = self.engine.next_request(self.now(), &mut self.spool);
                flight = next.map(|outgoing| self.send(outgoing));
            }
            self.publish();
            let sleep = self.sleep();
            tokio::select! {
                window = windows.recv() => match window {
                    Some(submission) => self.take(&submission),
                    None => break,
                },
                answer = answer(&mut flight) => {
                    flight = None;
                    self.on_answer(answer);
                }
                () = tokio::time::sleep(sleep) => {}
            }
        }
        if let Some(flight) = flight
            && let Ok(answer) = tokio::time::timeout(LAST_ANSWER, flight).await
        {
            self.on_answer(answer);
        }
        self.engine.finish(&mut self.spool);
        self.publish();
    }

    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep(&self) -> Duration {
        let next = self.engine.next_time(&self.spool).unwrap_or(u64::MAX);
        Duration::from_nanos(next.saturating_sub(self.now())).clamp(SHORTEST, LONGEST)
    }

    fn expire(&mut self) {
        let now = nanoseconds(ClockId::Realtime);
        while let Some(dropped) = self.spool.expire(now) {
            self.engine.on_dropped([dropped]);
        }
    }

    fn take(&mut self, submission: &Submission) {
        let Submission {
            batch,
            labelled,
            span,
        } = submission;
        let window = (batch.start, batch.window.0);
        self.links.add(window, span.clone());
        match series::build(batch, labelled, self.style) {
            Ok(series) => {
                let parcels = parcel::pack(batch.start, batch.window.0, series, PARCEL_BYTES);
                let now = self.now();
                self.engine.on_window(window, parcels, now, &mut self.spool);
                if batch.last {
                    self.engine.on_last(&mut self.spool);
                }
            }
            // The event loop has checked it by building the local profile.
            Err(fault) => log::error!("a checked window {fault}"),
        }
    }

    fn send(&self, outgoing: Outgoing) -> Flight {
        let (store, protocol) = (self.store.clone(), Arc::clone(&self.protocol));
        let limit = store.settings().unary_timeout;
        let write = self.links.write(&outgoing);
        Box::pin(async move {
            let parcels: Vec<_> = outgoing.parcels.into_iter().map(|(_, one)| one).collect();
            let answer = write.of(protocol.send(&store, &parcels, limit)).await;
            if let Err(error) = &answer {
                write.fail(error);
            }
            answer
        })
    }

    fn on_answer(&mut self, answer: Result<(), CallError>) {
        let answer = answer.map_err(|error| Refusal {
            verdict: error.verdict(),
            code: remote_store::verdict::code_name(error.code()),
            text: error.to_string(),
        });
        let (now, jitter) = (self.now(), jitter());
        self.engine.on_answer(answer, now, jitter, &mut self.spool);
    }

    fn publish(&mut self) {
        for note in self.engine.take_notes() {
            self.say(&note);
        }
        let snapshot = Snapshot {
            account: self.engine.account().clone(),
            spooled: self.spool.samples(),
            spool_bytes: self.spool.bytes(),
            spool_parcels: self.spool.entries().len(),
            torn: self.spool.torn(),
            away: self.engine.is_away(),
        };
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        let settled = self.engine.take_settled();
        if settled.is_empty() {
            return;
        }
        for window in settled {
            // The event loop ends after this thread.
            let _ = self.settled.send(window);
        }
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    fn say(&self, note: &Note) {
        let address = self.store.address();
        match note {
            Note::StoreAway(refusal) => log::warn!(
                "cannot send profiles to {address}: {}; they wait in {} until it works again",
                refusal.text,
                self.spool.path().display()
            ),
            Note::StoreBack { spooled } => {
                log::info!("profiles are sent to {address} again; {spooled} samples are spooled");
            }
            Note::GivenUp { samples, refusal } => log::warn!(
                "{address} does not take {samples} samples: {}; they are dropped",
                refusal.text
            ),
            Note::SpoolFails(error) => log::warn!(
                "cannot spool profiles in {}: {error}; they are kept in memory as far as they fit",
                self.spool.path().display()
            ),
            Note::Damaged(key, error) => log::warn!(
                "record {key} of {} is dropped: {error}",
                self.spool.path().display()
            ),
        }
    }
}

async fn answer(flight: &mut Option<Flight>) -> Result<(), CallError> {
    match flight {
        Some(flight) => flight.await,
        None => std::future::pending().await,
    }
}

/// From 0 to 1, different on each machine.
fn jitter() -> f64 {
    let mut bytes = [0; 4];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
