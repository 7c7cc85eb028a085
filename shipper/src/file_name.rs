//! Names of the local store's files: `leadsman-20261124T124500.000Z.pb.gz`, the window's start in UTC, so that names sort
//! by time. Never looks at a clock.

use std::fmt;

const PREFIX: &str = "leadsman-";
const SUFFIX: &str = ".pb.gz";
const TEMPORARY_PREFIX: &str = ".leadsman-";
const TEMPORARY_SUFFIX: &str = ".tmp";
const MILLIS_PER_DAY: u64 = 24 * 60 * 60 * 1000;
/// Last millisecond of the year 9999: the name has four digits for it.
const MAX_MILLIS: u64 = 253_402_300_799_999;

/// A window's start, milliseconds since 1970 UTC; shown as `20261124T124500.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowStart(u64);

impl WindowStart {
    /// The start given in CLOCK_REALTIME nanoseconds, cut to milliseconds.
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Self {
        Self((nanos / 1_000_000).min(MAX_MILLIS))
    }

    /// Milliseconds since 1970 UTC.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0
    }

    /// The name of the window's file.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{PREFIX}{self}{SUFFIX}")
    }

    /// The name while the file is being written.
    #[must_use]
    pub fn temporary_name(self) -> String {
        format!("{TEMPORARY_PREFIX}{self}{SUFFIX}{TEMPORARY_SUFFIX}")
    }

    /// The window whose finished file has that name.
    #[must_use]
    pub fn from_file_name(name: &str) -> Option<Self> {
        let text = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let number = |from: usize, to: usize| -> Option<u64> {
            let digits = text.get(from..to)?;
            let decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
            decimal.then(|| digits.parse().ok()).flatten()
        };
        let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
        let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
        let millis = number(16, 19)?;
        let days = days_since_1970(year, month, day)?;
        let start = Self(((days * 24 + hour) * 3600 + minute * 60 + second) * 1000 + millis);
        // Fields out of range and other separators read as another time.
        (start.to_string() == text).then_some(start)
    }
}

/// Whether a file is what a killed run left half written.
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX)
}

impl fmt::Display for WindowStart {
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

/// Days from 1970-01-01 to a date of the Gregorian calendar (H. Hinnant, "chrono-compatible low-level date algorithms",
/// `days_from_civil`).
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year_from_march = if month <= 2 { year - 1 } else { year };
    let era = year_from_march / 400;
    let year_of_era = year_from_march % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

/// The inverse of [`days_since_1970`] (`civil_from_days`).
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
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_written_as_utc() {
        // `date -u -d @1795524300.25`.
        let start = WindowStart::from_nanos(1_795_524_300_250_999_999);
        assert_eq!(start.file_name(), "leadsman-20261124T124500.250Z.pb.gz");
        assert_eq!(
            start.temporary_name(),
            ".leadsman-20261124T124500.250Z.pb.gz.tmp"
        );
        assert!(is_temporary(&start.temporary_name()));
        assert!(!is_temporary(&start.file_name()));
    }

    #[test]
    fn names_sort_like_times_and_read_back() {
        // Leap day, year's ends, the last millisecond that has a name.
        let starts = [
            0,
            951_782_399_999,
            951_782_400_000,
            1_798_761_599_999,
            MAX_MILLIS,
        ];
        let names: Vec<String> = starts.map(WindowStart).map(WindowStart::file_name).into();
        assert!(names.is_sorted());
        for (start, name) in starts.into_iter().zip(&names) {
            assert_eq!(WindowStart::from_file_name(name), Some(WindowStart(start)));
        }
        assert_eq!(
            WindowStart::from_nanos(u64::MAX).file_name().len(),
            names[0].len()
        );
    }

    #[test]
    fn other_names_are_no_windows() {
        for name in [
            "leadsman-20260230T000000.000Z.pb.gz",
            "leadsman-20261124T244500.000Z.pb.gz",
            "leadsman-20261124 124500.000Z.pb.gz",
            "leadsman-20261124T124500.000Z.pb",
            ".leadsman-20261124T124500.000Z.pb.gz.tmp",
            "leadsman-+0261124T124500.000Z.pb.gz",
            "leadsman-é.pb.gz",
            "",
        ] {
            assert_eq!(WindowStart::from_file_name(name), None, "{name}");
        }
    }
}
