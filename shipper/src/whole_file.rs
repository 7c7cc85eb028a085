//! Files that are there whole or not at all, in a directory that stays open. Owns no names.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

/// Opens a directory, making it when it is not there.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn open_directory(path: &Path, mode: u32) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Writes `content` as `temporary`, then renames it to `name`: all of it or nothing, durable when this returns.
///
/// # Errors
/// The kernel's answer; nothing is left behind.
pub(crate) fn write(
    directory: &OwnedFd,
    temporary: &str,
    name: &str,
    content: &[u8],
    mode: u32,
) -> Result<(), Errno> {
    let written = write_temporary(directory, temporary, content, mode)
        .and_then(|()| rustix::fs::renameat(directory, temporary, directory, name));
    if let Err(error) = written {
        // What can't be removed now is removed by the next start.
        let _ = rustix::fs::unlinkat(directory, temporary, AtFlags::empty());
        return Err(error);
    }
    rustix::fs::fsync(directory)
}

fn write_temporary(
    directory: &OwnedFd,
    name: &str,
    content: &[u8],
    mode: u32,
) -> Result<(), Errno> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode);
    let mut file = std::fs::File::from(rustix::fs::openat(directory, name, flags, mode)?);
    let written = file.write_all(content);
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    rustix::fs::fsync(&file)
}
