//! The spool on a real directory: what survives, what is given up, what is left behind.

use super::*;
use crate::remote::parcel::Series;

const LIMITS: Limits = Limits {
    max_bytes: 1 << 20,
    max_age: 1000,
};

fn key(start: u64) -> Key {
    Key {
        start,
        window: start + 1,
        part: 0,
    }
}

/// A parcel whose record has about so many bytes: noise does not compress.
fn parcel(samples: u64, bytes: usize) -> Parcel {
    let mut state = samples.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    Parcel {
        series: vec![Series {
            labels: Vec::new(),
            profile: noise.take(bytes).collect::<Vec<u8>>().into(),
            samples,
        }],
    }
}

fn gone(start: u64, cause: &'static str, samples: u64) -> Dropped {
    Dropped {
        key: key(start),
        cause,
        samples,
    }
}

fn files(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_next_run_finds_what_was_spooled() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(directory.path(), LIMITS).unwrap();
    for start in [3, 1, 2] {
        let (result, dropped) = spool.append(key(start), &parcel(start * 10, 50));
        assert_eq!((result, dropped), (Ok(()), vec![]));
    }
    drop(spool);
    let mut spool = Spool::open(directory.path(), LIMITS).unwrap();
    let starts: Vec<u64> = spool.entries().keys().map(|key| key.start).collect();
    assert_eq!(starts, [1, 2, 3]);
    assert_eq!(spool.samples(), 60);
    assert_eq!(spool.load(key(2)), Ok(parcel(20, 50)));
    spool.remove(key(2));
    assert_eq!(files(directory.path()).len(), 2);
}

#[test]
fn a_record_torn_at_any_byte_is_damaged_and_costs_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(directory.path(), LIMITS).unwrap();
    spool.append(key(1), &parcel(10, 60)).0.unwrap();
    spool.append(key(2), &parcel(20, 60)).0.unwrap();
    let name = &files(directory.path())[0];
    let path = directory.path().join(name);
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let spool = Spool::open(directory.path(), LIMITS).unwrap();
        assert_eq!(spool.samples(), 30, "the name still says how many are lost");
        assert!(matches!(spool.load(key(1)), Err(LoadError::Damaged(_))));
        assert_eq!(spool.load(key(2)), Ok(parcel(20, 60)));
    }
}

#[test]
fn a_half_written_file_is_removed_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(TEMPORARY), "half").unwrap();
    std::fs::write(directory.path().join("somebody else's"), "").unwrap();
    let spool = Spool::open(directory.path(), LIMITS).unwrap();
    assert_eq!((spool.torn(), spool.entries().len()), (1, 0));
    assert_eq!(files(directory.path()), ["somebody else's"]);
}

#[test]
fn the_oldest_make_room_and_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        max_bytes: 2500,
        ..LIMITS
    };
    let mut spool = Spool::open(directory.path(), limits).unwrap();
    for start in 1..=2 {
        spool.append(key(start), &parcel(start, 1000)).0.unwrap();
    }
    let (result, dropped) = spool.append(key(3), &parcel(3, 1000));
    assert_eq!((result, dropped), (Ok(()), vec![gone(1, "spool_bytes", 1)]));
    assert!(spool.bytes() <= limits.max_bytes);
    let (result, dropped) = spool.append(key(4), &parcel(4, 5000));
    assert_eq!((result, dropped), (Err(SpoolError::Bound), vec![]));
    assert_eq!(spool.samples(), 5);
}

#[test]
fn what_is_too_old_goes() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(directory.path(), LIMITS).unwrap();
    spool.append(key(100), &parcel(7, 10)).0.unwrap();
    spool.append(key(900), &parcel(8, 10)).0.unwrap();
    assert_eq!(spool.expire(1100), None);
    assert_eq!(spool.expire(1101), Some(gone(100, "spool_age", 7)));
    assert_eq!(spool.expire(1101), None);
    assert_eq!(spool.samples(), 8);
}

#[test]
fn the_same_window_again_takes_its_own_place() {
    let directory = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(directory.path(), LIMITS).unwrap();
    for samples in [5, 6] {
        spool.append(key(1), &parcel(samples, 10)).0.unwrap();
    }
    assert_eq!((spool.samples(), files(directory.path()).len()), (6, 1));
}
