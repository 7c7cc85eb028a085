//! Offers in, jobs and verdicts out.

use super::*;
use ipc_proto::codec::Bytes;

const RULES: Rules = Rules {
    wanted: true,
    max_parallel: 2,
    max_jobs: 4096,
    cache: 300 * SECOND,
};

fn id(number: u32) -> BuildId {
    Bytes(number.to_be_bytes().to_vec())
}

fn offer(number: u32) -> DebuginfoOffer {
    DebuginfoOffer {
        build_id: id(number),
        path: Bytes(b"/bin/x".to_vec()),
        size: 10,
        debug_size: 0,
    }
}

fn engine() -> Engine {
    Engine::new(RULES)
}

fn failed(again: Again) -> Outcome {
    Outcome::Failed {
        step: "initiate",
        cause: "unavailable",
        again,
        text: String::new(),
    }
}

#[test]
fn one_upload_for_each_build_id() {
    let mut engine = engine();
    assert_eq!(engine.on_offer(&offer(1), Ok(()), 0), Verdict::Accepted);
    for _ in 0..1000 {
        assert_eq!(engine.on_offer(&offer(1), Ok(()), 0), Verdict::Known);
    }
    assert_eq!(engine.next(0), Some(id(1)));
    assert_eq!(engine.next(0), None);
    let then = engine.on_outcome(&id(1), &Outcome::Uploaded { bytes: 7 }, 1);
    assert_eq!(then, Then::Close);
    let year = 365 * 24 * 3600 * SECOND;
    assert_eq!(engine.on_offer(&offer(1), Ok(()), year), Verdict::Known);
    assert_eq!((engine.uploaded_bytes, engine.offered_bytes), (7, 10));
}

#[test]
fn a_no_is_believed_for_a_while_and_not_at_all_without_caching() {
    let no = Outcome::NotNeeded("it is there".to_owned());
    for (cache, known_for) in [(300 * SECOND, 300 * SECOND), (0, 0)] {
        let mut engine = Engine::new(Rules { cache, ..RULES });
        engine.on_offer(&offer(1), Ok(()), 0);
        engine.next(0);
        assert_eq!(engine.on_outcome(&id(1), &no, 0), Then::Close);
        if known_for > 0 {
            let before = engine.on_offer(&offer(1), Ok(()), known_for - 1);
            assert_eq!(before, Verdict::Known);
        }
        let after = engine.on_offer(&offer(1), Ok(()), known_for);
        assert_eq!(after, Verdict::Accepted);
    }
}

#[test]
fn as_many_run_as_may() {
    let mut engine = engine();
    for number in 1..=3 {
        engine.on_offer(&offer(number), Ok(()), 0);
    }
    assert_eq!((engine.next(0), engine.next(0)), (Some(id(1)), Some(id(2))));
    assert_eq!((engine.next(0), engine.next_due()), (None, None));
    engine.on_outcome(&id(2), &Outcome::Exists, 0);
    assert_eq!(engine.next(0), Some(id(3)));
    assert_eq!(engine.counts(), (0, 2));
}

#[test]
fn failures_are_repeated_ever_more_slowly_and_then_given_up() {
    let mut engine = engine();
    engine.on_offer(&offer(1), Ok(()), 0);
    let (mut now, mut pauses) = (0, Vec::new());
    loop {
        assert_eq!(engine.next(now), Some(id(1)));
        match engine.on_outcome(&id(1), &failed(Again::Soon), now) {
            Then::Keep => {}
            then => {
                assert_eq!(then, Then::OfferAgain);
                break;
            }
        }
        let due = engine.next_due().expect("waits");
        assert_eq!(engine.next(due - 1), None);
        pauses.push(due - now);
        now = due;
    }
    assert!(pauses.is_sorted() && pauses[0] <= 2 * SECOND, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE * 5 / 4));
    assert!((PATIENCE..PATIENCE + 2 * LONGEST_PAUSE).contains(&now));
    assert_eq!(engine.on_offer(&offer(1), Ok(()), now), Verdict::Accepted);
}

#[test]
fn who_is_turned_away_comes_back_later_and_what_is_wrong_never() {
    let mut engine = engine();
    engine.on_offer(&offer(1), Ok(()), 0);
    engine.next(0);
    engine.on_outcome(&id(1), &failed(Again::Later), 0);
    assert!(engine.next_due().expect("waits") >= 20 * SECOND);
    let mut engine = self::engine();
    engine.on_offer(&offer(1), Ok(()), 0);
    engine.next(0);
    let then = engine.on_outcome(&id(1), &failed(Again::Never), 0);
    assert_eq!(then, Then::Close);
    assert_eq!(engine.on_offer(&offer(1), Ok(()), 1), Verdict::Known);
}

#[test]
fn room_is_bounded_and_comes_back() {
    let mut engine = engine();
    for number in 0..MAX_JOBS as u32 {
        assert_eq!(
            engine.on_offer(&offer(number), Ok(()), 0),
            Verdict::Accepted
        );
    }
    assert_eq!(engine.room(), 0);
    assert_eq!(engine.on_offer(&offer(999), Ok(()), 0), Verdict::Busy);
    let first = engine.next(0).expect("due");
    engine.on_outcome(&first, &Outcome::Exists, 0);
    assert_eq!(engine.room(), 1);
}

#[test]
fn nothing_is_wanted_without_a_store_and_bad_files_never() {
    let mut engine = Engine::new(Rules {
        wanted: false,
        ..RULES
    });
    assert_eq!(engine.room(), 0);
    assert_eq!(engine.on_offer(&offer(1), Ok(()), 0), Verdict::NotWanted);
    let mut engine = self::engine();
    let refused = engine.on_offer(&offer(1), Err(Fault::Format), 0);
    assert_eq!(refused, Verdict::Refused);
    let mut short = offer(1);
    short.build_id = Bytes(vec![1, 2, 3]);
    assert_eq!(engine.on_offer(&short, Ok(()), 0), Verdict::Refused);
    assert_eq!(engine.on_offer(&offer(1), Ok(()), 0), Verdict::Accepted);
}

#[test]
fn memory_of_answers_is_bounded() {
    let mut engine = engine();
    for number in 0..2 * MAX_ANSWERS as u32 {
        engine.on_offer(&offer(number), Ok(()), 0);
        engine.next(0);
        engine.on_outcome(&id(number), &Outcome::Exists, 0);
    }
    assert_eq!(
        (engine.answers.len(), engine.order.len()),
        (MAX_ANSWERS, MAX_ANSWERS)
    );
}
