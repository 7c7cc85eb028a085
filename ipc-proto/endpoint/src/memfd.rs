//! Bodies too large for a datagram: sealed memfds, which nobody can change or cut short while they are read.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::io::{Errno, pread, write};
use thiserror::Error;

const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Why a memfd was refused.
#[derive(Debug, Error)]
pub enum MemfdError {
    /// Not a memfd, or one that its sender can still change.
    #[error("file descriptor is not a sealed memfd")]
    NotSealed,
    /// Another size than announced, or more than allowed.
    #[error("memfd of {found} bytes, {expected} announced, at most {max} allowed")]
    Size {
        /// Size found.
        found: u64,
        /// Size announced.
        expected: u64,
        /// Size allowed.
        max: usize,
    },
    /// It could not be made or read.
    #[error("memfd: {0}")]
    Io(#[from] Errno),
}

/// A sealed memfd that holds `bytes`.
///
/// # Errors
/// The kernel's refusal.
pub fn sealed(bytes: &[u8]) -> Result<OwnedFd, MemfdError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // NOEXEC_SEAL exists since Linux 6.3; older kernels refuse the flag.
    let fd = memfd_create("leadsman", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_old_kernel| memfd_create("leadsman", flags))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = write(&fd, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    fcntl_add_seals(&fd, SEALS)?;
    Ok(fd)
}

/// The bytes of a sealed memfd of exactly `expected` bytes.
///
/// # Errors
/// Not sealed, another size, more than `max` bytes, or unreadable.
pub fn read_sealed(fd: &OwnedFd, expected: u64, max: usize) -> Result<Vec<u8>, MemfdError> {
    // Only memfds and a few other shared memory files know seals at all.
    let seals = fcntl_get_seals(fd).map_err(|_no_seals| MemfdError::NotSealed)?;
    if !seals.contains(SEALS) {
        return Err(MemfdError::NotSealed);
    }
    let found = fstat(fd)?.st_size as u64;
    if found != expected || found > max as u64 {
        return Err(MemfdError::Size {
            found,
            expected,
            max,
        });
    }
    let mut bytes = vec![0; found as usize];
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        let count = pread(fd, rest, read as u64)?;
        if count == 0 {
            return Err(MemfdError::Size {
                found: read as u64,
                expected,
                max,
            });
        }
        read += count;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let fd = sealed(&bytes).expect("made");
        assert_eq!(read_sealed(&fd, 100_000, 100_000).expect("read"), bytes);
        assert!(write(&fd, b"x").is_err(), "sealed against writing");
    }

    #[test]
    fn files_that_can_change_are_refused() {
        let open = memfd_create("open", MemfdFlags::ALLOW_SEALING).expect("made");
        write(&open, b"abc").expect("written");
        assert!(matches!(
            read_sealed(&open, 3, 10),
            Err(MemfdError::NotSealed)
        ));
        let file: OwnedFd = std::fs::File::open("/proc/self/exe")
            .expect("opened")
            .into();
        assert!(matches!(
            read_sealed(&file, 3, 10),
            Err(MemfdError::NotSealed)
        ));
        let sealed = sealed(b"abc").expect("made");
        assert!(matches!(
            read_sealed(&sealed, 4, 10),
            Err(MemfdError::Size { .. })
        ));
        assert!(matches!(
            read_sealed(&sealed, 3, 2),
            Err(MemfdError::Size { .. })
        ));
    }
}
