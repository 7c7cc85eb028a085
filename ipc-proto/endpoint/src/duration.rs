//! Durations as people write them: `10s`, `1m30s`, `500ms`, `2h`, `7d`; a bare number is seconds.

use std::time::Duration;

/// Longest that makes sense anywhere: ten years.
const MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Reads a duration.
///
/// # Errors
/// One line on what is wrong.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 10s, 500ms or 1m30s");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|character: char| !character.is_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 0.001,
            "s" => 1.0,
            "" if after.is_empty() && total.is_zero() => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_no_number| wrong())?;
        let part =
            Duration::try_from_secs_f64(number * seconds).map_err(|_range| too_long(text))?;
        total = total.checked_add(part).ok_or_else(|| too_long(text))?;
        rest = after;
    }
    if total > MAX {
        return Err(too_long(text));
    }
    Ok(total)
}

/// Reads a duration that is not zero.
///
/// # Errors
/// One line on what is wrong.
pub fn parse_positive(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err(format!("{text:?} is no time at all")),
        duration => Ok(duration),
    }
}

fn too_long(text: &str) -> String {
    format!("{text:?} is longer than ten years")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_durations_in_several_ways() {
        for (text, millis) in [
            ("10s", 10_000),
            ("10", 10_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("0.5s", 500),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for text in [
            "",
            "s",
            "soon",
            "-5s",
            "10x",
            "1m30",
            "99999999999d",
            "1e400s",
            "1..2s",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        assert!(parse_positive("0s").is_err());
    }
}
