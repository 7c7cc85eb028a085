//! Runs the processes of a [`Plan`]: does what the [`engine`] decides, waits for the next event. Decides nothing itself.

pub(crate) mod engine;

use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use ipc_proto::hello::Role;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, setpriority_pgrp};

use crate::error::Failure;
use crate::plan::Plan;
use crate::roles;
use crate::runtime_directory::RuntimeDirectory;
use crate::spawn::{Inheritance, spawn};
use engine::{Action, End, Engine, Event, PLEASE_RESTART_LARGER, Row, Rules};

/// A started process.
#[derive(Debug)]
struct Running {
    role: Role,
    child: Child,
    /// Readable when it ended.
    pidfd: OwnedFd,
}

/// The processes of one run. When the value goes, whoever is left is killed, then the runtime directory removed.
#[derive(Debug)]
pub(crate) struct Supervisor {
    plan: Plan,
    runtime_directory: RuntimeDirectory,
    http: Option<TcpListener>,
    engine: Engine,
    running: Vec<Running>,
    started: Instant,
    done: bool,
}

/// Niceness of processes that are to end.
const HURRY: i32 = -20;

/// How long processes may take to end, when all have the same time.
pub(crate) fn stop_order(patience: impl Fn(Role) -> Duration) -> Vec<Row> {
    roles::STOP_ORDER
        .iter()
        .map(|row| Row {
            roles: row.to_vec(),
            patience: row
                .iter()
                .map(|role| patience(*role))
                .max()
                .unwrap_or_default(),
        })
        .collect()
}

impl Supervisor {
    /// Starts all.
    pub(crate) fn start(
        plan: Plan,
        runtime_directory: RuntimeDirectory,
        http: Option<TcpListener>,
        rules: Rules,
    ) -> Self {
        let roles: Vec<Role> = plan.users.iter().map(|(role, _)| *role).collect();
        let (engine, actions) = Engine::new(&roles, rules, Duration::ZERO);
        let mut supervisor = Self {
            plan,
            runtime_directory,
            http,
            engine,
            running: Vec::new(),
            started: Instant::now(),
            done: false,
        };
        supervisor.act(actions);
        supervisor
    }

    /// What it runs.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Waits until something happens, one of `fds` is readable, or `longest` has passed; does what follows from it.
    ///
    /// # Errors
    /// The kernel does not let us wait.
    pub(crate) fn wait(
        &mut self,
        fds: &[BorrowedFd<'_>],
        longest: Duration,
    ) -> Result<(), Failure> {
        let next = self.engine.next();
        let pause = next.map_or(longest, |next| {
            longest.min(next.saturating_sub(self.started.elapsed()))
        });
        let watched = self.running.iter().map(|running| running.pidfd.as_fd());
        let mut polled: Vec<PollFd<'_>> = watched
            .chain(fds.iter().copied())
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let timeout = Timespec::try_from(pause)
            .map_err(|error| Failure::failed(format!("cannot wait: {error}")))?;
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::failed(format!("cannot wait: {error}"))),
        }
        for (role, end) in self.reap() {
            if end == End::Status(PLEASE_RESTART_LARGER) {
                self.plan.ring_growth += 1;
            }
            self.take(Event::Ended(role, end));
        }
        self.take(Event::Tick);
        Ok(())
    }

    /// Begins the orderly end; a second time: ends all at once.
    pub(crate) fn stop(&mut self) {
        let event = if self.engine.is_stopping() {
            Event::StopNow
        } else {
            self.hurry();
            Event::Stop
        };
        self.take(event);
    }

    /// Puts the processes before what they profile: on a busy machine the last window would otherwise not be named before
    /// patience ends.
    fn hurry(&self) {
        for running in &self.running {
            // Each leads a group of its own, which reaches all of its threads.
            let group = Pid::from_child(&running.child);
            let _as_good_as_it_gets = setpriority_pgrp(Some(group), HURRY);
        }
    }

    /// Whether the end has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.engine.is_stopping()
    }

    /// Whether all are gone.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// Whether a process made it give up.
    pub(crate) fn failed(&self) -> bool {
        self.engine.failed()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn take(&mut self, event: Event) {
        let actions = self.engine.on(event, self.now());
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start(role) => self.start_process(role),
                Action::Terminate(role) => self.signal(role, Signal::TERM),
                Action::Kill(role) => {
                    say(&format!("{} does not end: killing it", roles::binary(role)));
                    self.signal(role, Signal::KILL);
                }
                Action::Restarting(role, end, pause) => say(&format!(
                    "{} {}: starting it again in {} ms",
                    roles::binary(role),
                    describe(end),
                    pause.as_millis()
                )),
                Action::GiveUp(role, end) => say(&format!(
                    "{} {}: stopping, see its message above",
                    roles::binary(role),
                    end.map_or_else(|| "can't be started".to_owned(), describe)
                )),
                Action::Done => self.done = true,
            }
        }
    }

    fn start_process(&mut self, role: Role) {
        let processes = self.plan.processes();
        let Some(process) = processes.iter().find(|process| process.role == role) else {
            return;
        };
        let inheritance = Inheritance {
            listeners: self.runtime_directory.listeners(),
            http: self.http.as_ref(),
        };
        let started = spawn(process, &inheritance).and_then(|child| {
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
            Ok(Running { role, child, pidfd })
        });
        match started {
            Ok(running) => self.running.push(running),
            Err(error) => {
                say(&format!("cannot start {}: {error}", roles::binary(role)));
                self.take(Event::NotStarted(role));
            }
        }
    }

    fn signal(&self, role: Role, signal: Signal) {
        for running in self.running.iter().filter(|running| running.role == role) {
            // It may have ended since: the next wait tells.
            let _gone = pidfd_send_signal(&running.pidfd, signal);
        }
    }

    fn reap(&mut self) -> Vec<(Role, End)> {
        let mut ended = Vec::new();
        self.running
            .retain_mut(|running| match running.child.try_wait() {
                Ok(Some(status)) => {
                    ended.push((running.role, end(status)));
                    false
                }
                _ => true,
            });
        ended
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for running in &mut self.running {
            let _gone = running.child.kill();
            let _reaped = running.child.wait();
        }
    }
}

fn end(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Status(code),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    }
}

fn describe(end: End) -> String {
    match end {
        End::Status(status) => format!("ended with status {status}"),
        End::Signal(signal) => format!("died by signal {signal}"),
    }
}

fn say(line: &str) {
    eprintln!("leadsman: {line}");
}
