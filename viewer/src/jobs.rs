//! A request that needs windows, on its way to its answer: which windows are still to come and what those so far amount to.
//! Reads none itself.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::answers::{self, WindowRow, WindowSpan};
use crate::engine::ConnectionId;
use crate::http::{Response, Status};
use crate::processes::ProcessTable;
use crate::profile::{Profile, Summary};
use crate::routes::Route;
use crate::selector::Selector;
use crate::stored::{Export, Stored};
use crate::tree::TreeBuilder;
use crate::windows::{WindowChoice, WindowId, Windows};

/// How much longer than a window `/query` waits: the time from a window's end to its file.
const QUERY_SLACK: Duration = Duration::from_secs(1);

/// What a request wants of its windows.
#[derive(Debug)]
pub(crate) enum Task {
    /// To list them.
    Windows { limit: usize },
    /// To merge their stacks.
    Flamegraph {
        windows: WindowChoice,
        selector: Selector,
        threads: bool,
        tree: TreeBuilder,
    },
    /// To add up their processes.
    Processes {
        windows: WindowChoice,
        table: ProcessTable,
    },
    /// Their samples as a file.
    Download {
        windows: WindowChoice,
        selector: Selector,
        export: Box<Export>,
    },
    /// The next one with samples that are wanted, from now on.
    Query(NextProfile),
}

/// The state of `/query`.
#[derive(Debug)]
pub(crate) struct NextProfile {
    selector: Selector,
    debug: bool,
    /// When it is given up, if a window was looked at meanwhile.
    patience: Duration,
    /// When it is given up anyhow.
    limit: Duration,
    looked_at: usize,
    given_up: bool,
    found: Option<(Vec<u8>, Option<TreeBuilder>)>,
}

impl Task {
    /// The task of a route that needs windows; for other routes, a list of nothing.
    pub(crate) fn new(route: Route, window: Duration, now: Duration) -> Self {
        match route {
            Route::Flamegraph {
                windows,
                selector,
                threads,
            } => Self::Flamegraph {
                windows,
                selector,
                threads,
                tree: TreeBuilder::new(),
            },
            Route::Processes { windows } => Self::Processes {
                windows,
                table: ProcessTable::default(),
            },
            Route::Download { windows, selector } => Self::Download {
                windows,
                selector,
                export: Box::default(),
            },
            Route::Query { selector, debug } => Self::Query(NextProfile {
                selector,
                debug,
                patience: now + window + QUERY_SLACK,
                limit: now + window * 2 + QUERY_SLACK,
                looked_at: 0,
                given_up: false,
                found: None,
            }),
            Route::Windows { limit } => Self::Windows { limit },
            _ => Self::Windows { limit: 0 },
        }
    }

    /// Which of the windows that exist now are wanted.
    pub(crate) fn windows(&self) -> Option<WindowChoice> {
        match self {
            Self::Windows { limit } => Some(WindowChoice::Last(*limit)),
            Self::Flamegraph { windows, .. }
            | Self::Processes { windows, .. }
            | Self::Download { windows, .. } => Some(*windows),
            Self::Query(_) => None,
        }
    }

    /// Whether a window whose summary is known needs no reading.
    pub(crate) fn wants_only_summaries(&self) -> bool {
        matches!(self, Self::Windows { .. })
    }
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Job {
    /// Whose request it is.
    pub(crate) connection: ConnectionId,
    task: Task,
    todo: VecDeque<WindowId>,
    span: WindowSpan,
}

impl Job {
    /// A job over windows, oldest first.
    pub(crate) fn new(
        connection: ConnectionId,
        task: Task,
        windows: Option<VecDeque<WindowId>>,
    ) -> Self {
        Self {
            connection,
            task,
            todo: windows.unwrap_or_default(),
            span: WindowSpan::default(),
        }
    }

    /// The window needed next.
    pub(crate) fn next_window(&self) -> Option<WindowId> {
        match &self.task {
            Task::Query(query) if query.found.is_some() => None,
            _ => self.todo.front().copied(),
        }
    }

    /// Whether the file's own bytes are needed, not just its samples.
    pub(crate) fn needs_file(&self) -> bool {
        matches!(self.task, Task::Download { .. } | Task::Query(_))
    }

    /// Whether the job waits for a window that isn't written yet.
    pub(crate) fn awaits_window(&self) -> bool {
        matches!(&self.task, Task::Query(query) if query.found.is_none())
    }

    /// Whether the answer is complete, given that no window is needed next.
    pub(crate) fn is_done(&self) -> bool {
        match &self.task {
            Task::Query(query) => query.found.is_some() || query.given_up,
            _ => true,
        }
    }

    /// When [`Self::on_time`] is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.task {
            Task::Query(query) if query.looked_at > 0 => Some(query.patience),
            Task::Query(query) => Some(query.limit),
            _ => None,
        }
    }

    /// Time went on.
    pub(crate) fn on_time(&mut self, now: Duration) {
        if self.deadline().is_some_and(|deadline| deadline <= now)
            && let Task::Query(query) = &mut self.task
        {
            query.given_up = true;
        }
    }

    /// Windows were written.
    pub(crate) fn on_new_windows(&mut self, new: &[WindowId]) {
        if self.awaits_window() {
            self.todo.extend(new);
        }
    }

    /// The next window can't be read.
    pub(crate) fn on_unreadable(&mut self, id: WindowId) {
        if self.todo.front() == Some(&id) {
            self.todo.pop_front();
            self.span.unreadable += 1;
        }
    }

    /// The next window's samples, of a job that doesn't need the file.
    pub(crate) fn on_cached(&mut self, id: WindowId, profile: &Profile) {
        if self.todo.front() != Some(&id) {
            return;
        }
        self.todo.pop_front();
        self.span.extend(profile);
        match &mut self.task {
            Task::Flamegraph {
                selector,
                threads,
                tree,
                ..
            } => tree.add(profile, selector, *threads),
            Task::Processes { table, .. } => table.add(profile),
            Task::Windows { .. } | Task::Download { .. } | Task::Query(_) => {}
        }
    }

    /// A window's samples and file, which may be the next one's.
    pub(crate) fn on_window(
        &mut self,
        id: WindowId,
        profile: &Profile,
        stored: &Stored,
        file: &[u8],
        now: Duration,
    ) {
        if self.todo.front() != Some(&id) {
            return;
        }
        match &mut self.task {
            Task::Download {
                selector, export, ..
            } => export.add(stored, file, selector),
            Task::Query(query) => query.look_at(profile, stored, file, now),
            _ => {}
        }
        self.on_cached(id, profile);
    }

    /// The answer.
    pub(crate) fn finish(
        self,
        windows: &Windows,
        summaries: &HashMap<WindowId, Option<Summary>>,
    ) -> Response {
        match self.task {
            Task::Windows { limit } => {
                let mut rows: Vec<WindowRow> = windows
                    .newest_first(limit)
                    .map(|(id, bytes)| {
                        WindowRow::new(id, bytes, summaries.get(&id).copied().flatten())
                    })
                    .collect();
                rows.reverse();
                answers::json(&rows)
            }
            Task::Flamegraph { tree, .. } => answers::flamegraph(&self.span, &tree.finish()),
            Task::Processes { table, .. } => answers::processes(&self.span, &table.finish()),
            Task::Download { export, .. } => {
                let name = self.span.file_name();
                match export.finish() {
                    Some(file) => Response::profile(name, file),
                    None => Response::text(
                        Status::NotFound,
                        "no such window, or no sample in it is selected",
                    ),
                }
            }
            Task::Query(query) => query.finish(&self.span),
        }
    }
}

impl NextProfile {
    fn look_at(&mut self, profile: &Profile, stored: &Stored, file: &[u8], now: Duration) {
        self.looked_at += 1;
        let mut export = Export::default();
        export.add(stored, file, &self.selector);
        match export.finish() {
            Some(file) => {
                let tree = self.debug.then(|| {
                    let mut tree = TreeBuilder::new();
                    tree.add(profile, &self.selector, false);
                    tree
                });
                self.found = Some((file, tree));
            }
            None => self.given_up |= self.patience <= now,
        }
    }

    fn finish(self, span: &WindowSpan) -> Response {
        match self.found {
            Some((file, None)) => Response::profile("profile.pb.gz".into(), file),
            Some((_, Some(tree))) => {
                answers::query_page(&self.selector.to_string(), span, &tree.finish())
            }
            None if self.looked_at == 0 => Response::text(
                Status::NotFound,
                "no window was written while waiting; /ready says why",
            ),
            None => Response::text(
                Status::NotFound,
                &format!("no sample of the last window matches {}", self.selector),
            ),
        }
    }
}
