//! What is sent when, and what becomes of each parcel. Owns the account of the edge to the remote store: produced =
//! delivered + dropped + queued. Decides only: windows, answers and times come in; requests and words go out. Reaches the
//! spool through a trait, so that tests need no disk.

mod account;
mod health;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use remote_store::Verdict;

use super::parcel::{Key, Parcel};
use super::spool::{Dropped, Entry, LoadError, SpoolError};
pub use account::Account;
use health::Health;

/// Windows that are neither delivered nor on disk: the symbolizer keeps them too, and no more than a few.
const MAX_HELD_WINDOWS: usize = 2;
/// Settled windows that are remembered: as many as the symbolizer keeps.
const MAX_RECENT: usize = 64;
/// Bytes of parcels in memory, when the disk takes none.
const MAX_MEMORY: usize = 32 << 20;
/// Times a parcel may fail on its own while others are taken; then it is the parcel.
const MAX_STRIKES: u32 = 5;
/// Failures in a row with the same parcel after which others are tried first.
const PATIENCE: u32 = 3;
/// First pause before a parcel that others were preferred to is tried again; doubles up to the longest.
const ASIDE: Duration = Duration::from_secs(30);
const LONGEST_ASIDE: Duration = Duration::from_secs(900);

/// Where parcels wait: the spool, or a test's.
pub trait Shelf {
    /// What is there.
    fn entries(&self) -> &BTreeMap<Key, Entry>;
    /// Puts a parcel there; the oldest make room.
    fn append(&mut self, key: Key, parcel: &Parcel) -> (Result<(), SpoolError>, Vec<Dropped>);
    /// Gets one back; it stays there.
    fn load(&self, key: Key) -> Result<Parcel, LoadError>;
    /// Forgets one.
    fn remove(&mut self, key: Key);
}

/// A window as the symbolizer names it.
pub type Window = (u64, u64);

/// What is to go to the store.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The parcels.
    pub parcels: Vec<(Key, Arc<Parcel>)>,
    /// Samples in them.
    pub samples: u64,
}

/// What the store said to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it means.
    pub verdict: Verdict,
    /// The code's name.
    pub code: &'static str,
    /// The error in words.
    pub text: String,
}

/// What people are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Sending fails since now.
    StoreAway(Refusal),
    /// Sending works again.
    StoreBack {
        /// Samples that wait in the spool.
        spooled: u64,
    },
    /// A parcel was given up: the store will not take it.
    GivenUp {
        /// Its samples.
        samples: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The spool takes nothing since now.
    SpoolFails(SpoolError),
    /// A record can't be read.
    Damaged(Key, LoadError),
}

#[derive(Debug)]
struct Held {
    key: Key,
    parcel: Arc<Parcel>,
    bytes: usize,
    on_shelf: bool,
}

/// What is known of a parcel that failed.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    failures: u32,
    /// Failures while others were taken.
    strikes: u32,
    /// Deliveries when it last failed.
    deliveries: u64,
    /// Not before this time.
    aside_until: u64,
    /// To be sent alone: one of a request's parcels is wrong.
    alone: bool,
}

/// The engine. Times are nanoseconds of a clock that never goes back.
#[derive(Debug)]
pub struct Engine {
    interval: u64,
    request_bytes: usize,
    held: VecDeque<Held>,
    flight: Option<Vec<Key>>,
    in_flight: BTreeMap<Key, Arc<Parcel>>,
    troubles: BTreeMap<Key, Trouble>,
    /// Parts of windows that are neither delivered, dropped nor on the shelf.
    open: BTreeMap<Window, BTreeSet<u32>>,
    settled: Vec<Window>,
    /// Windows settled last: what comes again because the symbolizer did not hear so.
    recent: VecDeque<Window>,
    health: Health,
    next_flush: u64,
    spool_fails: bool,
    account: Account,
    notes: Vec<Note>,
}

impl Engine {
    /// Requests of at most `request_bytes`, fresh windows every `interval`.
    #[must_use]
    pub fn new(interval: Duration, request_bytes: usize, shelf: &impl Shelf) -> Self {
        let waiting = shelf.entries().values().map(|entry| entry.samples);
        Self {
            interval: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
            request_bytes,
            held: VecDeque::new(),
            flight: None,
            in_flight: BTreeMap::new(),
            troubles: BTreeMap::new(),
            open: BTreeMap::new(),
            settled: Vec::new(),
            recent: VecDeque::new(),
            health: Health::default(),
            next_flush: 0,
            spool_fails: false,
            account: Account::recovered(waiting.fold(0, u64::saturating_add)),
            notes: Vec::new(),
        }
    }

    /// The account so far.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Whether the last request failed.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.health.is_away()
    }

    /// Samples in memory, in flight included.
    #[must_use]
    pub fn held_samples(&self) -> u64 {
        let held = self.held.iter().filter(|held| !held.on_shelf);
        held.map(|held| held.parcel.samples()).sum()
    }

    /// Windows off our hands since the last call: delivered, dropped or on disk.
    pub fn take_settled(&mut self) -> Vec<Window> {
        std::mem::take(&mut self.settled)
    }

    /// What is to be said since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// A window's parcels came. One that is known already, because the symbolizer did not hear that it was taken, is
    /// not taken twice.
    pub fn on_window(
        &mut self,
        window: Window,
        parcels: Vec<(Key, Parcel)>,
        now: u64,
        shelf: &mut impl Shelf,
    ) {
        if self.open.contains_key(&window) {
            return;
        }
        let known = |key: &Key| {
            shelf.entries().contains_key(key) || self.held.iter().any(|held| held.key == *key)
        };
        let again = self.recent.contains(&window) || parcels.iter().any(|(key, _)| known(key));
        if parcels.is_empty() || again {
            self.settled.push(window);
            return;
        }
        if self.held.is_empty() && self.next_flush <= now {
            self.next_flush = now.saturating_add(self.interval);
        }
        for (key, parcel) in parcels {
            self.account.produce(parcel.samples());
            self.open.entry(window).or_default().insert(key.part);
            self.held.push_back(Held {
                key,
                bytes: parcel.encoded_len(),
                parcel: Arc::new(parcel),
                on_shelf: false,
            });
        }
        if self.health.is_away() {
            self.shelve_held(shelf);
        }
        while self.open.len() > MAX_HELD_WINDOWS {
            let Some(at) = self.held.iter().position(|held| !held.on_shelf) else {
                break;
            };
            if !self.shelve(at, shelf) {
                break;
            }
        }
        self.bound_memory();
    }

    /// What to send now, if anything. [`Self::on_answer`] must follow before the next one.
    pub fn next_request(&mut self, now: u64, shelf: &mut impl Shelf) -> Option<Outgoing> {
        if self.flight.is_some() || !self.health.may_try(now) {
            return None;
        }
        let bytes: usize = self.held.iter().map(|held| held.bytes).sum();
        let due = now >= self.next_flush || bytes >= self.request_bytes;
        let parcels = if due && !self.held.is_empty() && !self.health.is_away() {
            self.fresh(now)
        } else {
            self.backlog(now, shelf)
        };
        // With nothing else to try, fresh windows find out whether the store is back.
        let parcels = match parcels.is_empty() && due {
            true => self.fresh(now),
            false => parcels,
        };
        if parcels.is_empty() {
            return None;
        }
        self.flight = Some(parcels.iter().map(|(key, _)| *key).collect());
        self.in_flight = parcels.iter().cloned().collect();
        let samples = parcels.iter().map(|(_, parcel)| parcel.samples()).sum();
        Some(Outgoing { parcels, samples })
    }

    /// When [`Self::next_request`] may have something, if nothing else happens before.
    #[must_use]
    pub fn next_time(&self, shelf: &impl Shelf) -> Option<u64> {
        if self.flight.is_some() {
            return None;
        }
        let fresh = (!self.held.is_empty()).then_some(self.next_flush);
        let waiting = shelf.entries().keys().filter(|key| !self.is_held(**key));
        let aside = waiting.map(|key| {
            let trouble = self.troubles.get(key);
            trouble.map_or(0, |trouble| trouble.aside_until)
        });
        let backlog = aside.min();
        let next = fresh.into_iter().chain(backlog).min()?;
        Some(next.max(self.health.retry_at()))
    }

    /// What became of the request. `jitter` is from 0 to 1.
    pub fn on_answer(
        &mut self,
        answer: Result<(), Refusal>,
        now: u64,
        jitter: f64,
        shelf: &mut impl Shelf,
    ) {
        let keys = self.flight.take().unwrap_or_default();
        match answer {
            Ok(()) => {
                for key in &keys {
                    self.deliver(*key, shelf);
                }
                if self.health.on_success() {
                    // Who failed while everything failed is not suspect: the oldest go first again.
                    let unproven = |trouble: &&mut Trouble| trouble.strikes == 0;
                    for trouble in self.troubles.values_mut().filter(unproven) {
                        trouble.aside_until = 0;
                    }
                    let spooled = self.account.spooled(shelf);
                    self.notes.push(Note::StoreBack { spooled });
                }
            }
            Err(refusal) => match refusal.verdict {
                Verdict::Retry | Verdict::Later => {
                    for key in &keys {
                        self.blame(*key, keys.len() == 1, now, &refusal, shelf);
                    }
                    if self.health.on_failure(&refusal, now, jitter) {
                        self.notes.push(Note::StoreAway(refusal));
                    }
                    self.shelve_held(shelf);
                }
                Verdict::TooLarge | Verdict::Final => self.divide(&keys, &refusal, shelf),
            },
        }
        self.in_flight.clear();
        self.bound_memory();
    }

    /// The end: what is in memory goes on the shelf.
    pub fn finish(&mut self, shelf: &mut impl Shelf) {
        self.flight = None;
        self.shelve_held(shelf);
    }

    /// No window follows soon: what waits in memory for more goes to the shelf, so that whoever ends now and waits for it
    /// to be settled does not wait for the interval. It is sent from there.
    pub fn on_last(&mut self, shelf: &mut impl Shelf) {
        self.shelve_held(shelf);
    }

    /// The shelf gave this up.
    pub fn on_dropped(&mut self, dropped: impl IntoIterator<Item = Dropped>) {
        for Dropped {
            key,
            cause,
            samples,
        } in dropped
        {
            match self.held.iter_mut().find(|held| held.key == key) {
                // Still in memory.
                Some(held) => held.on_shelf = false,
                None => {
                    self.account.drop_samples(cause, samples);
                    self.troubles.remove(&key);
                }
            }
        }
    }

    fn is_held(&self, key: Key) -> bool {
        self.held.iter().any(|held| held.key == key)
    }

    fn fresh(&mut self, now: u64) -> Vec<(Key, Arc<Parcel>)> {
        let mut parcels = Vec::new();
        let mut filled = 0usize;
        for held in &self.held {
            let trouble = self.troubles.get(&held.key).copied().unwrap_or_default();
            if trouble.aside_until > now || (trouble.alone && !parcels.is_empty()) {
                continue;
            }
            if !parcels.is_empty() && filled.saturating_add(held.bytes) > self.request_bytes {
                break;
            }
            filled += held.bytes;
            parcels.push((held.key, Arc::clone(&held.parcel)));
            if trouble.alone {
                break;
            }
        }
        if parcels.len() == self.held.len() {
            self.next_flush = now.saturating_add(self.interval);
        }
        parcels
    }

    /// The oldest parcels on the shelf that may go now.
    fn backlog(&mut self, now: u64, shelf: &mut impl Shelf) -> Vec<(Key, Arc<Parcel>)> {
        let mut parcels = Vec::new();
        let mut filled = 0usize;
        let mut damaged = Vec::new();
        for key in shelf.entries().keys() {
            if self.is_held(*key) {
                continue;
            }
            let trouble = self.troubles.get(key).copied().unwrap_or_default();
            if trouble.aside_until > now || (trouble.alone && !parcels.is_empty()) {
                continue;
            }
            match shelf.load(*key) {
                Ok(parcel) => {
                    let bytes = parcel.encoded_len();
                    if !parcels.is_empty() && filled.saturating_add(bytes) > self.request_bytes {
                        break;
                    }
                    filled += bytes;
                    parcels.push((*key, Arc::new(parcel)));
                    if trouble.alone {
                        break;
                    }
                }
                Err(error) => damaged.push((*key, error)),
            }
        }
        for (key, error) in damaged {
            self.notes.push(Note::Damaged(key, error));
            let samples = shelf.entries().get(&key).map_or(0, |entry| entry.samples);
            self.account.drop_samples("spool_damaged", samples);
            self.forget(key, shelf);
        }
        parcels
    }

    fn deliver(&mut self, key: Key, shelf: &mut impl Shelf) {
        // Gone from the shelf meanwhile: counted as dropped there, and the store has it all the same.
        if !self.is_held(key) && !shelf.entries().contains_key(&key) {
            return;
        }
        let samples = self
            .in_flight
            .get(&key)
            .map_or(0, |parcel| parcel.samples());
        self.account.deliver(samples);
        self.forget(key, shelf);
    }

    /// A parcel is off all hands.
    fn forget(&mut self, key: Key, shelf: &mut impl Shelf) {
        self.held.retain(|held| held.key != key);
        shelf.remove(key);
        self.troubles.remove(&key);
        self.settle(key);
    }

    fn settle(&mut self, key: Key) {
        let window = (key.start, key.window);
        if let Some(parts) = self.open.get_mut(&window) {
            parts.remove(&key.part);
            if parts.is_empty() {
                self.open.remove(&window);
                self.settled.push(window);
                self.recent.push_back(window);
                if self.recent.len() > MAX_RECENT {
                    self.recent.pop_front();
                }
            }
        }
    }

    /// A request failed in a way that may pass; perhaps it is this parcel's fault.
    fn blame(
        &mut self,
        key: Key,
        alone: bool,
        now: u64,
        refusal: &Refusal,
        shelf: &mut impl Shelf,
    ) {
        let deliveries = self.account.deliveries();
        let trouble = self.troubles.entry(key).or_default();
        trouble.failures += 1;
        if trouble.failures > 1 && deliveries > trouble.deliveries && alone {
            trouble.strikes += 1;
        }
        trouble.deliveries = deliveries;
        if trouble.failures >= PATIENCE {
            trouble.alone = true;
            let doublings = (trouble.failures - PATIENCE).min(10);
            let pause = ASIDE.saturating_mul(1 << doublings).min(LONGEST_ASIDE);
            trouble.aside_until = now.saturating_add(pause.as_nanos() as u64);
        }
        if trouble.strikes >= MAX_STRIKES {
            self.give_up(key, "poisoned", refusal, shelf);
        }
    }

    /// The store will not take a request: which of its parcels, and of their series, is found by sending them apart.
    fn divide(&mut self, keys: &[Key], refusal: &Refusal, shelf: &mut impl Shelf) {
        if let [key] = keys {
            let pieces = self
                .in_flight
                .get(key)
                .and_then(|parcel| parcel.split(*key));
            let Some(pieces) = pieces else {
                let cause = match refusal.verdict {
                    Verdict::TooLarge => "too_large",
                    _ => "rejected",
                };
                self.give_up(*key, cause, refusal, shelf);
                return;
            };
            for (piece, parcel) in pieces {
                if self.open.contains_key(&(key.start, key.window)) {
                    let window = self.open.entry((key.start, key.window)).or_default();
                    window.insert(piece.part);
                }
                self.troubles.entry(piece).or_default().alone = true;
                self.held.push_back(Held {
                    key: piece,
                    bytes: parcel.encoded_len(),
                    parcel: Arc::new(parcel),
                    on_shelf: false,
                });
            }
            self.forget(*key, shelf);
        } else {
            for key in keys {
                self.troubles.entry(*key).or_default().alone = true;
            }
        }
        // From the shelf each goes alone.
        self.shelve_held(shelf);
    }

    fn give_up(
        &mut self,
        key: Key,
        cause: &'static str,
        refusal: &Refusal,
        shelf: &mut impl Shelf,
    ) {
        let samples = self
            .in_flight
            .get(&key)
            .map_or(0, |parcel| parcel.samples());
        self.account.drop_samples(cause, samples);
        self.notes.push(Note::GivenUp {
            samples,
            refusal: refusal.clone(),
        });
        self.forget(key, shelf);
    }

    /// Puts all fresh parcels on the shelf; those that do not fit there stay in memory.
    fn shelve_held(&mut self, shelf: &mut impl Shelf) {
        let mut at = 0;
        while at < self.held.len() {
            let on_shelf = self.held.get(at).is_some_and(|held| held.on_shelf);
            if !on_shelf && !self.shelve(at, shelf) {
                at += 1;
                continue;
            }
            self.held.remove(at);
        }
    }

    /// Puts one on the shelf, where it stays in memory too.
    fn shelve(&mut self, at: usize, shelf: &mut impl Shelf) -> bool {
        let Some(held) = self.held.get_mut(at) else {
            return false;
        };
        let key = held.key;
        let (result, dropped) = shelf.append(key, &held.parcel);
        let shelved = match result {
            Ok(()) => {
                held.on_shelf = true;
                self.spool_fails = false;
                self.settle(key);
                true
            }
            Err(error) => {
                if !self.spool_fails {
                    self.notes.push(Note::SpoolFails(error));
                }
                self.spool_fails = true;
                false
            }
        };
        self.on_dropped(dropped);
        shelved
    }

    /// Drops the oldest when memory is all there is and full.
    fn bound_memory(&mut self) {
        let mut bytes: usize = self.held.iter().map(|held| held.bytes).sum();
        let in_flight = self.flight.clone().unwrap_or_default();
        let mut at = 0;
        while bytes > MAX_MEMORY && at < self.held.len() {
            let Some(held) = self
                .held
                .get(at)
                .filter(|held| !in_flight.contains(&held.key))
            else {
                at += 1;
                continue;
            };
            let (key, on_shelf) = (held.key, held.on_shelf);
            let samples = held.parcel.samples();
            bytes -= held.bytes;
            self.held.remove(at);
            if !on_shelf {
                self.account.drop_samples("memory_full", samples);
                self.troubles.remove(&key);
                self.settle(key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
