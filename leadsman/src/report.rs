//! `leadsman report`: reads one profile and says what is in it. Decides what to read and where to write; what a profile
//! means is the `pprof` crate's. Needs no rights and talks to no process.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use pprof::text::Layout;
use pprof::{Frames, Limits, Profile, Summary};
use rustix::termios::{isatty, tcgetwinsize};
use thiserror::Error;

/// `leadsman report`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// The profile: pprof, gzip or plain, Leadsman's or another tool's; `-`: standard input
    pub(crate) file: PathBuf,

    /// What to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// Rows of each table of the text
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) rows: usize,

    /// Which value to count where the profile has several; else its default one, else its last
    #[arg(long, value_name = "TYPE")]
    pub(crate) sample_type: Option<String>,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Totals and tables for people
    Text,
    /// `comm;root;...;leaf count`, a line for each stack, for flame graph scripts
    Folded,
    /// One object for programs; docs/REPORT-JSON.md describes it
    Json,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub(crate) enum ReportError {
    /// The file can't be read.
    #[error("cannot read {path}: {error}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The file is no profile.
    #[error("cannot report on {path}: {error}", path = .path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: pprof::ReadError,
    },
    /// The profile has no such value.
    #[error("{path} has no sample type {wanted}; it has {known}", path = .path.display())]
    SampleType {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// The report can't be written.
    #[error("cannot write the report: {0}")]
    Write(io::Error),
}

/// Prints the report on standard output. A reader that goes away (`| head`) is no error.
///
/// # Errors
/// [`ReportError`], one line each; the exit code for all of them is 1.
pub(crate) fn run(args: &Arguments) -> Result<(), ReportError> {
    let profile = read(&args.file)?;
    let frames = frames(&profile, args)?;
    let stdout = io::stdout().lock();
    let layout = Layout {
        width: isatty(&stdout).then(|| {
            let size = tcgetwinsize(&stdout);
            size.map_or(80, |size| usize::from(size.ws_col).max(80))
        }),
        rows: args.rows,
    };
    match write(&frames, args, layout, BufWriter::new(stdout)) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(ReportError::Write),
    }
}

fn frames<'a>(profile: &'a Profile, args: &Arguments) -> Result<Frames<'a>, ReportError> {
    let Some(wanted) = &args.sample_type else {
        return Ok(Frames::new(profile));
    };
    let values = || pprof::frames::values(profile);
    match values().find(|value| value.kind == wanted) {
        Some(value) => Ok(Frames::with_value(profile, value)),
        None => Err(ReportError::SampleType {
            path: args.file.clone(),
            wanted: wanted.clone(),
            known: values()
                .map(|value| pprof::text::printable(value.kind).into_owned())
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

fn write(
    frames: &Frames<'_>,
    args: &Arguments,
    layout: Layout,
    output: impl Write,
) -> io::Result<()> {
    match args.format {
        Format::Text => {
            let name = args.file.to_string_lossy();
            pprof::text::write(frames, &Summary::new(frames), &name, layout, output)
        }
        Format::Folded => pprof::folded::write(frames, output),
        Format::Json => pprof::json::write(frames, &Summary::new(frames), output),
    }
}

fn read(path: &Path) -> Result<Profile, ReportError> {
    let limit = Limits::default().decompressed;
    let mut bytes = Vec::new();
    // One byte more than a profile may have tells the reader that there are more.
    let most = (limit as u64).saturating_add(1);
    let read = if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map_err(|error| ReportError::Read {
        path: path.to_owned(),
        error,
    })?;
    pprof::read(&bytes).map_err(|error| ReportError::Profile {
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests;
