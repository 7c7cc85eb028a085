//! A summary as text for people: on a terminal as wide as it is, elsewhere as wide as its names. Foreign names never reach
//! the terminal as control characters.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use crate::frames::{FrameKind, Frames, Function};
use crate::summary::{FunctionValue, Summary};
use crate::units::{Unit, date, duration, grouped, percent};

/// How much to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Columns of the terminal; longer lines are cut. Nothing is cut without.
    pub width: Option<usize>,
    /// Rows of each table.
    pub rows: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            width: None,
            rows: 20,
        }
    }
}

/// Writes totals, processes and functions of the profile that is called `name`.
///
/// # Errors
/// Those of `output`.
pub fn write<W: Write>(
    frames: &Frames<'_>,
    summary: &Summary<'_, '_>,
    name: &str,
    layout: Layout,
    mut output: W,
) -> io::Result<()> {
    let mut page = Page {
        unit: Unit::new(frames.value().unit),
        total: summary.total,
        layout,
        text: String::new(),
    };
    page.totals(frames, summary, name);
    page.processes(summary);
    page.functions("Functions by self", &summary.functions);
    page.functions("Functions by cumulative", &summary.functions_by_total());
    output.write_all(page.text.as_bytes())?;
    output.flush()
}

struct Page<'a> {
    unit: Unit<'a>,
    total: i64,
    layout: Layout,
    text: String,
}

impl Page<'_> {
    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        match self.layout.width {
            Some(width) => self.text.push_str(&cut(line, width)),
            None => self.text.push_str(line),
        }
        self.text.push('\n');
    }

    fn fact(&mut self, name: &str, text: &str) {
        self.line(&format!("{name:<11}{text}"));
    }

    fn totals(&mut self, frames: &Frames<'_>, summary: &Summary<'_, '_>, name: &str) {
        self.fact("Profile", &printable(name));
        self.fact("Values", &values(frames));
        if let Some(taken) = taken(frames) {
            self.fact("Taken", &taken);
        }
        let total = match frames.cpu_period() {
            Some(period) if frames.value().unit == "count" => format!(
                "{} samples, {} of CPU time,",
                grouped(summary.total),
                duration(summary.total.saturating_mul(period))
            ),
            _ => self.unit.show(summary.total),
        };
        let stacks = grouped(summary.stacks as i64);
        self.fact("Total", &format!("{total} in {stacks} distinct stacks"));
        if !summary.processes.is_empty() {
            self.fact("Processes", &grouped(summary.processes.len() as i64));
        }
        if summary.stopped_total() != 0 {
            let reasons = summary.stopped.iter().map(|(reason, value)| {
                format!("{} {}", printable(reason), percent(*value, summary.total))
            });
            let reasons: Vec<String> = reasons.collect();
            let all = percent(summary.stopped_total(), summary.total);
            self.fact("Incomplete", &format!("{all} ({})", reasons.join(", ")));
        }
        if summary.unnamed != 0 {
            let share = percent(summary.unnamed, summary.total);
            self.fact("Unnamed", &format!("{share} have a leaf without a name"));
        }
        if !summary.drops.is_empty() {
            let causes = summary
                .drops
                .iter()
                .map(|(cause, count)| format!("{} {count}", printable(cause)));
            let causes: Vec<String> = causes.collect();
            self.fact("Dropped", &causes.join(", "));
        }
        for comment in &summary.comments {
            self.fact("Comment", &printable(comment));
        }
    }

    fn processes(&mut self, summary: &Summary<'_, '_>) {
        if summary.processes.is_empty() {
            return;
        }
        let named = summary.processes_by_name();
        let shown: Vec<_> = named.iter().take(self.layout.rows).collect();
        self.heading("Processes", shown.len(), named.len());
        let mut rows = vec![["TOTAL", "SHARE", "THREADS", "PID", "NAME"].map(String::from)];
        rows.extend(shown.iter().map(|process| {
            let pid = match process.pid {
                Some(pid) => pid.to_string(),
                None if process.count > 1 => format!("{} of them", grouped(process.count as i64)),
                None => String::new(),
            };
            [
                self.unit.show(process.total),
                percent(process.total, self.total),
                grouped(process.threads as i64),
                pid,
                printable(process.comm).into_owned(),
            ]
        }));
        self.table(&rows);
    }

    fn functions(&mut self, title: &str, functions: &[FunctionValue<'_, '_>]) {
        let shown = functions.len().min(self.layout.rows);
        self.heading(title, shown, functions.len());
        let mut rows = vec![["SELF", "SHARE", "CUMULATIVE", "SHARE", "FUNCTION"].map(String::from)];
        rows.extend(functions.iter().take(shown).map(|value| {
            [
                self.unit.show(value.own),
                percent(value.own, self.total),
                self.unit.show(value.total),
                percent(value.total, self.total),
                function_name(value.function),
            ]
        }));
        self.table(&rows);
    }

    fn heading(&mut self, title: &str, shown: usize, all: usize) {
        self.text.push('\n');
        if shown < all {
            self.line(&format!("{title} ({shown} of {})", grouped(all as i64)));
        } else {
            self.line(title);
        }
    }

    /// Numbers to the right, the last column to the left.
    fn table<const COLUMNS: usize>(&mut self, rows: &[[String; COLUMNS]]) {
        let width = |column: usize| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0)
        };
        let widths: [usize; COLUMNS] = std::array::from_fn(width);
        for row in rows {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
                // Writing to a String does not fail.
                let _ = if index + 1 == COLUMNS {
                    write!(line, "  {cell}")
                } else {
                    write!(line, "  {cell:>width$}")
                };
            }
            self.line(&line);
        }
    }
}

/// What the values are and, if there is a choice, of which.
fn values(frames: &Frames<'_>) -> String {
    let value = frames.value();
    let mut text = format!("{}/{}", printable(value.kind), printable(value.unit));
    let others: Vec<String> = crate::frames::values(frames.profile())
        .filter(|other| other.index != value.index)
        .map(|other| format!("{}/{}", printable(other.kind), printable(other.unit)))
        .collect();
    if !others.is_empty() {
        text += &format!(" (also there: {})", others.join(", "));
    }
    if let Some(period) = frames.cpu_period() {
        let rate = (1e9 / period as f64).round();
        text += &format!(
            ", sampled each {} of CPU time ({rate} Hz)",
            duration(period)
        );
    }
    text
}

fn taken(frames: &Frames<'_>) -> Option<String> {
    let profile = frames.profile();
    let facts = [
        (profile.time_nanos != 0).then(|| date(profile.time_nanos)),
        (profile.duration_nanos != 0).then(|| duration(profile.duration_nanos)),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    (!facts.is_empty()).then(|| facts.join(", for "))
}

/// The name, with the mapping unless that says nothing new.
fn function_name(function: &Function<'_>) -> String {
    let name = printable(&function.name);
    let module = printable(function.module());
    match function.kind {
        FrameKind::Unnamed | FrameKind::Stopped => name.into_owned(),
        _ if module.is_empty() => name.into_owned(),
        FrameKind::Kernel => format!("{name} [kernel]"),
        _ if module.starts_with('[') => format!("{name} {module}"),
        _ => format!("{name} [{module}]"),
    }
}

/// The text without what a terminal would take as a command or would print in another order: such characters are written
/// as Rust escapes.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let hidden = |character: char| {
        character.is_control()
            // Bidirectional formatting characters (Unicode Standard Annex #9, 2).
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}')
    };
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if hidden(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// At most `width` characters; what was cut shows as an ellipsis.
fn cut(line: &str, width: usize) -> Cow<'_, str> {
    if line.chars().nth(width).is_none() {
        return Cow::Borrowed(line);
    }
    let kept: String = line.chars().take(width.saturating_sub(1)).collect();
    Cow::Owned(kept + "…")
}

#[cfg(test)]
mod tests;
