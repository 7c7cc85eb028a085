//! Waits for clients, reports, windows and time, and carries out what the engine decides. Decides nothing itself.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use ipc_endpoint::clock::monotonic;
use ipc_endpoint::settings::Subscriber;
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::OwnCost;
use ipc_proto::hello::Role;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::clients::{Accepted, Clients, Interest};
use crate::engine::{Action, ConnectionId, Engine, Moment};
use crate::http::connection::Received;
use crate::metrics::Metric;
use crate::statistics::Reporters;
use crate::store::Store;
use crate::windows::WindowId;

/// Pause between two looks at the store and at own cost, while there are clients.
const PAUSE: Duration = Duration::from_secs(1);
/// The same while nobody asks.
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// The same while a request waits for the next window.
const SHORT_PAUSE: Duration = Duration::from_millis(100);

/// Everything the loop waits for and acts on.
#[derive(Debug)]
pub(crate) struct EventLoop {
    engine: Engine,
    clients: Clients,
    store: Option<Store>,
    reporters: Option<Reporters>,
    cost: OwnCost,
    settings: Subscriber,
    termination: Termination,
    started: Instant,
    /// When the store and own cost were last looked at.
    looked: Option<Duration>,
    to_read: VecDeque<WindowId>,
}

/// What poll said about one client.
struct ClientEvent {
    id: ConnectionId,
    interest: Interest,
    gone: bool,
}

impl EventLoop {
    /// A loop over what was opened.
    pub(crate) fn new(
        engine: Engine,
        clients: Clients,
        store: Option<Store>,
        reporters: Option<Reporters>,
        cost: OwnCost,
        settings: Subscriber,
        termination: Termination,
    ) -> Self {
        Self {
            engine,
            clients,
            store,
            reporters,
            cost,
            settings,
            termination,
            started: Instant::now(),
            looked: None,
            to_read: VecDeque::new(),
        }
    }

    /// Runs until the process is asked to end.
    ///
    /// # Errors
    /// The kernel refuses to poll.
    pub(crate) fn run(&mut self) -> Result<(), Errno> {
        loop {
            let (events, accept) = self.wait()?;
            if self.termination.asked() {
                return Ok(());
            }
            let now = self.now();
            self.look_around(now, accept);
            if let Some(reporters) = &mut self.reporters {
                let (reports, violations) = reporters.receive();
                self.engine.counters().link_violations += violations;
                for report in reports {
                    self.engine.on_statistics(report.role, report.metrics, now);
                }
            }
            if accept {
                self.accept(now);
            }
            for event in events {
                self.serve(&event, now);
            }
            let actions = self.engine.on_time(now);
            self.carry_out(actions, now);
            // One window at a time, so that a view of many doesn't hold up the others for long.
            if let Some(id) = self.to_read.pop_front() {
                self.read(id, now);
            }
            for (id, slow) in self.clients.close_finished(now.monotonic) {
                self.engine.counters().slow_connections += u64::from(slow);
                self.engine.on_disconnected(id);
            }
        }
    }

    fn now(&self) -> Moment {
        Moment {
            monotonic: self.started.elapsed(),
            unix: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// `asked`: a client is about to come.
    fn pause(&self, asked: bool) -> Duration {
        if self.engine.awaits_window() {
            SHORT_PAUSE
        } else if asked || self.clients.sockets().next().is_some() {
            PAUSE
        } else {
            LONG_PAUSE
        }
    }

    /// Waits for something to do: the clients with news, and whether new ones may be there.
    fn wait(&self) -> Result<(Vec<ClientEvent>, bool), Errno> {
        let now = self.started.elapsed();
        let look = self.looked.map_or(now, |looked| looked + self.pause(false));
        let until = [self.engine.deadline(), self.clients.deadline()]
            .into_iter()
            .flatten()
            .fold(look, Duration::min);
        let left = if self.to_read.is_empty() {
            until.saturating_sub(now)
        } else {
            Duration::ZERO
        };
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = vec![
            PollFd::new(&self.termination, PollFlags::IN),
            PollFd::new(self.clients.listener(), PollFlags::IN),
        ];
        let first_client = fds.len();
        let sockets: Vec<_> = self.clients.sockets().collect();
        fds.extend(sockets.iter().map(|(_, stream, interest)| {
            let flags = match interest {
                Interest::Read => PollFlags::IN,
                Interest::Write => PollFlags::OUT,
                Interest::Hangup => PollFlags::RDHUP,
            };
            PollFd::new(*stream, flags)
        }));
        let links: Vec<BorrowedFd<'_>> =
            self.reporters.iter().flat_map(Reporters::sockets).collect();
        fds.extend(
            links
                .iter()
                .map(|link| PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN)),
        );
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok((Vec::new(), false)),
            Err(error) => return Err(error),
        }
        let mut found = fds.iter().map(PollFd::revents);
        let accept = found
            .nth(first_client - 1)
            .is_some_and(|flags| !flags.is_empty());
        let events = sockets
            .iter()
            .zip(found)
            .filter(|(_, flags)| !flags.is_empty())
            .map(|((id, _, interest), flags)| ClientEvent {
                id: *id,
                interest: *interest,
                gone: *interest == Interest::Hangup
                    || flags.intersects(PollFlags::ERR | PollFlags::NVAL),
            })
            .collect();
        Ok((events, accept))
    }

    /// Looks at the store and at own cost, if it is time.
    fn look_around(&mut self, now: Moment, asked: bool) {
        let pause = self.pause(asked);
        if self
            .looked
            .is_some_and(|looked| now.monotonic < looked + pause)
        {
            return;
        }
        self.looked = Some(now.monotonic);
        self.settings.poll(monotonic());
        let cost = self
            .cost
            .metrics(false)
            .into_iter()
            .map(Metric::from)
            .collect();
        self.engine.on_statistics(Role::Viewer, cost, now);
        let Some(store) = &mut self.store else {
            return;
        };
        match store.list_if_changed(now.unix) {
            Ok(None) => {}
            Ok(Some(windows)) => {
                let actions = self.engine.on_store_listed(windows);
                self.carry_out(actions, now);
            }
            Err(error) => {
                log::warn!("{error}");
                self.engine.counters().store_errors += 1;
            }
        }
    }

    fn accept(&mut self, now: Moment) {
        loop {
            match self.clients.accept(now.monotonic) {
                Accepted::Served => self.engine.counters().connections += 1,
                Accepted::Refused => self.engine.counters().refused_connections += 1,
                Accepted::None => return,
            }
        }
    }

    fn serve(&mut self, event: &ClientEvent, now: Moment) {
        if event.gone {
            self.clients.hang_up(event.id);
            self.engine.on_disconnected(event.id);
            return;
        }
        let received = match event.interest {
            Interest::Write => self.clients.write(event.id, now.monotonic),
            Interest::Read | Interest::Hangup => self.clients.read(event.id, now.monotonic),
        };
        let actions = self.take(event.id, received, now);
        self.carry_out(actions, now);
    }

    fn take(&mut self, id: ConnectionId, received: Received, now: Moment) -> Vec<Action> {
        match received {
            Received::Nothing => Vec::new(),
            Received::Request(request) => self.engine.on_request(id, &request, now),
            Received::Refused(error) => self.engine.on_refused(id, error),
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>, now: Moment) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Respond(id, response) => {
                    let received = self.clients.respond(id, response, now.monotonic);
                    actions.extend(self.take(id, received, now));
                }
                Action::Read(id) => self.to_read.push_back(id),
            }
        }
    }

    fn read(&mut self, id: WindowId, now: Moment) {
        let Some(store) = &self.store else {
            return;
        };
        let read = store.read(id).map_err(|error| error.to_string());
        let actions = self.engine.on_window_read(id, read, now);
        self.carry_out(actions, now);
    }
}
