//! Where a recording goes and in which format: decided before anything starts, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};

use pprof::{Frames, Profile, folded, speedscope, svg};

use crate::error::Failure;
use crate::invoker::Invoker;

/// A format, by the file's extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    PprofGzip,
    Pprof,
    Folded,
    Speedscope,
    Svg,
}

/// Extensions.
const FORMATS: [(&str, Format); 6] = [
    (".pb.gz", Format::PprofGzip),
    (".pb", Format::Pprof),
    (".folded", Format::Folded),
    (".json", Format::Speedscope),
    (".svg", Format::Svg),
    (".html", Format::Svg),
];

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    StandardOutput,
    File(PathBuf),
    /// A device or pipe, which no other file may take the place of.
    Special(PathBuf),
}

/// Where a recording goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    target: Target,
    format: Format,
}

impl Output {
    /// Of a path, or `-` for standard output (gzip pprof).
    ///
    /// # Errors
    /// The extension says no format.
    pub(crate) fn parse(path: &Path) -> Result<Self, Failure> {
        let is_special = fs::metadata(path).is_ok_and(|metadata| {
            let kind = metadata.file_type();
            !kind.is_file() && !kind.is_dir()
        });
        let target = match path.to_str() {
            Some("-") => Target::StandardOutput,
            _ if is_special => Target::Special(path.to_owned()),
            _ => Target::File(path.to_owned()),
        };
        let known = FORMATS.iter().find(|(extension, _)| {
            let path = path.as_os_str().as_encoded_bytes();
            path.ends_with(extension.as_bytes())
        });
        let format = match (known, &target) {
            (Some((_, format)), _) => *format,
            (None, Target::StandardOutput | Target::Special(_)) => Format::PprofGzip,
            (None, Target::File(_)) => {
                return Err(Failure::usage(format!(
                    "{}: the extension says no format: use .pb.gz, .pb, .folded, .json (speedscope) or .svg",
                    path.display()
                )));
            }
        };
        Ok(Self { target, format })
    }

    /// The file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.target {
            Target::File(path) => Some(path),
            Target::StandardOutput | Target::Special(_) => None,
        }
    }

    /// Whether it can be written, before the recording.
    ///
    /// # Errors
    /// It can't.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let Some(path) = self.file() else {
            return Ok(());
        };
        if path.is_dir() {
            return Err(Failure::failed(format!(
                "cannot write {}: it is a directory",
                path.display()
            )));
        }
        let temporary = temporary(path);
        File::create_new(&temporary)
            .and_then(|_created| fs::remove_file(&temporary))
            .map_err(failed(format!("cannot write {}", path.display())))
    }

    /// The only profile in a store directory; an empty one when nothing was stored.
    pub(crate) fn take_profile(&self, store: &Path) -> Result<Profile, Failure> {
        let entries = fs::read_dir(store).map_err(failed(store.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.to_string_lossy().ends_with(".pb.gz"));
        files.sort();
        let Some(file) = files.last() else {
            return Ok(Profile::default());
        };
        let bytes = fs::read(file).map_err(failed(file.display()))?;
        pprof::read(&bytes)
            .map_err(|error| Failure::failed(format!("the recording is unreadable: {error}")))
    }

    /// Writes a profile: a file whole or not at all, as whoever asked for it owns it.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn write(&self, profile: &Profile) -> Result<(), Failure> {
        match &self.target {
            Target::StandardOutput => {
                match self.encode(profile, &mut io::stdout().lock()) {
                    // Whoever read it had enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                    written => written.map_err(failed("cannot write to standard output")),
                }
            }
            Target::Special(path) => File::options()
                .write(true)
                .open(path)
                .and_then(|mut file| self.encode(profile, &mut file))
                .map_err(failed(format!("cannot write {}", path.display()))),
            Target::File(path) => {
                let temporary = temporary(path);
                let written = self.write_file(profile, &temporary, path);
                written.map_err(|error| {
                    let _nothing_left = fs::remove_file(&temporary);
                    Failure::failed(format!("cannot write {}: {error}", path.display()))
                })
            }
        }
    }

    fn write_file(&self, profile: &Profile, temporary: &Path, path: &Path) -> io::Result<()> {
        // Never through a link that somebody laid out: root may be writing here.
        let mut file = BufWriter::new(File::create_new(temporary)?);
        self.encode(profile, &mut file)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let invoker = Invoker::read();
        fchown(&file, Some(invoker.uid), Some(invoker.gid))?;
        file.sync_all()?;
        fs::rename(temporary, path)
    }

    fn encode(&self, profile: &Profile, output: &mut impl Write) -> io::Result<()> {
        let frames = Frames::new(profile);
        match self.format {
            Format::PprofGzip => pprof::write_gzip_to(profile, output),
            Format::Pprof => output.write_all(&pprof::encode(profile)),
            Format::Folded => folded::write(&frames, output),
            Format::Speedscope => speedscope::write(&frames, "leadsman", output),
            Format::Svg => svg::write(&frames, "Leadsman", output),
        }
    }
}

/// A name beside the file's that nobody else uses.
fn temporary(path: &Path) -> PathBuf {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::failed(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_says_the_format() {
        let format = |text: &str| Output::parse(Path::new(text)).map(|output| output.format);
        assert_eq!(format("a.pb.gz").ok(), Some(Format::PprofGzip));
        assert_eq!(format("dir/a.pb").ok(), Some(Format::Pprof));
        assert_eq!(format("a.b.folded").ok(), Some(Format::Folded));
        assert_eq!(format("-").ok(), Some(Format::PprofGzip));
        for bad in ["a.txt", "gz", "out"] {
            let failure = format(bad).expect_err(bad).to_string();
            assert!(failure.contains(bad), "{failure}");
        }
    }

    #[test]
    fn a_device_is_never_replaced() {
        let output = Output::parse(Path::new("/dev/null")).expect("writable");
        assert_eq!(output.target, Target::Special(PathBuf::from("/dev/null")));
        assert_eq!(output.file(), None);
    }

    #[test]
    fn a_file_is_written_whole_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("out.pb");
        fs::write(&path, "older").expect("written");
        let output = Output::parse(&path).expect("a format");
        output.check().expect("writable");
        output.write(&Profile::default()).expect("written");
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
        assert_ne!(fs::read(&path).expect("read"), b"older");
        let nowhere = directory.path().join("missing/out.pb");
        let failure = Output::parse(&nowhere)
            .expect("a format")
            .check()
            .expect_err("nowhere");
        assert!(failure.to_string().contains("missing/out.pb"), "{failure}");
    }
}
