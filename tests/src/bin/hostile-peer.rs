//! A peer that breaks the protocol: `hostile-peer SOCKET ROLE ATTACK`. Connects, attacks, then waits for the other side to
//! hang up, and prints `refused` (could not connect), `closed` or `open` (still connected after five seconds).
#![forbid(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipc_proto::codec::{Wire, Writer};
use ipc_proto::header::{BODY_IN_MEMFD, Header};
use ipc_proto::hello::{HELLO, Hello, Role};
use ipc_proto::limits::{MAX_INLINE, PROTOCOL_VERSION};
use leadsman_tests::attacks::ATTACKS;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};

const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, role, attack] = arguments.as_slice() else {
        eprintln!(
            "usage: hostile-peer SOCKET ROLE ATTACK; attacks: {}",
            ATTACKS.join(", ")
        );
        return ExitCode::from(2);
    };
    match run(socket, role, attack) {
        Ok(outcome) => {
            println!("{outcome}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("hostile-peer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &str, role: &str, attack: &str) -> Result<&'static str> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    if connect(&socket, &SocketAddrUnix::new(path)?).is_err() {
        return Ok("refused");
    }
    let role = role_number(role)?;
    let mut peer = Peer {
        socket,
        sequence: 0,
    };
    // The other side may hang up at any point of an attack: that is what is wanted.
    let _ = peer.attack(role, attack)?;
    peer.outcome()
}

fn role_number(name: &str) -> Result<u8> {
    let roles = [
        ("sampler", Role::Sampler),
        ("opener", Role::Opener),
        ("symbolizer", Role::Symbolizer),
        ("debuginfo-uploader", Role::DebuginfoUploader),
        ("shipper", Role::Shipper),
        ("viewer", Role::Viewer),
        ("leadsman", Role::Leadsman),
    ];
    let (_, role) = roles
        .into_iter()
        .find(|(own, _)| *own == name)
        .with_context(|| format!("no role {name}"))?;
    Ok(role as u8)
}

struct Peer {
    socket: OwnedFd,
    sequence: u32,
}

type Sent = rustix::io::Result<usize>;

impl Peer {
    fn attack(&mut self, role: u8, attack: &str) -> Result<Sent> {
        let hello = Hello {
            version: PROTOCOL_VERSION,
            role,
        };
        let memfd = memfd_create("hostile", MemfdFlags::CLOEXEC)?;
        rustix::io::write(&memfd, &[0xa5; 4096])?;
        let fd = memfd.as_fd();
        Ok(match attack {
            "garbage" => self.send(&[0xa5; 1000], &[]),
            "short-header" => self.send(b"LDSM\0\0", &[]),
            "oversized" => self.send(&vec![0; MAX_INLINE + 1], &[]),
            "zero-bytes" => self.send(&[], &[]),
            "wrong-version" => self.hello(&Hello {
                version: PROTOCOL_VERSION + 1,
                role,
            }),
            "wrong-role" => self.hello(&Hello {
                version: PROTOCOL_VERSION,
                role: 200,
            }),
            "no-hello" => self.message(1, 0, &[0; 64], 64, &[]),
            "many-fds" => {
                let _ = self.hello(&hello);
                self.message(1, 0, &[0; 16], 16, &[fd; 20])
            }
            "unknown-message" => {
                let _ = self.hello(&hello);
                self.message(60_000, 0, &[], 0, &[])
            }
            "truncated-body" => {
                let _ = self.hello(&hello);
                self.message(1, 0, &[1, 2, 3], 4000, &[])
            }
            "malformed-body" => {
                let _ = self.hello(&hello);
                self.message(1, 0, &[0xff; 256], 256, &[])
            }
            "body-without-memfd" => {
                let _ = self.hello(&hello);
                self.message(1, BODY_IN_MEMFD, &[], 4096, &[])
            }
            "unsealed-memfd" => {
                let _ = self.hello(&hello);
                self.message(1, BODY_IN_MEMFD, &[], 4096, &[fd])
            }
            "huge-memfd" => {
                let _ = self.hello(&hello);
                self.message(1, BODY_IN_MEMFD, &[], u32::MAX, &[fd])
            }
            "wrong-sequence" => {
                let _ = self.hello(&hello);
                self.sequence += 7;
                self.message(1, 0, &[0; 16], 16, &[])
            }
            "second-hello" => {
                let _ = self.hello(&hello);
                self.hello(&hello)
            }
            other => bail!("no attack '{other}'; there are {}", ATTACKS.join(", ")),
        })
    }

    fn hello(&mut self, hello: &Hello) -> Sent {
        let body = encoded(hello);
        self.message(HELLO, 0, &body, body.len() as u32, &[])
    }

    fn message(
        &mut self,
        number: u16,
        flags: u16,
        inline: &[u8],
        body: u32,
        fds: &[BorrowedFd<'_>],
    ) -> Sent {
        let mut bytes = encoded(&Header {
            number,
            flags,
            body,
            sequence: self.sequence,
        });
        bytes.extend_from_slice(inline);
        self.sequence += 1;
        self.send(&bytes, fds)
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Sent {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        sendmsg(
            &self.socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    }

    /// Reads and forgets what the other side says until it hangs up.
    fn outcome(&self) -> Result<&'static str> {
        let end = Instant::now() + PATIENCE;
        let mut bytes = vec![0; MAX_INLINE];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok("open");
            }
            let timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            if poll(&mut fds, Some(&timeout))? == 0 {
                return Ok("open");
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            match recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::empty(),
            ) {
                // An empty datagram looks the same, but nobody here sends one.
                Ok(message) if message.bytes == 0 => return Ok("closed"),
                Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(_) => return Ok("closed"),
            }
        }
    }
}

fn encoded(value: &impl Wire) -> Vec<u8> {
    let mut writer = Writer::default();
    value.encode(&mut writer);
    writer.into_bytes()
}
