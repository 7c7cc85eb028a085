//! Events as fields to the journal (systemd.journal-fields(7)), where standard error goes there anyway.

use std::os::fd::OwnedFd;
use std::path::Path;

use log::Level;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with,
};

use super::line::Line;

const SOCKET: &str = "/run/systemd/journal/socket";
/// Bytes of a message: one datagram holds it with its fields.
const MAX_MESSAGE: usize = 8 * 1024;

/// The journal's socket.
#[derive(Debug)]
pub(super) struct Journal {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

impl Journal {
    /// The journal, if standard error is connected to it: `JOURNAL_STREAM` is its device and inode (systemd.exec(5)).
    pub(super) fn of_standard_error() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let (device, inode) = stream.split_once(':')?;
        let own = rustix::fs::fstat(std::io::stderr()).ok()?;
        let same = device.parse() == Ok(own.st_dev) && inode.parse() == Ok(own.st_ino);
        same.then(|| Self::open(Path::new(SOCKET)))?
    }

    fn open(path: &Path) -> Option<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Some(Self {
            socket: socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok()?,
            address: SocketAddrUnix::new(path).ok()?,
        })
    }

    /// Whether the journal took it; it is not waited for.
    pub(super) fn send(&self, line: &Line<'_>) -> bool {
        sendto(
            &self.socket,
            &fields(line),
            SendFlags::NOSIGNAL,
            &self.address,
        )
        .is_ok()
    }
}

fn fields(line: &Line<'_>) -> Vec<u8> {
    // The numbers of syslog(3).
    let priority = match line.level {
        Level::Error => "3",
        Level::Warn => "4",
        Level::Info => "6",
        Level::Debug | Level::Trace => "7",
    };
    let mut bytes = Vec::new();
    field(&mut bytes, "MESSAGE", &line.message);
    field(&mut bytes, "PRIORITY", priority);
    field(
        &mut bytes,
        "SYSLOG_IDENTIFIER",
        &format!("leadsman-{}", line.process),
    );
    field(&mut bytes, "CODE_FILE", line.file);
    field(&mut bytes, "CODE_LINE", &line.line.to_string());
    if line.suppressed > 0 {
        field(
            &mut bytes,
            "LEADSMAN_SUPPRESSED",
            &line.suppressed.to_string(),
        );
    }
    bytes
}

/// A value with a line's end in it would be taken for the next field: such a one is preceded by its length.
fn field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let value = value.as_bytes();
    let value = value.get(..MAX_MESSAGE).unwrap_or(value);
    bytes.extend(name.as_bytes());
    if value.contains(&b'\n') {
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend(value);
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_message_cannot_forge_fields() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let heard = UnixDatagram::bind(&path).expect("bound");
        let journal = Journal::open(&path).expect("opened");
        let line = Line {
            level: Level::Error,
            process: "opener",
            file: "a.rs",
            line: 1,
            message: "x\n_UID=0".to_owned(),
            suppressed: 2,
        };
        assert!(journal.send(&line));
        let mut bytes = [0; 1024];
        let length = heard.recv(&mut bytes).expect("a datagram");
        let expected = b"MESSAGE\n\x08\0\0\0\0\0\0\0x\n_UID=0\nPRIORITY=3\nSYSLOG_IDENTIFIER=leadsman-opener\nCODE_FILE=a.rs\nCODE_LINE=1\nLEADSMAN_SUPPRESSED=2\n";
        assert_eq!(bytes.get(..length), Some(expected.as_slice()));
    }
}
