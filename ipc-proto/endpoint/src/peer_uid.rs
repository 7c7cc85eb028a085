//! Who is at the other end of a Unix socket.
//!
//! The only file of this crate with `unsafe`: rustix has the peer's pid as a number that is never zero, and zero is what
//! the kernel says of a peer in a PID namespace that ours does not see. Processes in containers of their own are such peers.
#![expect(
    unsafe_code,
    reason = "no safe wrapper of getsockopt takes a peer whose pid is zero"
)]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// The effective user ID with which the peer connected or listened (`SO_PEERCRED`, unix(7)).
///
/// # Errors
/// Not a connected Unix socket.
pub(crate) fn peer_uid(socket: impl AsFd) -> Result<u32, Errno> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let size = size_of::<libc::ucred>() as libc::socklen_t;
    let mut length = size;
    // SAFETY: `credentials` and `length` live through the call, and `length` says how much of the former the kernel may
    // write. Any bits are a `ucred`.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    // A socket that has no peer yet is nobody's: the kernel fills in -1.
    if length != size || credentials.uid == u32::MAX {
        return Err(Errno::NOTCONN);
    }
    Ok(credentials.uid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::peer_uid;
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType, socket};

    #[test]
    fn the_other_end_of_a_pair_is_ours() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        assert_eq!(peer_uid(&one), Ok(rustix::process::geteuid().as_raw()));
    }

    #[test]
    fn a_socket_without_a_peer_is_nobodys() {
        let lonely = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
        assert_eq!(peer_uid(&lonely), Err(Errno::NOTCONN));
        let (pipe, _) = std::io::pipe().expect("a pipe");
        assert_eq!(peer_uid(&pipe), Err(Errno::NOTSOCK));
    }
}
