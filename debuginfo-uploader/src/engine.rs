//! The uploader's decisions: which offers are taken, which of them is to be uploaded now, what its outcome means. No
//! sockets, files or clocks here.

use std::collections::{BTreeMap, HashMap, VecDeque};

use ipc_proto::debuginfo::{DebuginfoOffer, Verdict};
use ipc_proto::ids::BuildId;

use crate::offered_file::Fault;
use crate::outcome::{Again, Outcome};

/// Offers that are kept at once at most, each with two open files and two copies of them while it is uploaded.
pub(crate) const MAX_JOBS: usize = 192;
/// Build IDs remembered with what became of them; the oldest are forgotten first, and may then be offered again.
const MAX_ANSWERS: usize = 16 * 1024;
/// Fewer characters than three are no build ID to a store, and fewer bytes would not tell files apart.
const MIN_BUILD_ID: usize = 4;
const SECOND: u64 = 1_000_000_000;
/// First pauses before another try, and the longest.
const SOON: u64 = SECOND;
const LATER: u64 = 30 * SECOND;
const LONGEST_PAUSE: u64 = 300 * SECOND;
/// A file is held open for so long; then it is given up, to be offered again.
const PATIENCE: u64 = 3600 * SECOND;

/// What the settings ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Whether there is a store, and uploads are not disabled.
    pub(crate) wanted: bool,
    /// Uploads at once.
    pub(crate) max_parallel: usize,
    /// Offers that are kept at once, up to [`MAX_JOBS`].
    pub(crate) max_jobs: usize,
    /// How long a store's no is believed, nanoseconds; 0: not at all.
    pub(crate) cache: u64,
}

/// When a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { due: u64 },
    Running,
}

#[derive(Debug)]
struct Job {
    path: String,
    state: State,
    tries: u32,
    since: u64,
}

/// What is to be done about a job whose upload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is kept: there will be another try.
    Keep,
    /// Its files are closed.
    Close,
    /// Its files are closed; it is to be offered again.
    OfferAgain,
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    rules: Rules,
    jobs: HashMap<BuildId, Job>,
    running: usize,
    /// What became of whom, until when that holds.
    answers: HashMap<BuildId, u64>,
    order: VecDeque<BuildId>,
    /// Offers by verdict.
    pub(crate) verdicts: BTreeMap<&'static str, u64>,
    /// Uploads that ended, by result and cause.
    pub(crate) results: BTreeMap<(&'static str, &'static str), u64>,
    /// Bytes of the distinct executables offered.
    pub(crate) offered_bytes: u64,
    /// Bytes that reached the store.
    pub(crate) uploaded_bytes: u64,
}

impl Engine {
    /// Nothing was offered yet.
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            jobs: HashMap::new(),
            running: 0,
            answers: HashMap::new(),
            order: VecDeque::new(),
            verdicts: BTreeMap::new(),
            results: BTreeMap::new(),
            offered_bytes: 0,
            uploaded_bytes: 0,
        }
    }

    /// How many offers more there is room for.
    pub(crate) fn room(&self) -> usize {
        if self.rules.wanted {
            let most = self.rules.max_jobs.min(MAX_JOBS);
            most.saturating_sub(self.jobs.len())
        } else {
            0
        }
    }

    /// An offer came with files of which `checked` is known.
    pub(crate) fn on_offer(
        &mut self,
        offer: &DebuginfoOffer,
        checked: Result<(), Fault>,
        now: u64,
    ) -> Verdict {
        let verdict = self.judge(offer, checked, now);
        *self.verdicts.entry(verdict.name()).or_default() += 1;
        verdict
    }

    fn judge(&mut self, offer: &DebuginfoOffer, checked: Result<(), Fault>, now: u64) -> Verdict {
        if let Err(fault) = checked {
            log::warn!("{} refused: {fault}", offer.path.text());
            return Verdict::Refused;
        }
        if offer.build_id.0.len() < MIN_BUILD_ID {
            return Verdict::Refused;
        }
        if !self.rules.wanted {
            return Verdict::NotWanted;
        }
        let answered = self.answers.get(&offer.build_id);
        if self.jobs.contains_key(&offer.build_id) || answered.is_some_and(|until| now < *until) {
            return Verdict::Known;
        }
        if self.room() == 0 {
            return Verdict::Busy;
        }
        self.offered_bytes = self.offered_bytes.saturating_add(offer.size);
        let job = Job {
            path: offer.path.text().into_owned(),
            state: State::Waiting { due: now },
            tries: 0,
            since: now,
        };
        self.jobs.insert(offer.build_id.clone(), job);
        Verdict::Accepted
    }

    /// The job to start now, if there is one: it runs from here on.
    pub(crate) fn next(&mut self, now: u64) -> Option<BuildId> {
        if self.running >= self.rules.max_parallel {
            return None;
        }
        let (build_id, job) = self
            .jobs
            .iter_mut()
            .filter_map(|(build_id, job)| match job.state {
                State::Waiting { due } if due <= now => Some((due, build_id, job)),
                _ => None,
            })
            .min_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)))
            .map(|(_, build_id, job)| (build_id.clone(), job))?;
        job.state = State::Running;
        self.running += 1;
        Some(build_id)
    }

    /// When the next job is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        if self.running >= self.rules.max_parallel {
            return None;
        }
        let due = self.jobs.values().filter_map(|job| match job.state {
            State::Waiting { due } => Some(due),
            State::Running => None,
        });
        due.min()
    }

    /// A job's path, for logs.
    pub(crate) fn path(&self, build_id: &BuildId) -> &str {
        self.jobs.get(build_id).map_or("", |job| &job.path)
    }

    /// Jobs that wait, and jobs that run.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.jobs.len().saturating_sub(self.running), self.running)
    }

    /// An upload ended.
    pub(crate) fn on_outcome(&mut self, build_id: &BuildId, outcome: &Outcome, now: u64) -> Then {
        let Some(job) = self.jobs.get_mut(build_id) else {
            return Then::Close;
        };
        self.running = self.running.saturating_sub(1);
        *self.results.entry(outcome.names()).or_default() += 1;
        if let Outcome::Uploaded { bytes } = outcome {
            self.uploaded_bytes = self.uploaded_bytes.saturating_add(*bytes);
        }
        let cache = self.rules.cache;
        let first = match outcome.again() {
            Again::Never => {
                let until = if outcome.is_final() {
                    u64::MAX
                } else {
                    now.saturating_add(cache)
                };
                self.jobs.remove(build_id);
                if until > now {
                    self.remember(build_id.clone(), until);
                }
                return Then::Close;
            }
            // Another agent is at it: it may fail.
            Again::WhenOthersFailed => cache.max(LATER),
            Again::Soon => SOON,
            Again::Later => LATER,
        };
        if now.saturating_sub(job.since) >= PATIENCE {
            self.jobs.remove(build_id);
            return Then::OfferAgain;
        }
        let pause = first
            .saturating_mul(1 << job.tries.min(20))
            .min(LONGEST_PAUSE.max(first));
        job.tries += 1;
        let due = now.saturating_add(jittered(pause, build_id));
        job.state = State::Waiting { due };
        Then::Keep
    }

    fn remember(&mut self, build_id: BuildId, until: u64) {
        if self.answers.insert(build_id.clone(), until).is_none() {
            self.order.push_back(build_id);
        }
        if self.answers.len() > MAX_ANSWERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }
}

/// Three quarters to five quarters of a pause, by build ID: what failed together does not come back together.
fn jittered(pause: u64, build_id: &BuildId) -> u64 {
    let last = build_id.0.last().copied().unwrap_or_default();
    pause / 4 * 3 + pause / 512 * u64::from(last)
}

#[cfg(test)]
mod tests;
