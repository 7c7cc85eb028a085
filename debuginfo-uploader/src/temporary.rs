//! The temporary directory: files in it have no name, so that nothing stays behind however this process ends.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, open, openat, unlinkat};
use rustix::io::Errno;

/// The directory.
#[derive(Debug)]
pub(crate) struct Temporary {
    directory: OwnedFd,
    last: AtomicU64,
}

impl Temporary {
    /// Opens the directory: call before the lockdown.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let temporary = Self {
            directory: open(path, flags, Mode::empty())?,
            last: AtomicU64::new(0),
        };
        // Said now, not with the first executable.
        temporary.file()?;
        Ok(temporary)
    }

    /// An empty file, gone when it is closed.
    pub(crate) fn file(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        match openat(&self.directory, ".", flags | OFlags::TMPFILE, mode) {
            Ok(fd) => Ok(fd.into()),
            // The file system knows no files without a name (overlayfs does since Linux 6.0).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let number = self.last.fetch_add(1, Ordering::Relaxed);
                let name = format!("extract-{}-{number}", std::process::id());
                let new = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let file = openat(&self.directory, &name, new, mode)?;
                unlinkat(&self.directory, &name, AtFlags::empty())?;
                Ok(file.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn files_have_no_name() {
        let directory = tempfile::tempdir().expect("made");
        let temporary = Temporary::open(directory.path()).expect("opened");
        let mut file = temporary.file().expect("made");
        file.write_all(b"text").expect("written");
        file.rewind().expect("rewound");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, "text");
        let names = std::fs::read_dir(directory.path()).expect("read");
        assert_eq!(names.count(), 0);
        assert!(Temporary::open(&directory.path().join("missing")).is_err());
    }
}
