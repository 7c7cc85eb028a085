//! What a panic leaves behind: a report in the process's crash directory, with nothing in it that came from outside. The file
//! is opened at the start, as a locked down process can't; the next start of the same process gives it its name.

use std::backtrace::Backtrace;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ipc_proto::hello::Role;
use ipc_proto::statistics::Metric;

use crate::{clock, logger, statistics};

/// The report being written.
const PENDING: &str = "pending";
/// Reports kept; the oldest go.
const MAX_REPORTS: usize = 16;
const PREFIX: &str = "crash-";

/// Reports found at the start.
static CRASHES: AtomicU64 = AtomicU64::new(0);

/// From now on a panic is reported in `directory` (nowhere when there is none), then the process ends as usual. Call before
/// the lockdown.
pub fn watch(role: Role, directory: Option<&Path>) {
    let file = directory.and_then(|directory| match prepare(directory) {
        Ok((file, reports)) => {
            CRASHES.store(reports, Ordering::Relaxed);
            Some(file)
        }
        Err(error) => {
            log::warn!(
                "a crash will leave no report: {}: {error}",
                directory.display()
            );
            None
        }
    });
    let base = load_address();
    std::panic::set_hook(Box::new(move |panic| {
        let report = report(role, base, panic);
        if let Some(mut file) = file.as_ref() {
            let _nowhere_else = file
                .write_all(report.as_bytes())
                .and_then(|()| file.sync_all());
        }
        let place = panic.location().map(ToString::to_string);
        log::error!(
            "panicked at {}: please report it with the newest file of the crash directory",
            place.unwrap_or_default()
        );
    }));
}

/// Crashes of this process that are on record.
pub(crate) fn metric() -> Metric {
    let help = "Crashes of each of Leadsman's processes of which there is a report.";
    let count = CRASHES.load(Ordering::Relaxed) as f64;
    statistics::counter("leadsman_crashes_total", help, &[], count)
}

/// Names what the last life left, and opens the next one's file. Returns the number of reports too.
fn prepare(directory: &Path) -> io::Result<(File, u64)> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let pending = directory.join(PENDING);
    // The last life may have had another uid: its empty file is replaced, not opened.
    match fs::symlink_metadata(&pending) {
        Ok(found) if found.len() > 0 => {
            let seconds = clock::realtime() / 1_000_000_000;
            fs::rename(&pending, directory.join(format!("{PREFIX}{seconds}.txt")))?;
        }
        Ok(_) => fs::remove_file(&pending)?,
        Err(_) => {}
    }
    let mut reports: Vec<PathBuf> = fs::read_dir(directory)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .map(|entry| entry.path())
        .collect();
    reports.sort();
    while reports.len() > MAX_REPORTS {
        fs::remove_file(reports.remove(0))?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(pending)?;
    Ok((file, reports.len() as u64))
}

fn report(role: Role, base: u64, panic: &PanicHookInfo<'_>) -> String {
    // A constant text is ours; one with values in it may quote other people's bytes.
    let message = panic.payload().downcast_ref::<&'static str>();
    let place = panic.location().map(ToString::to_string);
    let mut text = format!(
        "leadsman-{} {} panicked at {}: {}\n",
        role.name(),
        env!("CARGO_PKG_VERSION"),
        place.unwrap_or_default(),
        message.copied().unwrap_or("(a text with values, left out)"),
    );
    let _infallible = write!(
        text,
        "time: {} s since 1970 UTC\nloaded at: {base:#x}; `leadsman symbolize --exe FILE` names an address less that\n\
         last events:\n",
        clock::realtime() / 1_000_000_000,
    );
    for line in logger::last() {
        let _infallible = writeln!(text, "  {line}");
    }
    // With addresses: a locked down process can't open its own file for names.
    let _infallible = write!(text, "backtrace:\n{:#}", Backtrace::force_capture());
    text
}

/// Where the executable is mapped, from the first line of `/proc/self/maps`.
fn load_address() -> u64 {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let first = maps.split('-').next().unwrap_or_default();
    u64::from_str_radix(first, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_named_at_the_next_start_and_old_ones_go() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("crashes");
        let (_, reports) = prepare(&directory).expect("prepared");
        assert_eq!(reports, 0);
        let (mut file, reports) = prepare(&directory).expect("an empty one is no crash");
        assert_eq!(reports, 0);
        file.write_all(b"report").expect("written");
        let (_, reports) = prepare(&directory).expect("prepared");
        assert_eq!(reports, 1);
        for number in 0..40 {
            fs::write(directory.join(format!("{PREFIX}{number}.txt")), "x").expect("written");
        }
        let (_, reports) = prepare(&directory).expect("prepared");
        assert_eq!(reports, MAX_REPORTS as u64);
    }
}
