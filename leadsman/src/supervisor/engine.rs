//! The supervisor's decisions: what to start, when to start it again, when to give up, in which order to stop. Events and
//! the time in, actions out; starts nothing itself.

use std::collections::VecDeque;
use std::time::Duration;

use ipc_proto::hello::Role;

/// Time since the supervisor started.
pub(crate) type Moment = Duration;

/// A process that lived so long was all right.
const PROVEN: Duration = Duration::from_secs(3);
/// Pause before the first restart, doubled with each of a row.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);
/// Failures in a row, each soon after the start, that are enough.
const CRASH_LOOP: u32 = 10;
/// Exit statuses by which a process asks to be started again; the second one for a larger ring buffer.
const PLEASE_RESTART: i32 = 75;
pub(crate) const PLEASE_RESTART_LARGER: i32 = 76;
/// Signals that others send: SIGKILL, SIGTERM.
const FROM_OUTSIDE: [i32; 2] = [9, 15];

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with that status.
    Status(i32),
    /// By that signal.
    Signal(i32),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A process ended.
    Ended(Role, End),
    /// A process can't be started at all.
    NotStarted(Role),
    /// Somebody wants all to end.
    Stop,
    /// Somebody wants all to end at once.
    StopNow,
    /// Nothing but time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start it.
    Start(Role),
    /// Ask it to end.
    Terminate(Role),
    /// End it.
    Kill(Role),
    /// Say that it ended and is started again after the pause.
    Restarting(Role, End, Duration),
    /// Say that all ends because of it.
    GiveUp(Role, Option<End>),
    /// All are gone.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running { since: Moment },
    Waiting { until: Moment },
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    role: Role,
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Whether it was ever all right.
    proven: bool,
}

#[derive(Clone, Debug)]
enum Phase {
    Up,
    /// Rows still to be stopped; the one at the front was asked, and is killed at the moment named.
    Stopping {
        rows: VecDeque<Row>,
        kill_at: Moment,
    },
    Done,
}

/// Processes that stop together.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Which.
    pub(crate) roles: Vec<Role>,
    /// How long they have for it.
    pub(crate) patience: Duration,
}

/// The rules of a run.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The order in which processes stop.
    pub(crate) stop_order: Vec<Row>,
    /// Processes whose end is everybody's.
    pub(crate) essential: Vec<Role>,
}

/// The supervisor's state.
#[derive(Debug)]
pub(crate) struct Engine {
    processes: Vec<Process>,
    rules: Rules,
    phase: Phase,
    failed: bool,
}

impl Engine {
    /// Will run `roles`; returns the first actions.
    pub(crate) fn new(roles: &[Role], rules: Rules, now: Moment) -> (Self, Vec<Action>) {
        let process = |role: &Role| Process {
            role: *role,
            state: State::Running { since: now },
            failures: 0,
            proven: false,
        };
        let engine = Self {
            processes: roles.iter().map(process).collect(),
            rules,
            phase: Phase::Up,
            failed: false,
        };
        (engine, roles.iter().copied().map(Action::Start).collect())
    }

    /// Whether it gave up.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Whether a stop is under way or done.
    pub(crate) fn is_stopping(&self) -> bool {
        !matches!(self.phase, Phase::Up)
    }

    /// When to come with [`Event::Tick`] if nothing else happens.
    pub(crate) fn next(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Up => {
                let waiting = |process: &Process| match process.state {
                    State::Waiting { until } => Some(until),
                    _ => None,
                };
                self.processes.iter().filter_map(waiting).min()
            }
            Phase::Stopping { kill_at, .. } => Some(*kill_at),
            Phase::Done => None,
        }
    }

    /// Takes an event.
    pub(crate) fn on(&mut self, event: Event, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Ended(role, end) => self.on_end(role, end, now, &mut actions),
            Event::NotStarted(role) => {
                self.set(role, State::Gone);
                self.give_up(role, None, now, &mut actions);
            }
            Event::Stop => self.stop(now, &mut actions),
            Event::StopNow => {
                self.stop(now, &mut actions);
                if let Phase::Stopping { kill_at, rows } = &mut self.phase {
                    *kill_at = now;
                    for row in rows {
                        row.patience = Duration::ZERO;
                    }
                }
            }
            Event::Tick => {}
        }
        match self.phase {
            Phase::Up => self.restart(now, &mut actions),
            Phase::Stopping { .. } => self.go_on_stopping(now, &mut actions),
            Phase::Done => {}
        }
        actions
    }

    fn set(&mut self, role: Role, state: State) {
        for process in self
            .processes
            .iter_mut()
            .filter(|process| process.role == role)
        {
            process.state = state;
        }
    }

    fn on_end(&mut self, role: Role, end: End, now: Moment, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            self.set(role, State::Gone);
            return;
        }
        let essential = self.rules.essential.contains(&role);
        let Some(process) = self
            .processes
            .iter_mut()
            .find(|process| process.role == role)
        else {
            return;
        };
        let State::Running { since } = process.state else {
            return;
        };
        if now.saturating_sub(since) >= PROVEN {
            process.proven = true;
            process.failures = 0;
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << process.failures.min(16))
            .min(LONGEST_PAUSE);
        process.failures += 1;
        // What others do to a process is no failure of its own, however often it comes.
        let own_failure = match end {
            End::Status(status) => ![PLEASE_RESTART, PLEASE_RESTART_LARGER].contains(&status),
            End::Signal(signal) => !FROM_OUTSIDE.contains(&signal),
        };
        // It refused to start and said why; it will again.
        let refused = own_failure && !process.proven && matches!(end, End::Status(_));
        let crash_loop = own_failure && process.failures >= CRASH_LOOP;
        if refused || crash_loop || essential {
            process.state = State::Gone;
            self.give_up(role, Some(end), now, actions);
        } else {
            process.state = State::Waiting { until: now + pause };
            actions.push(Action::Restarting(role, end, pause));
        }
    }

    fn restart(&mut self, now: Moment, actions: &mut Vec<Action>) {
        for process in &mut self.processes {
            if matches!(process.state, State::Waiting { until } if until <= now) {
                process.state = State::Running { since: now };
                actions.push(Action::Start(process.role));
            }
        }
    }

    fn give_up(&mut self, role: Role, end: Option<End>, now: Moment, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        self.failed = true;
        actions.push(Action::GiveUp(role, end));
        self.stop(now, actions);
    }

    fn stop(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.is_stopping() {
            return;
        }
        for process in &mut self.processes {
            if matches!(process.state, State::Waiting { .. }) {
                process.state = State::Gone;
            }
        }
        self.phase = Phase::Stopping {
            rows: self.rules.stop_order.iter().cloned().collect(),
            kill_at: now,
        };
        self.ask_next_row(now, actions);
    }

    /// Asks the first row that still has somebody alive; when none has, all is done.
    fn ask_next_row(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let Phase::Stopping { rows, kill_at } = &mut self.phase else {
            return;
        };
        while let Some(row) = rows.front() {
            let alive = running(&self.processes, &row.roles);
            if !alive.is_empty() {
                *kill_at = now + row.patience;
                actions.extend(alive.into_iter().map(Action::Terminate));
                return;
            }
            rows.pop_front();
        }
        self.phase = Phase::Done;
        actions.push(Action::Done);
    }

    fn go_on_stopping(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let Phase::Stopping { rows, kill_at } = &mut self.phase else {
            return;
        };
        let alive = rows
            .front()
            .map(|row| running(&self.processes, &row.roles))
            .unwrap_or_default();
        if alive.is_empty() {
            self.ask_next_row(now, actions);
        } else if now >= *kill_at {
            actions.extend(alive.into_iter().map(Action::Kill));
            // A killed process is gone in a moment, unless the kernel itself holds it.
            *kill_at = now + Duration::from_secs(1);
        }
    }
}

fn running(processes: &[Process], roles: &[Role]) -> Vec<Role> {
    let alive = |process: &&Process| {
        roles.contains(&process.role) && matches!(process.state, State::Running { .. })
    };
    processes
        .iter()
        .filter(alive)
        .map(|process| process.role)
        .collect()
}

#[cfg(test)]
mod tests;
