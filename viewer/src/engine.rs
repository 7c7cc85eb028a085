//! Decides what each request gets and which windows must be read for it. Knows no socket, file or clock: events come in,
//! actions go out.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use ipc_proto::hello::Role;

use crate::answers;
use crate::cache::ProfileCache;
use crate::counters::Counters;
use crate::http::request::RequestError;
use crate::http::{AllowedHosts, Request, Response, Status};
use crate::jobs::{Job, Task};
use crate::metrics::aliases::aliases;
use crate::metrics::{Format, Metric, Registry};
use crate::profile::Summary;
use crate::routes::{Route, RouteError};
use crate::status::{self, Costs, StatusView, StoreState};
use crate::stored::{Stored, StoredError};
use crate::windows::{WindowChoice, WindowId, Windows};

/// Requests that wait for windows to be read or written. A browser tab has one.
const MAX_JOBS: usize = 64;
/// A window longer or shorter than this is taken for this long.
const WINDOW_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));

/// Windows whose length tells that of the next.
const NEWEST: usize = 3;

/// A client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// The time of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Since some start, never going back.
    pub(crate) monotonic: Duration,
    /// Since 1970 UTC.
    pub(crate) unix: Duration,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send a response.
    Respond(ConnectionId, Response),
    /// Read a window's file and report it by [`Engine::on_window_read`].
    Read(WindowId),
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    hosts: AllowedHosts,
    windows: Windows,
    store: StoreState,
    cache: ProfileCache,
    /// What is known of windows; nothing of those that can't be read.
    summaries: HashMap<WindowId, Option<Summary>>,
    reading: BTreeSet<WindowId>,
    jobs: Vec<Job>,
    registry: Registry,
    costs: Costs,
    counters: Counters,
}

impl Engine {
    /// An engine that knows of no window yet.
    pub(crate) fn new(hosts: AllowedHosts, cache_bytes: usize) -> Self {
        Self {
            hosts,
            windows: Windows::default(),
            store: StoreState::default(),
            cache: ProfileCache::new(cache_bytes),
            summaries: HashMap::new(),
            reading: BTreeSet::new(),
            jobs: Vec::new(),
            registry: Registry::default(),
            costs: Costs::default(),
            counters: Counters::default(),
        }
    }

    /// The counters, for events that only the loop sees.
    pub(crate) fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Whether a request waits for the next window, so that the store should be looked at more often.
    pub(crate) fn awaits_window(&self) -> bool {
        self.jobs.iter().any(Job::awaits_window)
    }

    /// When [`Self::on_time`] is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.jobs.iter().filter_map(Job::deadline).min()
    }

    /// A client sent a request.
    pub(crate) fn on_request(
        &mut self,
        connection: ConnectionId,
        request: &Request,
        now: Moment,
    ) -> Vec<Action> {
        match self.task_of(request, now) {
            Ok(task) if self.jobs.len() < MAX_JOBS => {
                let windows = task.windows().map(|choice| self.chosen(choice, &task));
                self.jobs.push(Job::new(connection, task, windows));
                self.advance()
            }
            Ok(_) => self.respond(
                connection,
                Response::text(
                    Status::ServiceUnavailable,
                    "too many requests are waiting; try again",
                ),
            ),
            Err(response) => self.respond(connection, *response),
        }
    }

    /// A client sent something that is no request we serve.
    pub(crate) fn on_refused(
        &mut self,
        connection: ConnectionId,
        error: RequestError,
    ) -> Vec<Action> {
        let status = match error {
            RequestError::Method => Status::MethodNotAllowed,
            RequestError::TooLarge => Status::HeadTooLarge,
            _ => Status::BadRequest,
        };
        self.respond(connection, Response::text(status, &error.to_string()))
    }

    /// A client is gone.
    pub(crate) fn on_disconnected(&mut self, connection: ConnectionId) {
        self.jobs.retain(|job| job.connection != connection);
    }

    /// The store's present windows with their files' bytes.
    pub(crate) fn on_store_listed(&mut self, present: Vec<(WindowId, u64)>) -> Vec<Action> {
        let new = self.windows.replace(present);
        let windows = &self.windows;
        self.summaries.retain(|id, _| windows.contains(*id));
        self.store.newest = windows.newest().map(WindowId::start);
        self.store.windows = windows.len();
        self.store.bytes = windows.bytes();
        for job in &mut self.jobs {
            job.on_new_windows(&new);
        }
        self.advance()
    }

    /// A window's file was read, or couldn't be.
    pub(crate) fn on_window_read(
        &mut self,
        id: WindowId,
        read: Result<Vec<u8>, String>,
        now: Moment,
    ) -> Vec<Action> {
        self.reading.remove(&id);
        let stored = read
            .map_err(StoredError::Unreadable)
            .and_then(|bytes| Stored::decode(&bytes).map(|stored| (stored, bytes)));
        match stored {
            Ok((stored, bytes)) => {
                let profile = Rc::new(stored.window());
                self.learn(id, &profile.summary());
                self.cache.insert(id, Rc::clone(&profile));
                for job in &mut self.jobs {
                    job.on_window(id, &profile, &stored, &bytes, now.monotonic);
                }
            }
            Err(error) => {
                log::warn!("window {id} is left out: {error}");
                self.counters.unreadable_windows += 1;
                self.summaries.insert(id, None);
                for job in &mut self.jobs {
                    job.on_unreadable(id);
                }
            }
        }
        self.advance()
    }

    /// A process reported its metrics.
    pub(crate) fn on_statistics(&mut self, role: Role, metrics: Vec<Metric>, now: Moment) {
        self.costs.on_report(role, &metrics, now.monotonic);
        self.registry.replace(role, metrics, now.monotonic);
    }

    /// Time went on: requests whose time is over get their answer.
    pub(crate) fn on_time(&mut self, now: Moment) -> Vec<Action> {
        for job in &mut self.jobs {
            job.on_time(now.monotonic);
        }
        self.advance()
    }

    /// The task of a request, or the response to one that needs no windows.
    fn task_of(&mut self, request: &Request, now: Moment) -> Result<Task, Box<Response>> {
        let Some(host) = request.host.as_deref() else {
            return Err(Box::new(Response::text(
                Status::BadRequest,
                "the Host header is missing",
            )));
        };
        if !self.hosts.allows(host) {
            self.counters.refused_hosts += 1;
            return Err(Box::new(Response::text(
                Status::Forbidden,
                "this host name is not served; use http://127.0.0.1 or the address given to --http-address",
            )));
        }
        let route = Route::parse(&request.path, &request.query).map_err(|error| {
            let status = match error {
                RouteError::NotFound => Status::NotFound,
                _ => Status::BadRequest,
            };
            Box::new(Response::text(status, &error.to_string()))
        })?;
        let response = match route {
            Route::Asset(asset) => answers::asset(asset),
            Route::Healthy => Response::text(Status::Ok, ""),
            Route::Ready => self.ready(now),
            Route::Metrics => self.metrics(Format::accepted(request.accept.as_deref()), now),
            Route::Status => answers::json(&StatusView::new(
                &self.registry,
                &self.costs,
                &self.store,
                now.monotonic,
                now.unix,
            )),
            route => {
                return Ok(Task::new(
                    route,
                    self.store.window_or_default(),
                    now.monotonic,
                ));
            }
        };
        Err(Box::new(response))
    }

    fn ready(&self, now: Moment) -> Response {
        match status::readiness(&self.registry, &self.store, now.monotonic, now.unix) {
            Ok(()) => Response::text(Status::Ok, ""),
            Err(reason) => Response::text(Status::ServiceUnavailable, &reason),
        }
    }

    fn metrics(&self, format: Format, now: Moment) -> Response {
        let ready = status::readiness(&self.registry, &self.store, now.monotonic, now.unix).is_ok();
        let mut own = self.counters.metrics(&[
            (
                "leadsman_ready",
                "Whether samples flow end to end.",
                f64::from(ready),
            ),
            (
                "leadsman_store_windows",
                "Windows in the local store.",
                self.store.windows as f64,
            ),
            (
                "leadsman_store_bytes",
                "Bytes of the windows in the local store.",
                self.store.bytes as f64,
            ),
            (
                "leadsman_viewer_cache_bytes",
                "Bytes of windows kept in memory.",
                self.cache.bytes() as f64,
            ),
            (
                "leadsman_viewer_waiting_requests",
                "Requests that wait for a window.",
                self.jobs.len() as f64,
            ),
        ]);
        own.extend(status::checks(
            &self.registry,
            &self.store,
            now.monotonic,
            now.unix,
        ));
        own.extend(aliases(&self.registry));
        let text = self.registry.exposition(&own, format);
        Response::metrics(format.content_type(), text)
    }

    /// Goes on with every job as far as the windows at hand allow.
    fn advance(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut waiting = Vec::new();
        for mut job in std::mem::take(&mut self.jobs) {
            loop {
                let Some(id) = job.next_window() else {
                    if job.is_done() {
                        let response = self.response_of(job);
                        actions.push(response);
                    } else {
                        waiting.push(job);
                    }
                    break;
                };
                let cached = if job.needs_file() {
                    None
                } else {
                    self.cache.get(id)
                };
                match (cached, self.summaries.get(&id)) {
                    (_, Some(None)) => job.on_unreadable(id),
                    (Some(profile), _) => job.on_cached(id, &profile),
                    (None, _) => {
                        if self.reading.insert(id) {
                            actions.push(Action::Read(id));
                        }
                        waiting.push(job);
                        break;
                    }
                }
            }
        }
        self.jobs = waiting;
        actions
    }

    fn response_of(&mut self, job: Job) -> Action {
        let connection = job.connection;
        let response = job.finish(&self.windows, &self.summaries);
        self.counters.on_response(response.status);
        Action::Respond(connection, response)
    }

    fn respond(&mut self, connection: ConnectionId, response: Response) -> Vec<Action> {
        self.counters.on_response(response.status);
        vec![Action::Respond(connection, response)]
    }

    fn chosen(&self, choice: WindowChoice, task: &Task) -> VecDeque<WindowId> {
        let mut chosen: VecDeque<WindowId> = self.windows.chosen(choice).into();
        if task.wants_only_summaries() {
            chosen.retain(|id| !self.summaries.contains_key(id));
        }
        chosen
    }

    /// Notes what a window is made of. The next one will be as long as the longest of the newest: the last one before an
    /// end is shorter.
    fn learn(&mut self, id: WindowId, summary: &Summary) {
        self.summaries.insert(id, Some(*summary));
        let (least, most) = WINDOW_BOUNDS;
        let newest = self.windows.newest_first(NEWEST);
        self.store.window = newest
            .filter_map(|(id, _)| Some(self.summaries.get(&id)?.as_ref()?.duration))
            .max()
            .map(|longest| longest.clamp(least, most))
            .or(self.store.window);
    }
}

#[cfg(test)]
mod tests;
