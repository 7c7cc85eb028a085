//! Which calls are tried again, and when: exponential backoff with jitter, while the time limit of the whole call lasts.

use std::time::Duration;

use tonic::Status;
use tower::BoxError;
use tower::retry::Policy;
use tower::retry::backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff};
use tower::util::rng::HasherRng;

use crate::verdict::Verdict;

/// First pause and longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// How far a pause may differ from its due length, so that a thousand machines do not come back at once.
const JITTER: f64 = 0.5;

/// The attempts of one call.
#[derive(Clone, Debug)]
pub(crate) struct Attempts {
    backoff: ExponentialBackoff,
}

impl Attempts {
    /// None was made yet.
    pub(crate) fn new() -> Self {
        let mut maker = ExponentialBackoffMaker::new(FIRST, LONGEST, JITTER, HasherRng::default())
            .expect("the pauses are in order and the jitter is a share");
        Self {
            backoff: maker.make_backoff(),
        }
    }
}

impl<M: Clone, R> Policy<M, R, BoxError> for Attempts {
    type Future = <ExponentialBackoff as Backoff>::Future;

    fn retry(
        &mut self,
        _message: &mut M,
        result: &mut Result<R, BoxError>,
    ) -> Option<Self::Future> {
        let error = result.as_ref().err()?;
        // What is no status is an attempt's own time limit.
        let verdict = error
            .downcast_ref::<Status>()
            .map_or(Verdict::Retry, Verdict::of);
        (verdict == Verdict::Retry).then(|| self.backoff.next_backoff())
    }

    fn clone_request(&mut self, message: &M) -> Option<M> {
        Some(message.clone())
    }
}
