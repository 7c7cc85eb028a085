//! Numbers as people read them. Knows no profile.

/// Writes a profile's values in one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit<'a> {
    /// Things counted.
    Count,
    /// Time.
    Nanoseconds,
    /// Memory.
    Bytes,
    /// Anything else, named behind the number.
    Other(&'a str),
}

impl<'a> Unit<'a> {
    pub(crate) fn new(name: &'a str) -> Self {
        match name {
            "" | "count" | "samples" => Self::Count,
            "nanoseconds" | "ns" => Self::Nanoseconds,
            "bytes" => Self::Bytes,
            other => Self::Other(other),
        }
    }

    /// The value with as many digits as tell something.
    pub(crate) fn show(self, value: i64) -> String {
        match self {
            Self::Count => grouped(value),
            Self::Nanoseconds => duration(value),
            Self::Bytes => bytes(value),
            Self::Other(unit) => format!("{} {unit}", grouped(value)),
        }
    }
}

/// `1,234,567`.
pub(crate) fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut shown = String::from(if value < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `1.50 s`, `10.3 ms`.
pub(crate) fn duration(nanos: i64) -> String {
    const UNITS: [(f64, &str); 4] = [(1.0, "ns"), (1e3, "us"), (1e6, "ms"), (1e9, "s")];
    scaled(nanos, &UNITS)
}

/// `1.50 MiB`.
fn bytes(count: i64) -> String {
    const KIB: f64 = 1024.0;
    const UNITS: [(f64, &str); 5] = [
        (1.0, "B"),
        (KIB, "KiB"),
        (KIB * KIB, "MiB"),
        (KIB * KIB * KIB, "GiB"),
        (KIB * KIB * KIB * KIB, "TiB"),
    ];
    scaled(count, &UNITS)
}

/// In the largest unit that is not larger than the value; `units` by size.
fn scaled(value: i64, units: &[(f64, &str)]) -> String {
    let amount = value as f64;
    let fits = |unit: &&(f64, &str)| amount.abs() >= unit.0;
    let (size, unit) = units
        .iter()
        .rev()
        .find(fits)
        .or(units.first())
        .copied()
        .unwrap_or((1.0, ""));
    let shown = amount / size;
    let decimals = match shown.abs() {
        _ if size == 1.0 => 0,
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    format!("{shown:.decimals$} {unit}")
}

/// `12.3 %` of `whole`; nothing of nothing.
pub(crate) fn percent(part: i64, whole: i64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", 100.0 * part as f64 / whole as f64)
}

/// `2026-11-24 13:52:38 UTC` ("civil_from_days", H. Hinnant, chrono-compatible low-level date algorithms).
pub(crate) fn date(nanos_since_1970: i64) -> String {
    let seconds = nanos_since_1970.div_euclid(1_000_000_000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
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
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown = [0, 7, 999, 1000, -1234, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "7", "999", "1,000", "-1,234", "1,234,567"]);
        assert_eq!(grouped(i64::MIN), "-9,223,372,036,854,775,808");
    }

    #[test]
    fn units_fit_the_value() {
        assert_eq!(Unit::new("nanoseconds").show(10_309_278), "10.3 ms");
        assert_eq!(Unit::new("nanoseconds").show(999), "999 ns");
        assert_eq!(Unit::new("nanoseconds").show(0), "0 ns");
        assert_eq!(Unit::new("nanoseconds").show(-1_500_000_000), "-1.50 s");
        assert_eq!(Unit::new("bytes").show(1_572_864), "1.50 MiB");
        assert_eq!(Unit::new("count").show(1500), "1,500");
        assert_eq!(Unit::new("objects").show(1500), "1,500 objects");
    }

    #[test]
    fn shares_have_one_decimal() {
        assert_eq!(percent(1, 3), "33.3 %");
        assert_eq!(percent(0, 0), "-");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(1_795_528_358_999_999_999), "2026-11-24 13:52:38 UTC");
        assert_eq!(date(951_782_400_000_000_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(-1), "1969-12-31 23:59:59 UTC");
        date(i64::MIN);
        date(i64::MAX);
    }
}
