//! What `/proc/PID` says of sampled processes, by PID and start: a process that got another one's PID is another one.
//! A thread of its own reads, because the kernel may let a reader wait for as long as the process likes (`cmdline`
//! waits for its memory map); who asks waits a bounded time. Bounded in number.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::{Errno, read};

use super::cgroups::Cgroup;
use super::proc_file::{self, Stat};

/// Nanoseconds of one tick of `stat`'s start time (USER_HZ is 100 on every Linux port that matters here).
const TICK: u64 = 10_000_000;
/// Processes remembered.
const MAX_KNOWN: usize = 32 * 1024;
/// How long what was read is taken for true, nanoseconds: users and cgroups change rarely.
const FRESH: u64 = 60_000_000_000;
/// How long a window waits for all its processes.
const PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of `cmdline` that are read.
const MAX_COMMAND_LINE: usize = 4096;

/// Which process: PID, start (CLOCK_BOOTTIME nanoseconds), and the name, which changes with its program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) comm: String,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) parent: u32,
    /// The real user's ID.
    pub(crate) user: Option<u32>,
    /// Its cgroups, most telling first.
    pub(crate) cgroups: Vec<Cgroup>,
    pub(crate) command_line: Option<String>,
}

/// What there is to read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) command_line: bool,
}

type Answers = Vec<(Identity, Option<Facts>)>;

/// All processes known.
#[derive(Debug)]
pub(crate) struct Processes {
    known: HashMap<Identity, (Option<Arc<Facts>>, u64)>,
    requests: Option<SyncSender<Vec<Identity>>>,
    answers: Receiver<Answers>,
    is_busy: bool,
    /// Windows whose processes were not read in time.
    pub(crate) late: u64,
}

impl Processes {
    /// Starts the thread that reads below `proc`, `/proc` itself but for tests.
    pub(crate) fn new(proc: &str, wanted: Wanted) -> std::io::Result<Self> {
        let (requests, work) = sync_channel::<Vec<Identity>>(1);
        let (results, answers) = sync_channel(1);
        let proc = proc.to_owned();
        let reader = std::thread::Builder::new().name("proc-reader".to_owned());
        reader.spawn(move || {
            while let Ok(identities) = work.recv() {
                let read = identities.into_iter().map(|identity| {
                    let facts = read_process(&proc, &identity, wanted);
                    (identity, facts)
                });
                if results.send(read.collect()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            known: HashMap::new(),
            requests: Some(requests),
            answers,
            is_busy: false,
            late: 0,
        })
    }

    /// Sees to it that these are known, if they still are there; `now`: CLOCK_MONOTONIC nanoseconds.
    pub(crate) fn look_up(&mut self, identities: impl Iterator<Item = Identity>, now: u64) {
        if self.is_busy {
            match self.answers.try_recv() {
                Ok(answers) => self.take(answers, now),
                Err(_still_waiting) => {
                    self.late += 1;
                    return;
                }
            }
        }
        let mut missing: Vec<Identity> = identities
            .filter(|identity| {
                let known = self.known.get(identity);
                known.is_none_or(|(_, at)| now.saturating_sub(*at) >= FRESH)
            })
            .collect();
        missing.truncate(MAX_KNOWN);
        if missing.is_empty() {
            return;
        }
        let sent = self
            .requests
            .as_ref()
            .is_some_and(|requests| requests.try_send(missing).is_ok());
        if !sent {
            return;
        }
        self.is_busy = true;
        match self.answers.recv_timeout(PATIENCE) {
            Ok(answers) => self.take(answers, now),
            Err(RecvTimeoutError::Timeout) => {
                self.late += 1;
                log::warn!(
                    "reading /proc/PID of this window's processes takes longer than {} ms: they have no labels from there",
                    PATIENCE.as_millis()
                );
            }
            Err(RecvTimeoutError::Disconnected) => self.requests = None,
        }
    }

    fn take(&mut self, answers: Answers, now: u64) {
        self.is_busy = false;
        for (identity, facts) in answers {
            // What a process said before it ended stays true of it.
            let before = self.known.remove(&identity).and_then(|(facts, _)| facts);
            let facts = facts.map(Arc::new).or(before);
            self.known.insert(identity, (facts, now));
        }
        if self.known.len() > MAX_KNOWN {
            self.known.retain(|_, (_, at)| *at == now);
        }
    }

    /// What is known of a process.
    pub(crate) fn get(&self, identity: &Identity) -> Option<Arc<Facts>> {
        self.known.get(identity)?.0.clone()
    }

    /// Number of processes known.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

/// Reads a process through its directory, which stays that process's however often the PID is given again.
pub(crate) fn read_process(proc: &str, identity: &Identity, wanted: Wanted) -> Option<Facts> {
    // Without a start nobody can say that it is the process that was sampled.
    if identity.start_time == 0 {
        return None;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = open(format!("{proc}/{}", identity.pid), flags, Mode::empty()).ok()?;
    let stat = Stat::parse(&file(&directory, "stat", 1024).ok()?)?;
    if stat.start_ticks != identity.start_time / TICK {
        return None;
    }
    let user = file(&directory, "status", 4096).ok();
    let cgroup = file(&directory, "cgroup", 64 << 10).unwrap_or_default();
    let command_line = wanted
        .command_line
        .then(|| file(&directory, "cmdline", MAX_COMMAND_LINE).ok())
        .flatten();
    Some(Facts {
        parent: stat.parent,
        user: user.and_then(|status| proc_file::user_id(&status)),
        cgroups: proc_file::Cgroups::parse(&cgroup)
            .paths()
            .map(|path| Cgroup::new(path.to_owned()))
            .collect(),
        command_line: command_line
            .and_then(|line| proc_file::command_line(&line, MAX_COMMAND_LINE)),
    })
}

/// The first `max` bytes of a file.
fn file(directory: &OwnedFd, name: &str, max: usize) -> Result<Vec<u8>, Errno> {
    let file = openat(
        directory,
        name,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut text = vec![0; max];
    let mut length = 0;
    while let Some(rest) = text.get_mut(length..)
        && !rest.is_empty()
    {
        match read(&file, rest)? {
            0 => break,
            more => length += more,
        }
    }
    text.truncate(length);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Identity {
        let stat = Stat::parse(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
        Identity {
            pid: std::process::id(),
            start_time: stat.start_ticks * TICK + 1234,
            comm: "x".to_owned(),
        }
    }

    fn look_up(processes: &mut Processes, identity: &Identity, now: u64) -> Option<Arc<Facts>> {
        processes.look_up(std::iter::once(identity.clone()), now);
        processes.get(identity)
    }

    #[test]
    fn another_process_of_the_same_number_is_not_read() {
        let mut processes = Processes::new("/proc", Wanted { command_line: true }).unwrap();
        let facts = look_up(&mut processes, &own(), 0).expect("this process is there");
        assert_eq!(facts.parent, std::os::unix::process::parent_id());
        assert_eq!(facts.user, Some(rustix::process::getuid().as_raw()));
        assert!(facts.command_line.is_some());
        for start_time in [0, 1, own().start_time - TICK, own().start_time + TICK] {
            let other = Identity {
                start_time,
                ..own()
            };
            assert_eq!(look_up(&mut processes, &other, 0), None, "{start_time}");
        }
        assert_eq!(processes.late, 0);
    }

    #[test]
    fn the_command_line_is_read_only_when_asked_for() {
        let mut processes = Processes::new("/proc", Wanted::default()).unwrap();
        let facts = look_up(&mut processes, &own(), 0).unwrap();
        assert_eq!(facts.command_line, None);
    }

    #[test]
    fn a_process_that_ended_is_remembered() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let stat = std::fs::read(format!("/proc/{}/stat", child.id())).unwrap();
        let identity = Identity {
            pid: child.id(),
            start_time: Stat::parse(&stat).unwrap().start_ticks * TICK,
            comm: "sleep".to_owned(),
        };
        let mut processes = Processes::new("/proc", Wanted::default()).unwrap();
        let alive = look_up(&mut processes, &identity, 0).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(look_up(&mut processes, &identity, FRESH * 2), Some(alive));
    }

    #[test]
    fn a_file_that_never_answers_costs_one_wait_and_no_more() {
        // A FIFO without a writer in the place of a file.
        let directory = tempfile::tempdir().unwrap();
        let process = directory.path().join("7");
        std::fs::create_dir(&process).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, process.join("stat"), Mode::RUSR).unwrap();
        let proc = directory.path().to_str().unwrap();
        let mut processes = Processes::new(proc, Wanted::default()).unwrap();
        let stuck = Identity { pid: 7, ..own() };
        for _ in 0..3 {
            assert_eq!(look_up(&mut processes, &stuck, 0), None);
        }
        assert_eq!(processes.late, 3);
    }
}
