//! Threads that open files, so that one file system that does not answer holds up nobody but its own threads.
//!
//! Each worker has at most one job. A job that is late is given up: its worker is replaced and counts again once the
//! kernel lets go of it.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

use ipc_proto::opener::{OpenStatus, OpenerRequest};

use crate::engine::Ways;
use crate::files::OpenFile;

/// Workers that take jobs, and threads in all: as many may hang before nothing is opened any more.
const ACTIVE: usize = 2;
const MAX_THREADS: usize = 16;
/// How long a job may take, nanoseconds.
pub(crate) const DEADLINE: u64 = 2_000_000_000;
/// Bytes of a worker's stack: paths are walked in a loop.
const STACK_BYTES: usize = 128 << 10;

/// A file to be opened for a client.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) client: u64,
    pub(crate) request: OpenerRequest,
    pub(crate) ways: Ways,
}

/// What became of a job.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) client: u64,
    pub(crate) request: u64,
    pub(crate) pid: u32,
    pub(crate) result: Result<OpenFile, OpenStatus>,
}

/// Whose job, which, and since when.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    client: u64,
    request: u64,
    pid: u32,
    since: u64,
}

#[derive(Debug)]
enum State {
    Idle,
    Busy(Ticket),
    /// Its job was given up; the result will be thrown away.
    Late,
}

#[derive(Debug)]
struct Worker {
    jobs: SyncSender<Job>,
    state: State,
}

/// What a worker does with a job's request.
type Open = dyn Fn(&OpenerRequest, Ways) -> Result<OpenFile, OpenStatus> + Send + Sync;

/// The workers.
pub(crate) struct Workers {
    open: Arc<Open>,
    workers: Vec<Worker>,
    results: Receiver<(usize, Result<OpenFile, OpenStatus>)>,
    done: Done,
    wakeup: UnixStream,
}

/// The workers' way back: a result, then a byte that wakes the event loop.
#[derive(Debug)]
struct Done {
    results: std::sync::mpsc::Sender<(usize, Result<OpenFile, OpenStatus>)>,
    wakeup: UnixStream,
}

impl Workers {
    /// No thread runs yet.
    pub(crate) fn new(open: Box<Open>) -> std::io::Result<Self> {
        let (sender, results) = channel();
        let (wakeup, waker) = UnixStream::pair()?;
        wakeup.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        Ok(Self {
            open: Arc::from(open),
            workers: Vec::new(),
            results,
            done: Done {
                results: sender,
                wakeup: waker,
            },
            wakeup,
        })
    }

    /// Gives `job` to an idle worker; gives it back when there is none.
    pub(crate) fn take(&mut self, job: Job, now: u64) -> Result<(), Job> {
        let idle = |worker: &Worker| matches!(worker.state, State::Idle);
        let nth = match self.workers.iter().position(idle) {
            Some(nth) => nth,
            None => match self.start() {
                Some(nth) => nth,
                None => return Err(job),
            },
        };
        let Some(worker) = self.workers.get_mut(nth) else {
            return Err(job);
        };
        let ticket = Ticket {
            client: job.client,
            request: job.request.number(),
            pid: job.request.pid().0,
            since: now,
        };
        match worker.jobs.try_send(job) {
            Ok(()) => {
                worker.state = State::Busy(ticket);
                Ok(())
            }
            Err(refused) => {
                let (std::sync::mpsc::TrySendError::Full(job)
                | std::sync::mpsc::TrySendError::Disconnected(job)) = refused;
                Err(job)
            }
        }
    }

    /// Threads whose job was given up, and that have not come back.
    pub(crate) fn hanging(&self) -> usize {
        let late = |worker: &&Worker| matches!(worker.state, State::Late);
        self.workers.iter().filter(late).count()
    }

    /// Whether all threads there may be are held up: no job will be taken before one comes back.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.hanging() >= MAX_THREADS
    }

    /// Starts one more worker, if as many as shall be active are not.
    fn start(&mut self) -> Option<usize> {
        let nth = self.workers.len();
        if nth - self.hanging() >= ACTIVE || nth >= MAX_THREADS {
            return None;
        }
        let (jobs, inbox) = sync_channel::<Job>(1);
        let results = self.done.results.clone();
        let mut wakeup = self.done.wakeup.try_clone().ok()?;
        let open = Arc::clone(&self.open);
        let work = move || {
            for job in inbox {
                let result = open(&job.request, job.ways);
                if results.send((nth, result)).is_err() {
                    return;
                }
                // Full: the event loop has been woken often enough.
                let _full = wakeup.write(&[1]);
            }
        };
        thread::Builder::new()
            .name("open".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work)
            .inspect_err(|error| log::warn!("no thread to open files in: {error}"))
            .ok()?;
        self.workers.push(Worker {
            jobs,
            state: State::Idle,
        });
        Some(nth)
    }

    /// What was finished or given up until `now`.
    pub(crate) fn collect(&mut self, now: u64) -> Vec<Outcome> {
        let mut bytes = [0; 64];
        while matches!(self.wakeup.read(&mut bytes), Ok(count) if count == bytes.len()) {}
        let mut outcomes = Vec::new();
        while let Ok((nth, result)) = self.results.try_recv() {
            let Some(worker) = self.workers.get_mut(nth) else {
                continue;
            };
            if let State::Busy(ticket) = std::mem::replace(&mut worker.state, State::Idle) {
                outcomes.push(ticket.outcome(result));
            }
        }
        for worker in &mut self.workers {
            if let State::Busy(ticket) = worker.state
                && now.saturating_sub(ticket.since) >= DEADLINE
            {
                worker.state = State::Late;
                outcomes.push(ticket.outcome(Err(OpenStatus::TimedOut)));
            }
        }
        outcomes
    }
}

impl Ticket {
    fn outcome(self, result: Result<OpenFile, OpenStatus>) -> Outcome {
        Outcome {
            client: self.client,
            request: self.request,
            pid: self.pid,
            result,
        }
    }
}

impl AsFd for Workers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_proto::ids::Pid;
    use ipc_proto::opener::OpenMaps;

    /// Files of process 1 never answer.
    fn open(request: &OpenerRequest, _ways: Ways) -> Result<OpenFile, OpenStatus> {
        while request.pid().0 == 1 {
            thread::park();
        }
        Err(OpenStatus::NotFound)
    }

    fn job(pid: u32) -> Job {
        let request = OpenerRequest::OpenMaps(OpenMaps {
            request: pid.into(),
            pid: Pid(pid),
            start_time: 0,
        });
        let ways = Ways {
            start_time: 0,
            by_path: false,
        };
        Job {
            client: 1,
            request,
            ways,
        }
    }

    fn finished(workers: &mut Workers, now: u64) -> Vec<(u32, OpenStatus)> {
        let outcomes = workers.collect(now).into_iter();
        outcomes
            .map(|outcome| (outcome.pid, outcome.result.expect_err("opens nothing")))
            .collect()
    }

    #[test]
    fn hanging_files_hold_up_their_own_threads_only() {
        let mut workers = Workers::new(Box::new(open)).expect("made");
        for round in 0..MAX_THREADS / ACTIVE {
            let now = round as u64 * DEADLINE;
            for _ in 0..ACTIVE {
                workers.take(job(1), now).expect("a worker is free");
            }
            assert!(workers.take(job(2), now).is_err(), "all are busy");
            assert_eq!(finished(&mut workers, now + DEADLINE - 1), []);
            let late = [(1, OpenStatus::TimedOut); ACTIVE];
            assert_eq!(finished(&mut workers, now + DEADLINE), late);
        }
        assert!(workers.is_exhausted());
        assert!(workers.take(job(2), 0).is_err(), "no thread is left");
    }

    #[test]
    fn one_that_hangs_is_replaced() {
        let mut workers = Workers::new(Box::new(open)).expect("made");
        workers.take(job(1), 0).expect("taken");
        assert_eq!(
            finished(&mut workers, DEADLINE),
            [(1, OpenStatus::TimedOut)]
        );
        workers.take(job(2), DEADLINE).expect("taken");
        let mut answers = Vec::new();
        while answers.is_empty() {
            let mut fds = [rustix::event::PollFd::new(
                &workers,
                rustix::event::PollFlags::IN,
            )];
            rustix::event::poll(&mut fds, None).expect("polled");
            answers = finished(&mut workers, DEADLINE);
        }
        assert_eq!(answers, [(2, OpenStatus::NotFound)]);
    }
}
