//! What travels: the profiles of one window by label set, cut into parcels of bounded size. A parcel is delivered, spooled or
//! dropped as a whole.

use std::fmt;

use prost::Message;
use prost::bytes::Bytes;

/// Part numbers of whole parcels lie below, those of single series of a split one above.
const SPLIT: u32 = 1 << 16;

/// Which parcel: its window and its number in it. Orders by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Start of the window, CLOCK_REALTIME nanoseconds.
    pub start: u64,
    /// The window's number, unique within a sampler's run.
    pub window: u64,
    /// Number within the window.
    pub part: u32,
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:020}-{:020}-{:010}",
            self.start, self.window, self.part
        )
    }
}

/// A label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Message)]
pub struct Label {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A profile and its labels.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Series {
    /// Sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// A pprof profile, not compressed.
    #[prost(bytes = "bytes", tag = "2")]
    pub profile: Bytes,
    /// Its samples.
    #[prost(uint64, tag = "3")]
    pub samples: u64,
}

/// Profiles that travel together.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Parcel {
    /// The profiles.
    #[prost(message, repeated, tag = "1")]
    pub series: Vec<Series>,
}

impl Parcel {
    /// Its samples.
    #[must_use]
    pub fn samples(&self) -> u64 {
        let counts = self.series.iter().map(|series| series.samples);
        counts.fold(0, u64::saturating_add)
    }

    /// Its series as parcels of their own, when it has several.
    #[must_use]
    pub fn split(&self, key: Key) -> Option<Vec<(Key, Self)>> {
        if key.part >= SPLIT || self.series.len() < 2 {
            return None;
        }
        let first = (key.part + 1).saturating_mul(SPLIT);
        let keys = (first..).map(|part| Key { part, ..key });
        let parcels = self.series.iter().map(|series| Self {
            series: vec![series.clone()],
        });
        Some(keys.zip(parcels).collect())
    }
}

/// Puts series into parcels of at most `bytes` each; a series that is larger travels alone.
#[must_use]
pub fn pack(start: u64, window: u64, series: Vec<Series>, bytes: usize) -> Vec<(Key, Parcel)> {
    let mut parcels: Vec<Parcel> = Vec::new();
    let mut filled = usize::MAX;
    for one in series {
        let size = one.encoded_len();
        if filled.saturating_add(size) > bytes {
            parcels.push(Parcel::default());
            filled = 0;
        }
        filled += size;
        if let Some(last) = parcels.last_mut() {
            last.series.push(one);
        }
    }
    let keys = (0..SPLIT).map(|part| Key {
        start,
        window,
        part,
    });
    keys.zip(parcels).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(samples: u64, bytes: usize) -> Series {
        Series {
            labels: vec![],
            profile: vec![1; bytes].into(),
            samples,
        }
    }

    #[test]
    fn parcels_are_bounded_and_lose_nothing() {
        let all = vec![series(1, 40), series(2, 40), series(4, 500), series(8, 10)];
        let parcels = pack(7, 8, all, 100);
        let samples: Vec<u64> = parcels.iter().map(|(_, parcel)| parcel.samples()).collect();
        assert_eq!(samples, [3, 4, 8]);
        assert!(parcels.is_sorted_by_key(|(key, _)| *key));
    }

    #[test]
    fn a_parcel_splits_once_into_parcels_of_their_own() {
        let (key, parcel) = pack(7, 8, vec![series(1, 4), series(2, 4)], 100).remove(0);
        let pieces = parcel.split(key).unwrap();
        assert_eq!(pieces.len(), 2);
        assert_ne!(pieces[0].0, pieces[1].0);
        assert_ne!(pieces[0].0, key);
        assert!(pieces[0].1.split(pieces[0].0).is_none());
    }
}
