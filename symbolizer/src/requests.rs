//! Requests to the opener that are under way: what each is for, when it is repeated, when it is given up. Sends nothing.

use std::collections::HashMap;

use ipc_proto::ids::{ExecutableId, ImageId};
use ipc_proto::opener::{OpenDebugFile, OpenExecutable, OpenPerfMap, OpenStatus, OpenerRequest};
use leadsman_symbolizer::reason::Reason;

/// Requests under way at most; more are refused at once.
const MAX_PENDING: usize = 8192;
/// First pause before a request is repeated, nanoseconds; it doubles with each try.
const FIRST_PAUSE: u64 = 20_000_000;
/// How often a request is repeated.
const MAX_TRIES: u32 = 6;
/// How long an answer may take, nanoseconds.
const PATIENCE: u64 = 5_000_000_000;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An executable itself.
    Executable(ExecutableId),
    /// The perf map of an image's process.
    PerfMap(ImageId),
    /// The nth separate debug file that an executable wants.
    DebugFile(ExecutableId, usize),
    /// An executable once more, for its offer to the uploader.
    Offer(ExecutableId),
    /// Its debug file once more, for the same.
    OfferDebugFile(ExecutableId),
}

#[derive(Debug)]
struct Pending {
    purpose: Purpose,
    request: OpenerRequest,
    tries: u32,
    asked: u64,
    /// When it is to be repeated; 0: an answer is awaited.
    again: u64,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The file came.
    Opened(Purpose),
    /// It will not come.
    Refused(Purpose, OpenStatus),
    /// It is asked for again, or nobody asked.
    Nothing,
}

/// All requests.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pending: HashMap<u64, Pending>,
    last: u64,
}

impl Requests {
    /// Asks for a file. `None`: too many requests are under way.
    pub(crate) fn ask(
        &mut self,
        purpose: Purpose,
        mut request: OpenerRequest,
        now: u64,
    ) -> Option<OpenerRequest> {
        if self.pending.len() >= MAX_PENDING {
            return None;
        }
        self.last += 1;
        let number = self.last;
        match &mut request {
            OpenerRequest::OpenExecutable(OpenExecutable { request, .. })
            | OpenerRequest::OpenPerfMap(OpenPerfMap { request, .. })
            | OpenerRequest::OpenDebugFile(OpenDebugFile { request, .. }) => *request = number,
            OpenerRequest::Sampled(_) | OpenerRequest::OpenMaps(_) => return None,
        }
        let pending = Pending {
            purpose,
            request: request.clone(),
            tries: 0,
            asked: now,
            again: 0,
        };
        self.pending.insert(number, pending);
        Some(request)
    }

    /// The opener answered.
    pub(crate) fn answered(&mut self, number: u64, status: OpenStatus, now: u64) -> Outcome {
        let Some(pending) = self.pending.get_mut(&number) else {
            return Outcome::Nothing;
        };
        let purpose = pending.purpose;
        // The sampler names a process to the opener and to us at once: the opener may hear of it a moment later.
        let repeat = matches!(status, OpenStatus::NotSampled | OpenStatus::RateLimited);
        if repeat && pending.tries < MAX_TRIES {
            pending.again = now.saturating_add(FIRST_PAUSE << pending.tries);
            pending.tries += 1;
            return Outcome::Nothing;
        }
        self.pending.remove(&number);
        if status == OpenStatus::Opened {
            Outcome::Opened(purpose)
        } else {
            Outcome::Refused(purpose, status)
        }
    }

    /// Requests that are to be sent again now.
    pub(crate) fn due(&mut self, now: u64) -> Vec<OpenerRequest> {
        let due = self
            .pending
            .values_mut()
            .filter(|pending| pending.again != 0 && pending.again <= now);
        due.map(|pending| {
            pending.again = 0;
            pending.request.clone()
        })
        .collect()
    }

    /// When the next request is to be repeated.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let again = self.pending.values().map(|pending| pending.again);
        again.filter(|again| *again != 0).min()
    }

    /// Requests that nobody answered in time: they are given up.
    pub(crate) fn overdue(&mut self, now: u64) -> Vec<Purpose> {
        let mut overdue = Vec::new();
        self.pending.retain(|_, pending| {
            let keep = now.saturating_sub(pending.asked) < PATIENCE;
            if !keep {
                overdue.push(pending.purpose);
            }
            keep
        });
        overdue
    }

    /// A new opener listens: everything under way must be asked again.
    pub(crate) fn all(&mut self) -> Vec<OpenerRequest> {
        let mut all: Vec<_> = self.pending.iter_mut().collect();
        all.sort_by_key(|(number, _)| **number);
        all.into_iter()
            .map(|(_, pending)| {
                pending.again = 0;
                pending.request.clone()
            })
            .collect()
    }

    /// Answers that come now belong to what another sampler told.
    pub(crate) fn clear(&mut self) {
        self.pending.clear();
    }

    /// Requests under way.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }
}

/// Why code of a file that was refused has no names.
pub(crate) fn reason(status: OpenStatus) -> Reason {
    match status {
        OpenStatus::ProcessGone => Reason::ProcessGone,
        OpenStatus::RateLimited | OpenStatus::TimedOut | OpenStatus::NotSampled => {
            Reason::NotYetOpened
        }
        OpenStatus::TooLarge => Reason::TooLarge,
        OpenStatus::Opened | OpenStatus::NotFound | OpenStatus::Refused | OpenStatus::Denied => {
            Reason::Refused
        }
    }
}

/// Whether the same executable may be opened on behalf of another process, or later.
pub(crate) fn may_succeed_later(status: OpenStatus) -> bool {
    !matches!(
        status,
        OpenStatus::Refused | OpenStatus::Denied | OpenStatus::TooLarge
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXECUTABLE: Purpose = Purpose::Executable(ExecutableId(7));

    fn ask(requests: &mut Requests) -> u64 {
        let request = OpenerRequest::OpenExecutable(OpenExecutable::default());
        match requests.ask(EXECUTABLE, request, 0) {
            Some(OpenerRequest::OpenExecutable(request)) => request.request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_belongs_to_its_request_once() {
        let mut requests = Requests::default();
        let (first, second) = (ask(&mut requests), ask(&mut requests));
        assert_ne!(first, second);
        let opened = OpenStatus::Opened;
        assert_eq!(
            requests.answered(second, opened, 1),
            Outcome::Opened(EXECUTABLE)
        );
        assert_eq!(requests.answered(second, opened, 1), Outcome::Nothing);
        assert_eq!(
            requests.answered(first, OpenStatus::Denied, 1),
            Outcome::Refused(EXECUTABLE, OpenStatus::Denied)
        );
        assert_eq!(requests.len(), 0);
    }

    #[test]
    fn a_process_that_is_not_sampled_yet_is_asked_about_again() {
        let mut requests = Requests::default();
        let number = ask(&mut requests);
        let mut now = 0;
        for _ in 0..MAX_TRIES {
            let outcome = requests.answered(number, OpenStatus::NotSampled, now);
            assert_eq!(outcome, Outcome::Nothing);
            assert!(requests.due(now).is_empty());
            now = requests.next_due().unwrap();
            assert_eq!(requests.due(now).len(), 1);
            assert_eq!(requests.next_due(), None);
        }
        assert!(matches!(
            requests.answered(number, OpenStatus::NotSampled, now),
            Outcome::Refused(..)
        ));
    }

    #[test]
    fn silence_ends_and_a_new_opener_is_asked_again() {
        let mut requests = Requests::default();
        ask(&mut requests);
        assert_eq!(requests.all().len(), 1);
        assert!(requests.overdue(PATIENCE - 1).is_empty());
        assert_eq!(requests.overdue(PATIENCE), [EXECUTABLE]);
        assert!(requests.all().is_empty());
    }
}
