//! Who may be looked at: the processes and paths that the sampler named, and how often anybody may ask.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Processes, paths and banned processes remembered; the oldest are forgotten first.
const MAX_PROCESSES: usize = 8192;
const MAX_PATHS: usize = 4096;
const MAX_BANNED: usize = 256;

/// Requests a second of each peer, and how many may come at once.
const RATE: f64 = 500.0;
const BURST: f64 = 4000.0;

/// How long a process whose files did not answer is left alone, nanoseconds.
const BAN: u64 = 600_000_000_000;

/// A bounded map that forgets its oldest members.
#[derive(Debug)]
struct Recent<K, V> {
    members: HashMap<K, (V, u64)>,
    order: VecDeque<(K, u64)>,
    max: usize,
    last: u64,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    fn new(max: usize) -> Self {
        Self {
            members: HashMap::new(),
            order: VecDeque::new(),
            max,
            last: 0,
        }
    }

    fn insert(&mut self, key: K, value: V) {
        self.last += 1;
        self.members.insert(key.clone(), (value, self.last));
        self.order.push_back((key, self.last));
        while self.members.len() > self.max || self.order.len() > 4 * self.max {
            let Some((oldest, age)) = self.order.pop_front() else {
                break;
            };
            // Named again since: its younger entry counts.
            if self
                .members
                .get(&oldest)
                .is_some_and(|(_, last)| *last == age)
            {
                self.members.remove(&oldest);
            }
        }
    }
}

/// Requests that may still come, growing with time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    filled: u64,
}

impl Bucket {
    /// A full one.
    pub(crate) fn full() -> Self {
        Self {
            tokens: BURST,
            filled: 0,
        }
    }

    /// Whether one more request may be served at `now` (nanoseconds).
    pub(crate) fn admit(&mut self, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.filled) as f64 / 1e9;
        self.filled = now;
        self.tokens = (self.tokens + elapsed * RATE).min(BURST);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// What may be opened.
#[derive(Debug)]
pub(crate) struct Permits {
    /// Start of each sampled process, 0 when unknown.
    processes: Recent<u32, u64>,
    paths: Recent<Vec<u8>, ()>,
    /// When each ban ends.
    banned: Recent<u32, u64>,
}

impl Permits {
    /// Nobody was named yet.
    pub(crate) fn new() -> Self {
        Self {
            processes: Recent::new(MAX_PROCESSES),
            paths: Recent::new(MAX_PATHS),
            banned: Recent::new(MAX_BANNED),
        }
    }

    /// The sampler names a process, and perhaps an executable it mapped.
    pub(crate) fn permit(&mut self, pid: u32, start_time: u64, path: &[u8]) {
        self.processes.insert(pid, start_time);
        if !path.is_empty() {
            self.paths.insert(path.to_vec(), ());
        }
    }

    /// When the sampled process of that number started (0: unknown); `None`: the sampler never named it.
    pub(crate) fn sampled(&self, pid: u32) -> Option<u64> {
        self.processes.members.get(&pid).map(|(start, _)| *start)
    }

    /// Whether the sampler named that path.
    pub(crate) fn is_path_named(&self, path: &[u8]) -> bool {
        self.paths.members.contains_key(path)
    }

    /// Leaves a process alone for a while.
    pub(crate) fn ban(&mut self, pid: u32, now: u64) {
        self.banned.insert(pid, now.saturating_add(BAN));
    }

    /// Whether a process is left alone.
    pub(crate) fn is_banned(&self, pid: u32, now: u64) -> bool {
        self.banned
            .members
            .get(&pid)
            .is_some_and(|(until, _)| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_but_not_those_named_again() {
        let mut recent = Recent::new(2);
        for member in [1, 2, 1, 3] {
            recent.insert(member, ());
        }
        let known: Vec<bool> = [1, 2, 3]
            .map(|member| recent.members.contains_key(&member))
            .to_vec();
        assert_eq!(known, [true, false, true]);
    }

    #[test]
    fn naming_one_member_for_ever_stays_bounded() {
        let mut recent = Recent::new(2);
        for _ in 0..1000 {
            recent.insert(1, ());
        }
        assert!(recent.members.contains_key(&1) && recent.order.len() <= 8);
    }

    #[test]
    fn requests_are_served_at_a_bounded_rate() {
        let mut bucket = Bucket::full();
        let served = (0..10_000).filter(|_| bucket.admit(1)).count();
        assert_eq!(served, BURST as usize);
        let later = (0..10_000).filter(|_| bucket.admit(1_000_000_001)).count();
        assert_eq!(later, RATE as usize);
    }

    #[test]
    fn a_ban_ends() {
        let mut permits = Permits::new();
        permits.ban(7, 100);
        assert!(permits.is_banned(7, 100 + BAN - 1) && !permits.is_banned(7, 100 + BAN));
        assert!(!permits.is_banned(8, 100));
    }
}
