//! The engine against a shelf in memory and a store that answers as told.

use super::*;
use crate::remote::parcel::Series;

const SECOND: u64 = 1_000_000_000;
const INTERVAL: Duration = Duration::from_secs(10);
const REQUEST: usize = 1000;

/// A spool without a disk.
#[derive(Debug, Default)]
struct Memory {
    parcels: BTreeMap<Key, Parcel>,
    entries: BTreeMap<Key, Entry>,
    full: bool,
    damaged: Option<Key>,
}

impl Shelf for Memory {
    fn entries(&self) -> &BTreeMap<Key, Entry> {
        &self.entries
    }

    fn append(&mut self, key: Key, parcel: &Parcel) -> (Result<(), SpoolError>, Vec<Dropped>) {
        if self.full {
            return (Err(SpoolError::Bound), Vec::new());
        }
        let (samples, bytes) = (parcel.samples(), parcel.encoded_len() as u64);
        self.entries.insert(key, Entry { samples, bytes });
        self.parcels.insert(key, parcel.clone());
        (Ok(()), Vec::new())
    }

    fn load(&self, key: Key) -> Result<Parcel, LoadError> {
        if self.damaged == Some(key) {
            return Err(LoadError::Damaged(
                crate::remote::spool::record::RecordFault::Checksum,
            ));
        }
        Ok(self.parcels[&key].clone())
    }

    fn remove(&mut self, key: Key) {
        self.entries.remove(&key);
        self.parcels.remove(&key);
    }
}

fn parcel(samples: &[u64], bytes: usize) -> Parcel {
    let series = samples.iter().map(|samples| Series {
        labels: Vec::new(),
        profile: vec![0; bytes].into(),
        samples: *samples,
    });
    Parcel {
        series: series.collect(),
    }
}

fn key(window: u64) -> Key {
    Key {
        start: window,
        window,
        part: 0,
    }
}

fn refusal(verdict: Verdict) -> Refusal {
    Refusal {
        verdict,
        code: "code",
        text: String::new(),
    }
}

struct Run {
    engine: Engine,
    shelf: Memory,
    now: u64,
}

impl Run {
    fn new() -> Self {
        Self::over(Memory::default())
    }

    fn over(shelf: Memory) -> Self {
        Self {
            engine: Engine::new(INTERVAL, REQUEST, &shelf),
            shelf,
            now: 0,
        }
    }

    fn window(&mut self, window: u64, samples: &[u64], bytes: usize) {
        let parcels = vec![(key(window), parcel(samples, bytes))];
        self.engine
            .on_window((window, window), parcels, self.now, &mut self.shelf);
        self.check();
    }

    /// Windows of the next request.
    fn request(&mut self) -> Option<Vec<u64>> {
        let request = self.engine.next_request(self.now, &mut self.shelf)?;
        Some(request.parcels.iter().map(|(key, _)| key.window).collect())
    }

    fn answer(&mut self, answer: Result<(), Verdict>) {
        let answer = answer.map_err(refusal);
        self.engine
            .on_answer(answer, self.now, 0.5, &mut self.shelf);
        self.check();
    }

    fn pass(&mut self, seconds: u64) {
        self.now += seconds * SECOND;
    }

    /// The account adds up, and what is queued is where it should be.
    fn check(&self) {
        let account = self.engine.account();
        let spooled: u64 = self.shelf.entries.values().map(|entry| entry.samples).sum();
        assert_eq!(account.queued(), spooled + self.engine.held_samples());
    }

    fn settled(&mut self) -> Vec<u64> {
        let settled = self.engine.take_settled();
        settled.into_iter().map(|(_, window)| window).collect()
    }

    fn account(&self) -> (u64, u64) {
        let account = self.engine.account();
        (account.produced, account.delivered)
    }
}

#[test]
fn fresh_windows_go_together_at_the_interval() {
    let mut run = Run::new();
    run.window(1, &[5], 10);
    assert_eq!(run.request(), None);
    run.pass(5);
    run.window(2, &[6], 10);
    run.pass(5);
    assert_eq!(run.request(), Some(vec![1, 2]));
    assert_eq!(run.request(), None, "one at a time");
    assert!(run.settled().is_empty());
    run.answer(Ok(()));
    assert_eq!((run.settled(), run.account()), (vec![1, 2], (11, 11)));
}

#[test]
fn the_last_window_is_settled_at_once_and_sent_once() {
    let mut run = Run::new();
    run.window(1, &[5], 10);
    run.pass(10);
    assert_eq!(run.request(), Some(vec![1]));
    // While one is under way.
    run.window(2, &[6], 10);
    run.engine.on_last(&mut run.shelf);
    run.check();
    assert_eq!(run.settled(), vec![1, 2]);
    run.answer(Ok(()));
    assert_eq!(run.request(), Some(vec![2]));
    run.answer(Ok(()));
    assert_eq!(run.request(), None);
    assert_eq!(run.account(), (11, 11));
    assert!(run.shelf.entries.is_empty());
}

#[test]
fn requests_are_bounded_and_a_full_one_does_not_wait() {
    let mut run = Run::new();
    for window in 1..=3 {
        run.window(window, &[1], 450);
    }
    assert_eq!(run.request(), Some(vec![1, 2]));
    run.answer(Ok(()));
    run.pass(10);
    assert_eq!(run.request(), Some(vec![3]));
}

#[test]
fn only_few_windows_are_in_memory_alone() {
    let mut run = Run::new();
    for window in 1..=5 {
        run.window(window, &[1], 10);
    }
    // Written ahead: the symbolizer need not keep them.
    assert_eq!(run.settled(), [1, 2, 3]);
    assert_eq!(run.shelf.entries.len(), 3);
    run.pass(10);
    assert_eq!(run.request(), Some(vec![1, 2, 3, 4, 5]));
    run.answer(Ok(()));
    assert_eq!((run.settled(), run.account()), (vec![4, 5], (5, 5)));
    assert!(run.shelf.entries.is_empty());
}

#[test]
fn what_fails_is_spooled_and_sent_oldest_first_beside_fresh_windows() {
    let mut run = Run::new();
    run.window(1, &[1], 600);
    run.pass(10);
    run.request().unwrap();
    run.answer(Err(Verdict::Retry));
    assert_eq!((run.settled(), run.shelf.entries.len()), (vec![1], 1));
    for window in 2..=4 {
        run.pass(10);
        run.window(window, &[1], 600);
        if run.request().is_some() {
            run.answer(Err(Verdict::Retry));
        }
    }
    let away = |note: &Note| matches!(note, Note::StoreAway(_));
    assert_eq!(
        run.engine
            .take_notes()
            .iter()
            .filter(|note| away(note))
            .count(),
        1
    );
    run.pass(60);
    assert_eq!(run.request(), Some(vec![1]), "the oldest asks");
    run.answer(Ok(()));
    assert!(matches!(
        run.engine.take_notes()[..],
        [Note::StoreBack { spooled: 3 }]
    ));
    run.window(5, &[1], 600);
    run.pass(10);
    assert_eq!(run.request(), Some(vec![5]), "fresh when it is due");
    run.answer(Ok(()));
    for window in 2..=4 {
        assert_eq!(run.request(), Some(vec![window]));
        run.answer(Ok(()));
    }
    assert_eq!(run.account(), (5, 5));
}

#[test]
fn a_wrong_series_is_found_and_costs_only_itself() {
    let mut run = Run::new();
    run.window(1, &[1, 10, 100], 10);
    run.window(2, &[1000], 10);
    run.pass(10);
    assert_eq!(run.request(), Some(vec![1, 2]));
    run.answer(Err(Verdict::Final));
    // The series with ten samples is what the store does not take.
    for _ in 0..10 {
        let Some(request) = run.engine.next_request(run.now, &mut run.shelf) else {
            break;
        };
        let wrong = request
            .parcels
            .iter()
            .any(|(_, parcel)| parcel.series.iter().any(|series| series.samples == 10));
        run.answer(if wrong { Err(Verdict::Final) } else { Ok(()) });
    }
    assert_eq!(run.account(), (1111, 1101));
    assert_eq!(
        run.engine.account().dropped,
        BTreeMap::from([("rejected", 10)])
    );
    assert!(run.shelf.entries.is_empty());
}

#[test]
fn a_parcel_that_breaks_the_store_stops_no_other_and_is_given_up() {
    let mut shelf = Memory::default();
    for window in 1..=20 {
        shelf.append(key(window), &parcel(&[1], 900)).0.unwrap();
    }
    let mut run = Run::over(shelf);
    let mut first_deliveries = None;
    for turn in 0..200 {
        run.pass(30);
        run.window(1000 + turn, &[1], 10);
        while let Some(windows) = run.request() {
            let breaks = windows.contains(&1);
            run.answer(if breaks { Err(Verdict::Retry) } else { Ok(()) });
            if run.shelf.entries.len() <= 1 {
                first_deliveries.get_or_insert(turn);
            }
            if breaks {
                break;
            }
        }
    }
    assert!(
        first_deliveries.is_some_and(|turn| turn < 20),
        "{first_deliveries:?}"
    );
    assert_eq!(
        run.engine.account().dropped,
        BTreeMap::from([("poisoned", 1)])
    );
}

#[test]
fn nothing_is_given_up_while_the_store_takes_nothing() {
    let mut run = Run::new();
    for window in 1..=50 {
        run.window(window, &[1], 400);
        run.pass(30);
        if run.request().is_some() {
            let verdict = [Verdict::Retry, Verdict::Later][(window % 2) as usize];
            run.answer(Err(verdict));
        }
    }
    assert!(run.engine.account().dropped.is_empty());
    assert!(run.engine.take_notes().len() <= 2);
    for _ in 0..200 {
        run.pass(60);
        if run.request().is_some() {
            run.answer(Ok(()));
        }
    }
    assert_eq!(run.account(), (50, 50));
}

#[test]
fn a_window_that_comes_again_counts_once() {
    let mut run = Run::new();
    run.window(1, &[7], 10);
    run.window(1, &[7], 10);
    run.pass(10);
    run.request().unwrap();
    run.window(1, &[7], 10);
    run.answer(Ok(()));
    run.window(1, &[7], 10);
    assert_eq!(run.account(), (7, 7));
    assert_eq!(run.settled(), [1, 1], "the second time it is said again");
    run.window(2, &[8], 10);
    run.engine.finish(&mut run.shelf);
    let mut next = Run::over(run.shelf);
    next.window(2, &[8], 10);
    assert_eq!((next.settled(), next.account()), (vec![2], (8, 0)));
    assert_eq!(next.engine.account().recovered, 8);
}

#[test]
fn without_a_disk_memory_is_bounded_and_counted() {
    let mut run = Run::new();
    run.shelf.full = true;
    let size = MAX_MEMORY / 4;
    for window in 1..=6 {
        run.window(window, &[1], size);
    }
    assert_eq!(run.engine.account().dropped["memory_full"], 3);
    assert_eq!(run.settled(), [1, 2, 3]);
    let fails = |note: &Note| matches!(note, Note::SpoolFails(_));
    assert_eq!(
        run.engine
            .take_notes()
            .iter()
            .filter(|note| fails(note))
            .count(),
        1
    );
    run.shelf.full = false;
    run.engine.finish(&mut run.shelf);
    assert_eq!(run.settled(), [4, 5, 6]);
    run.check();
}

#[test]
fn a_damaged_record_is_dropped_and_counted() {
    let mut shelf = Memory::default();
    for window in 1..=2 {
        shelf.append(key(window), &parcel(&[4], 10)).0.unwrap();
    }
    shelf.damaged = Some(key(1));
    let mut run = Run::over(shelf);
    assert_eq!(run.request(), Some(vec![2]));
    run.answer(Ok(()));
    assert_eq!(run.engine.account().dropped["spool_damaged"], 4);
    assert_eq!(run.account(), (8, 4));
}
