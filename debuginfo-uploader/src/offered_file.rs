//! What a descriptor that came with an offer really is. Looks at the file's first four bytes and no more.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::{Errno, pread};
use thiserror::Error;

/// Why an offered file is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Fault {
    /// The descriptor can do more than read, or not even that.
    #[error("not open for reading only")]
    Access,
    /// A directory, device, pipe or socket.
    #[error("not a regular file")]
    Kind,
    /// Not what was announced.
    #[error("{found} bytes, {announced} announced")]
    Size {
        /// What it has.
        found: u64,
        /// What was said.
        announced: u64,
    },
    /// Another format.
    #[error("not ELF")]
    Format,
    /// The kernel's refusal.
    #[error("unreadable: {0}")]
    Unreadable(Errno),
}

/// Checks that `fd` is a regular ELF file of `announced` bytes, open for reading only.
pub(crate) fn check(fd: &OwnedFd, announced: u64) -> Result<(), Fault> {
    let flags = fcntl_getfl(fd).map_err(Fault::Unreadable)?;
    if flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::PATH) {
        return Err(Fault::Access);
    }
    let stat = fstat(fd).map_err(Fault::Unreadable)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Fault::Kind);
    }
    let found = u64::try_from(stat.st_size).unwrap_or(0);
    if found != announced {
        return Err(Fault::Size { found, announced });
    }
    let mut magic = [0; 4];
    match pread(fd, &mut magic, 0) {
        Ok(4) if magic == *b"\x7fELF" => Ok(()),
        Ok(_) => Err(Fault::Format),
        Err(error) => Err(Fault::Unreadable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};

    fn elf() -> (File, u64) {
        let file = File::open("/proc/self/exe").expect("there is one");
        let bytes = file.metadata().expect("known").len();
        (file, bytes)
    }

    #[test]
    fn an_executable_is_taken_as_announced_only() {
        let (file, bytes) = elf();
        let fd = OwnedFd::from(file);
        assert_eq!(check(&fd, bytes), Ok(()));
        let wrong = Fault::Size {
            found: bytes,
            announced: bytes + 1,
        };
        assert_eq!(check(&fd, bytes + 1), Err(wrong));
    }

    #[test]
    fn what_can_be_written_is_refused() {
        let directory = tempfile::tempdir().expect("made");
        let path = directory.path().join("file");
        std::fs::write(&path, "\x7fELF").expect("written");
        let writable = OpenOptions::new().read(true).write(true).open(&path);
        assert_eq!(
            check(&writable.expect("opened").into(), 4),
            Err(Fault::Access)
        );
        let reading = File::open(&path).expect("opened");
        assert_eq!(check(&reading.into(), 4), Ok(()));
    }

    #[test]
    fn other_files_are_refused() {
        let directory = File::open("/").expect("there is one");
        assert_eq!(check(&directory.into(), 0), Err(Fault::Kind));
        let device = File::open("/dev/zero").expect("there is one");
        assert_eq!(check(&device.into(), 0), Err(Fault::Kind));
        let temporary = tempfile::NamedTempFile::new().expect("made");
        std::fs::write(temporary.path(), "text").expect("written");
        let text = File::open(temporary.path()).expect("opened");
        assert_eq!(check(&text.into(), 4), Err(Fault::Format));
    }
}
