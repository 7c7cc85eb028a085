//! Which windows the local store holds: names of its files and their order. Never opens one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// Windows remembered: a day of ten-second windows. Older files are left to the shipper's retention.
pub(crate) const MAX_WINDOWS: usize = 8640;
/// Windows merged into one view.
pub(crate) const MAX_MERGED: usize = 360;
const PREFIX: &str = "leadsman-";
const SUFFIX: &str = ".pb.gz";
const MILLIS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// A window by its start, in milliseconds since 1970 UTC. Written `20261124T124500.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WindowId(u64);

impl WindowId {
    /// The window of a store's file; nothing for other files, such as those still being written.
    pub(crate) fn from_file_name(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?)
    }

    /// The file that holds the window.
    pub(crate) fn file_name(self) -> String {
        format!("{PREFIX}{self}{SUFFIX}")
    }

    /// Reads `YYYYMMDDThhmmss.mmmZ`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 20
            || bytes.get(8) != Some(&b'T')
            || bytes.get(15) != Some(&b'.')
            || bytes.get(19) != Some(&b'Z')
        {
            return None;
        }
        let number = |from: usize, to: usize| -> Option<u64> {
            let digits = text.get(from..to)?;
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| digits.parse().ok())
                .flatten()
        };
        let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
        let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
        let millis = number(16, 19)?;
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days_since_1970(year, month, day)?;
        let seconds = (days * 24 + hour) * 3600 + minute * 60 + second;
        let id = Self(seconds * 1000 + millis);
        // A day that its month doesn't have reads as another one.
        (id.to_string() == text).then_some(id)
    }

    /// The window that starts at a time since 1970 UTC, milliseconds counted.
    pub(crate) fn from_start(start: Duration) -> Self {
        Self(u64::try_from(start.as_millis()).unwrap_or(u64::MAX))
    }

    /// The window's start since 1970 UTC.
    pub(crate) fn start(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for WindowId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.0 / MILLIS_PER_DAY);
        let of_day = self.0 % MILLIS_PER_DAY;
        let seconds = of_day / 1000;
        write!(
            formatter,
            "{year:04}{month:02}{day:02}T{:02}{:02}{:02}.{:03}Z",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            of_day % 1000
        )
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar ("days_from_civil", H. Hinnant, chrono-compatible low-level
/// date algorithms); nothing before 1970.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year_from_march = if month <= 2 { year - 1 } else { year };
    let era = year_from_march / 400;
    let year_of_era = year_from_march % 400;
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

/// The inverse of [`days_since_1970`] ("civil_from_days").
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Which windows a view is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowChoice {
    /// The newest ones.
    Last(usize),
    /// All from the first to the last, both included.
    Between(WindowId, WindowId),
}

/// What was wrong with a choice of windows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ChoiceError {
    /// Neither of the forms.
    #[error("window: expected last:N, an id like 20261124T124500.000Z or id..id, found {0:?}")]
    Malformed(String),
    /// A count out of bounds.
    #[error("window: last:N takes 1 to {MAX_MERGED}")]
    Count,
}

impl WindowChoice {
    /// Reads `last:N`, `ID` or `ID..ID`.
    ///
    /// # Errors
    /// [`ChoiceError`].
    pub(crate) fn parse(text: &str) -> Result<Self, ChoiceError> {
        let malformed = || ChoiceError::Malformed(text.chars().take(64).collect());
        let id = |text: &str| WindowId::parse(text).ok_or_else(malformed);
        if let Some(count) = text.strip_prefix("last:") {
            let count: usize = count.parse().map_err(|_not_a_number| malformed())?;
            return if (1..=MAX_MERGED).contains(&count) {
                Ok(Self::Last(count))
            } else {
                Err(ChoiceError::Count)
            };
        }
        match text.split_once("..") {
            Some((first, last)) => Ok(Self::Between(id(first)?, id(last)?)),
            None => id(text).map(|id| Self::Between(id, id)),
        }
    }
}

/// The windows of the store with their files' bytes.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    files: BTreeMap<WindowId, u64>,
}

impl Windows {
    /// Replaces the list by the store's present one and returns the windows that are new, oldest first.
    pub(crate) fn replace(&mut self, mut present: Vec<(WindowId, u64)>) -> Vec<WindowId> {
        present.sort_unstable();
        let surplus = present.len().saturating_sub(MAX_WINDOWS);
        let files: BTreeMap<_, _> = present.into_iter().skip(surplus).collect();
        let newest_known = self.newest();
        let new = files
            .keys()
            .filter(|id| newest_known.is_none_or(|newest| **id > newest))
            .copied()
            .collect();
        self.files = files;
        new
    }

    /// Whether a window is there.
    pub(crate) fn contains(&self, id: WindowId) -> bool {
        self.files.contains_key(&id)
    }

    /// The newest window.
    pub(crate) fn newest(&self) -> Option<WindowId> {
        self.files.keys().next_back().copied()
    }

    /// Number of windows.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.values().sum()
    }

    /// The newest `count` windows, newest first, with their files' bytes.
    pub(crate) fn newest_first(&self, count: usize) -> impl Iterator<Item = (WindowId, u64)> {
        self.files
            .iter()
            .rev()
            .take(count)
            .map(|(id, bytes)| (*id, *bytes))
    }

    /// The windows of a choice that exist, oldest first, at most [`MAX_MERGED`] (the newest of them).
    pub(crate) fn chosen(&self, choice: WindowChoice) -> Vec<WindowId> {
        let mut chosen: Vec<WindowId> = match choice {
            WindowChoice::Last(count) => self.files.keys().rev().take(count).copied().collect(),
            WindowChoice::Between(first, last) if first <= last => self
                .files
                .range(first..=last)
                .rev()
                .take(MAX_MERGED)
                .map(|(id, _)| *id)
                .collect(),
            WindowChoice::Between(..) => Vec::new(),
        };
        chosen.reverse();
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> WindowId {
        WindowId::parse(text).expect(text)
    }

    #[test]
    fn names_are_times() {
        let window = id("20261124T124500.250Z");
        assert_eq!(window.start(), Duration::from_millis(1_795_524_300_250));
        assert_eq!(window.file_name(), "leadsman-20261124T124500.250Z.pb.gz");
        assert_eq!(WindowId::from_file_name(&window.file_name()), Some(window));
        assert_eq!(id("19700101T000000.000Z").start(), Duration::ZERO);
        assert_eq!(
            id("20240229T235959.999Z").to_string(),
            "20240229T235959.999Z"
        );
    }

    #[test]
    fn other_files_are_no_windows() {
        for name in [
            "",
            ".leadsman-20261124T124500.000Z.pb.gz",
            ".leadsman-20261124T124500.000Z.pb.gz.tmp",
            "leadsman-20261124T124500.000Z.pb",
            "leadsman-20261131T124500.000Z.pb.gz",
            "leadsman-20230229T124500.000Z.pb.gz",
            "leadsman-20261124T246000.000Z.pb.gz",
            "leadsman-+0261124T124500.000Z.pb.gz",
            "leadsman-19691231T235959.999Z.pb.gz",
            "leadsman-2026112éT12450.000Z.pb.gz",
            "profile.pb.gz",
        ] {
            assert_eq!(WindowId::from_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn new_windows_are_named_once() {
        let mut windows = Windows::default();
        let (a, b, c) = (
            id("20261124T124500.000Z"),
            id("20261124T124510.000Z"),
            id("20261124T124520.000Z"),
        );
        assert_eq!(windows.replace(vec![(b, 7), (a, 5)]), [a, b]);
        assert_eq!(windows.replace(vec![(a, 5), (b, 7)]), []);
        assert_eq!(windows.replace(vec![(b, 7), (c, 9)]), [c], "a was retired");
        assert_eq!(windows.len(), 2);
        assert_eq!(windows.bytes(), 16);
        assert_eq!(windows.chosen(WindowChoice::Last(9)), [b, c]);
        assert_eq!(windows.chosen(WindowChoice::Last(1)), [c]);
        assert_eq!(windows.chosen(WindowChoice::Between(a, b)), [b]);
        assert_eq!(windows.chosen(WindowChoice::Between(c, a)), []);
        assert_eq!(windows.newest_first(1).collect::<Vec<_>>(), [(c, 9)]);
    }

    #[test]
    fn choices_are_read() {
        let a = id("20261124T124500.000Z");
        assert_eq!(WindowChoice::parse("last:3"), Ok(WindowChoice::Last(3)));
        assert_eq!(
            WindowChoice::parse(&a.to_string()),
            Ok(WindowChoice::Between(a, a))
        );
        assert_eq!(
            WindowChoice::parse(&format!("{a}..{a}")),
            Ok(WindowChoice::Between(a, a))
        );
        assert_eq!(WindowChoice::parse("last:0"), Err(ChoiceError::Count));
        assert_eq!(WindowChoice::parse("last:99999"), Err(ChoiceError::Count));
        assert!(matches!(
            WindowChoice::parse("latest"),
            Err(ChoiceError::Malformed(_))
        ));
        assert!(matches!(
            WindowChoice::parse("../../etc/passwd"),
            Err(ChoiceError::Malformed(_))
        ));
    }

    proptest! {
        #[test]
        fn every_time_has_one_name(millis in 0u64..253_402_300_800_000) {
            let window = WindowId(millis);
            prop_assert_eq!(WindowId::parse(&window.to_string()), Some(window));
        }

        #[test]
        fn names_sort_as_times(a in 0u64..253_402_300_800_000, b in 0u64..253_402_300_800_000) {
            prop_assert_eq!(a.cmp(&b), WindowId(a).to_string().cmp(&WindowId(b).to_string()));
        }

        #[test]
        fn any_text_is_survived(text in any::<String>()) {
            let _ = WindowId::from_file_name(&text);
            let _ = WindowChoice::parse(&text);
        }
    }
}
