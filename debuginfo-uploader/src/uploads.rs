//! The thread that uploads: jobs in, outcomes out. Everything asynchronous of this process is in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use ipc_proto::ids::BuildId;
use rustix::event::{EventfdFlags, eventfd};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::outcome::Outcome;
use crate::upload::{Context, Files};

/// Bytes of the thread's stack.
const STACK_BYTES: usize = 2 << 20;

/// A job: the engine says how many there are at once.
pub(crate) type Job = (BuildId, Files);

/// The thread, from the event loop's side.
#[derive(Debug)]
pub(crate) struct Uploads {
    jobs: Option<UnboundedSender<Job>>,
    outcomes: Receiver<(BuildId, Outcome)>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// The thread's way back.
struct Done {
    outcomes: Sender<(BuildId, Outcome)>,
    wake: Arc<OwnedFd>,
}

/// What the thread runs on. Starts no thread itself: made before the lockdown, as the channel to the store is.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(2)
        .thread_stack_size(STACK_BYTES)
        .build()
}

impl Uploads {
    /// Starts the thread: call after the lockdown, which it inherits.
    pub(crate) fn start(runtime: Runtime, context: Arc<Context>) -> std::io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags)?);
        let (jobs, inbox) = unbounded_channel();
        let (sender, outcomes) = channel();
        let done = Done {
            outcomes: sender,
            wake: Arc::clone(&wake),
        };
        let thread = std::thread::Builder::new()
            .name("uploads".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                runtime.block_on(work(context, inbox, done));
                // A file that is being extracted is not waited for.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            jobs: Some(jobs),
            outcomes,
            wake,
            thread: Some(thread),
        })
    }

    /// Hands a job over.
    pub(crate) fn begin(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // A thread that ended is noticed where its outcomes are taken.
            drop(jobs.send(job));
        }
    }

    /// The jobs that ended since the last call; `None`: the thread ended.
    pub(crate) fn collect(&self) -> Option<Vec<(BuildId, Outcome)>> {
        let mut count = [0; 8];
        // Nobody rang: the descriptor does not block.
        let _empty = rustix::io::read(&self.wake, &mut count);
        let outcomes = self.outcomes.try_iter().collect();
        let alive = self
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished());
        alive.then_some(outcomes)
    }
}

impl Drop for Uploads {
    /// Calls off what is under way: the store sees each stream reset, and takes no part of a file for all of it.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl AsFd for Uploads {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

async fn work(context: Arc<Context>, mut inbox: UnboundedReceiver<Job>, done: Done) {
    let mut uploads = JoinSet::new();
    loop {
        tokio::select! {
            job = inbox.recv() => match job {
                Some((build_id, files)) => {
                    let context = Arc::clone(&context);
                    uploads.spawn(async move { (build_id, context.upload(files).await) });
                }
                None => return,
            },
            Some(ended) = uploads.join_next() => {
                let Ok((build_id, outcome)) = ended else { continue };
                if done.outcomes.send((build_id, outcome)).is_err() {
                    return;
                }
                // A full counter rings as well.
                let _rung = rustix::io::write(&done.wake, &1u64.to_ne_bytes());
            }
        }
    }
}
