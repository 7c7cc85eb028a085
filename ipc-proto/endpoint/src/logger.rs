//! Logs: one logfmt line an event on standard error, at most a few a second from each place in the code.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ipc_proto::hello::Role;
use log::{LevelFilter, Log, Metadata, Record};

/// Lines from one place in the code within [`INTERVAL`]; more are counted and said with the next.
const BURST: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);

struct Logger {
    role: Role,
    level: LevelFilter,
    places: Mutex<HashMap<SourceLine, Place>>,
}

/// File and line.
type SourceLine = (Option<&'static str>, Option<u32>);

struct Place {
    since: Instant,
    lines: u32,
    suppressed: u32,
}

/// Starts logging as `role`. Called once, at the start.
pub fn init(role: Role, level: LevelFilter) {
    let logger = Logger {
        role,
        level,
        places: Mutex::default(),
    };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

impl Logger {
    /// Lines held back at this place since the last one; `None`: hold this one back too.
    fn admit(&self, record: &Record<'_>) -> Option<u32> {
        let mut places = self.places.lock().ok()?;
        let key = (record.file_static(), record.line());
        let now = Instant::now();
        let place = places.entry(key).or_insert(Place {
            since: now,
            lines: 0,
            suppressed: 0,
        });
        if now.duration_since(place.since) >= INTERVAL {
            (place.since, place.lines) = (now, 0);
        }
        if place.lines >= BURST {
            place.suppressed += 1;
            return None;
        }
        place.lines += 1;
        Some(std::mem::take(&mut place.suppressed))
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let Some(suppressed) = self.admit(record) else {
            return;
        };
        let level = record.level().as_str().to_ascii_lowercase();
        let message = quoted(&record.args().to_string());
        let mut line = format!("level={level} process={} msg={message}", self.role.name());
        if suppressed > 0 {
            let _infallible = write!(line, " suppressed={suppressed}");
        }
        line.push('\n');
        // Nobody to tell when standard error is gone.
        let _closed = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// A logfmt value: names of profiled processes may be in it, so control characters are escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            character if character.is_control() => quoted.extend(character.escape_default()),
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    #[test]
    fn hostile_names_stay_on_one_line() {
        assert_eq!(super::quoted("a\"\n\u{1b}[31m"), "\"a\\\"\\n\\u{1b}[31m\"");
    }
}
