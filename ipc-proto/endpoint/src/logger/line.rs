//! One event as text: logfmt or JSON. Names of profiled processes may be in it, so it is escaped.

use std::fmt::Write as _;

use log::Level;

use super::Format;

/// An event.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) level: Level,
    pub(super) process: &'static str,
    pub(super) file: &'a str,
    pub(super) line: u32,
    pub(super) message: String,
    /// Events held back at the same place before it.
    pub(super) suppressed: u32,
}

impl Line<'_> {
    /// Its level in small letters.
    pub(super) fn level(&self) -> &'static str {
        match self.level {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }

    /// With its end of line; `time`: nanoseconds since 1970 UTC.
    pub(super) fn text(&self, format: Format, time: u64) -> String {
        let Self { file, line, .. } = self;
        let (level, process) = (self.level(), self.process);
        let time = timestamp(time);
        let message = quoted(&self.message);
        let mut text = match format {
            Format::Logfmt => format!(
                "level={level} ts={time} caller={file}:{line} process={process} msg={message}"
            ),
            Format::Json => format!(
                "{{\"level\":\"{level}\",\"ts\":\"{time}\",\"caller\":\"{file}:{line}\",\"process\":\"{process}\",\"msg\":{message}"
            ),
        };
        if self.suppressed > 0 {
            let key = match format {
                Format::Logfmt => " suppressed=",
                Format::Json => ",\"suppressed\":",
            };
            let _infallible = write!(text, "{key}{}", self.suppressed);
        }
        text.push_str(match format {
            Format::Logfmt => "\n",
            Format::Json => "}\n",
        });
        text
    }
}

/// In quotes as JSON has them, which logfmt reads too: nothing in it ends the line or moves a terminal's cursor.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            character if character.is_control() => {
                let _infallible = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(nanos: u64) -> String {
    let (seconds, millis) = (nanos / 1_000_000_000, nanos / 1_000_000 % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The date of a day since 1970-01-01 ("civil_from_days", Howard Hinnant's chrono-compatible date algorithms).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, suppressed: u32) -> Line<'static> {
        Line {
            level: Level::Warn,
            process: "sampler",
            file: "sampler/src/main.rs",
            line: 7,
            message: message.to_owned(),
            suppressed,
        }
    }

    #[test]
    fn an_event_is_one_line_in_both_formats() {
        // 2026-11-25T19:07:10.5Z
        let time = 1_795_633_630_500_000_000;
        assert_eq!(
            line("a \"b\"\n\u{1b}[31m", 0).text(Format::Logfmt, time),
            "level=warn ts=2026-11-25T19:07:10.500Z caller=sampler/src/main.rs:7 process=sampler msg=\"a \\\"b\\\"\\n\\u001b[31m\"\n"
        );
        assert_eq!(
            line("x", 3).text(Format::Json, time),
            "{\"level\":\"warn\",\"ts\":\"2026-11-25T19:07:10.500Z\",\"caller\":\"sampler/src/main.rs:7\",\"process\":\"sampler\",\"msg\":\"x\",\"suppressed\":3}\n"
        );
    }

    #[test]
    fn dates_know_leap_years() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(19_782), (2024, 2, 29));
        assert_eq!(date(20_782), (2026, 11, 25));
    }
}
