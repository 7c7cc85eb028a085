//! Who may be looked at: the processes and paths that the sampler named, and how often anybody may ask.

use std::collections::{HashMap, VecDeque};

/// Processes and paths remembered; the oldest are forgotten first.
const MAX_PROCESSES: usize = 8192;
const MAX_PATHS: usize = 4096;

/// Requests a second, and how many may come at once.
const RATE: f64 = 500.0;
const BURST: f64 = 4000.0;

/// A bounded set that forgets its oldest members.
#[derive(Debug)]
struct Recent<T> {
    members: HashMap<T, u64>,
    order: VecDeque<(T, u64)>,
    max: usize,
    last: u64,
}

impl<T: Clone + Eq + std::hash::Hash> Recent<T> {
    fn new(max: usize) -> Self {
        Self {
            members: HashMap::new(),
            order: VecDeque::new(),
            max,
            last: 0,
        }
    }

    fn insert(&mut self, member: T) {
        self.last += 1;
        self.members.insert(member.clone(), self.last);
        self.order.push_back((member, self.last));
        while self.members.len() > self.max || self.order.len() > 4 * self.max {
            let Some((oldest, age)) = self.order.pop_front() else {
                break;
            };
            // Named again since: its younger entry counts.
            if self.members.get(&oldest) == Some(&age) {
                self.members.remove(&oldest);
            }
        }
    }

    fn contains(&self, member: &T) -> bool {
        self.members.contains_key(member)
    }
}

/// Requests that may still come, growing with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled: u64,
}

/// What the symbolizer may have opened.
#[derive(Debug)]
pub(crate) struct Permits {
    processes: Recent<u32>,
    paths: Recent<Vec<u8>>,
    bucket: Bucket,
}

impl Permits {
    /// Nobody was named yet.
    pub(crate) fn new() -> Self {
        Self {
            processes: Recent::new(MAX_PROCESSES),
            paths: Recent::new(MAX_PATHS),
            bucket: Bucket {
                tokens: BURST,
                filled: 0,
            },
        }
    }

    /// The sampler names a process, and perhaps an executable it mapped.
    pub(crate) fn permit(&mut self, pid: u32, path: &[u8]) {
        self.processes.insert(pid);
        if !path.is_empty() {
            self.paths.insert(path.to_vec());
        }
    }

    /// Whether the sampler named that process.
    pub(crate) fn is_sampled(&self, pid: u32) -> bool {
        self.processes.contains(&pid)
    }

    /// Whether the sampler named that path.
    pub(crate) fn is_path_named(&self, path: &[u8]) -> bool {
        self.paths.contains(&path.to_vec())
    }

    /// Whether one more request may be served at `now` (nanoseconds).
    pub(crate) fn admit(&mut self, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.bucket.filled) as f64 / 1e9;
        self.bucket.filled = now;
        self.bucket.tokens = (self.bucket.tokens + elapsed * RATE).min(BURST);
        if self.bucket.tokens < 1.0 {
            return false;
        }
        self.bucket.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_but_not_those_named_again() {
        let mut recent = Recent::new(2);
        for member in [1, 2, 1, 3] {
            recent.insert(member);
        }
        assert!(recent.contains(&1) && recent.contains(&3) && !recent.contains(&2));
    }

    #[test]
    fn requests_are_served_at_a_bounded_rate() {
        let mut permits = Permits::new();
        let served = (0..10_000).filter(|_| permits.admit(1)).count();
        assert_eq!(served, BURST as usize);
        let later = (0..10_000).filter(|_| permits.admit(1_000_000_001)).count();
        assert_eq!(later, RATE as usize);
    }
}
