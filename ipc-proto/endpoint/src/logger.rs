//! Logs: one event a line as logfmt or JSON on standard error, or as fields to the journal; at most a few a while from each
//! place in the code. What is held back is counted; what is secret is never shown.

mod journal;
mod line;

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use ipc_proto::hello::Role;
use ipc_proto::statistics::Metric;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::statistics::counter;
use journal::Journal;
use line::Line;

/// Lines from one place in the code within [`INTERVAL`]; more are counted and said with the next.
const BURST: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);
/// Events remembered for a crash report.
const REMEMBERED: usize = 32;
/// Secrets that can be concealed, and the shortest that is one.
const MAX_SECRETS: usize = 16;
const SHORTEST_SECRET: usize = 4;
/// The environment variable that carries the store's token.
const TOKEN: &str = "PARCA_BEARER_TOKEN";

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `key=value` pairs.
    #[default]
    Logfmt,
    /// One JSON object.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "logfmt" => Ok(Self::Logfmt),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is neither logfmt nor json")),
        }
    }
}

struct Logger {
    role: Role,
    format: Format,
    journal: Option<Journal>,
    places: Mutex<HashMap<SourceLine, Place>>,
}

/// File and line.
type SourceLine = (Option<&'static str>, Option<u32>);

struct Place {
    since: Instant,
    lines: u32,
    suppressed: u32,
}

/// Lines written, from errors to debug, and lines held back.
static WRITTEN: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);
static SECRETS: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
static LAST: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Starts logging as `role`. Called once, at the start; the level may change later by [`log::set_max_level`].
pub fn init(role: Role, level: LevelFilter, format: Format) {
    if let Ok(token) = std::env::var(TOKEN) {
        conceal(&token);
    }
    let logger = Logger {
        role,
        format,
        journal: Journal::of_standard_error(),
        places: Mutex::default(),
    };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

/// From now on `secret` is shown nowhere, wherever it may have got into.
pub fn conceal(secret: &str) {
    let secret = secret.trim();
    if secret.len() < SHORTEST_SECRET {
        return;
    }
    if let Ok(mut secrets) = SECRETS.get_or_init(Mutex::default).lock()
        && secrets.len() < MAX_SECRETS
        && !secrets.iter().any(|known| known == secret)
    {
        secrets.push(secret.to_owned());
    }
}

/// Lines written and held back since the start.
pub(crate) fn metrics() -> impl Iterator<Item = Metric> {
    let levels = ["error", "warn", "info", "debug"];
    let written = levels.into_iter().zip(&WRITTEN).map(|(level, count)| {
        let help = "Lines written to the log, by level.";
        let count = count.load(Ordering::Relaxed) as f64;
        counter("leadsman_log_lines_total", help, &[("level", level)], count)
    });
    let help = "Lines held back because one place in the code said too much.";
    let held_back = SUPPRESSED.load(Ordering::Relaxed) as f64;
    written.chain([counter(
        "leadsman_log_lines_suppressed_total",
        help,
        &[],
        held_back,
    )])
}

/// The last events without anything that came from outside: level, place, and the text where it is a constant one.
pub(crate) fn last() -> Vec<String> {
    // A crash while logging holds the lock: better no lines than none of the rest.
    match LAST.try_lock() {
        Ok(last) => last.iter().cloned().collect(),
        Err(_held) => Vec::new(),
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
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let Some(suppressed) = self.admit(record) else {
            SUPPRESSED.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if let Some(count) = WRITTEN.get(record.level() as usize - Level::Error as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let line = Line {
            level: record.level(),
            process: self.role.name(),
            file: record.file().unwrap_or_default(),
            line: record.line().unwrap_or_default(),
            message: concealed(record.args().to_string()),
            suppressed,
        };
        remember(&line, record.args().as_str());
        if self
            .journal
            .as_ref()
            .is_some_and(|journal| journal.send(&line))
        {
            return;
        }
        let text = line.text(self.format, crate::clock::realtime());
        // Nobody to tell when standard error is gone.
        let _closed = std::io::stderr().lock().write_all(text.as_bytes());
    }

    fn flush(&self) {}
}

fn concealed(mut message: String) -> String {
    let Some(Ok(secrets)) = SECRETS.get().map(Mutex::lock) else {
        return message;
    };
    for secret in secrets.iter() {
        if message.contains(secret.as_str()) {
            message = message.replace(secret.as_str(), "<hidden>");
        }
    }
    message
}

fn remember(line: &Line<'_>, constant: Option<&'static str>) {
    let Ok(mut last) = LAST.lock() else { return };
    if last.len() >= REMEMBERED {
        last.pop_front();
    }
    last.push_back(format!(
        "{} {}:{} {}",
        line.level,
        line.file,
        line.line,
        constant.unwrap_or("(a text with values)")
    ));
}

#[cfg(test)]
mod tests {
    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        super::conceal(" s3cr3t-token\n");
        super::conceal("abc");
        let shown = super::concealed("Bearer s3cr3t-token refused, abc".to_owned());
        assert_eq!(shown, "Bearer <hidden> refused, abc");
    }
}
