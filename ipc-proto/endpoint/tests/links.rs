//! Links between honest ends, and between an honest end and one that breaks each rule in turn.
#![forbid(unsafe_code)]

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_endpoint::connect::Connector;
use ipc_endpoint::link::{Link, LinkError, Sent};
use ipc_endpoint::listener::Listener;
use ipc_endpoint::memfd;
use ipc_endpoint::peers::Peers;
use ipc_proto::codec::{Bytes, List, Wire};
use ipc_proto::header::{BODY_IN_MEMFD, Header, Message};
use ipc_proto::hello::{HELLO, Hello, Role};
use ipc_proto::ids::{ImageId, WindowId};
use ipc_proto::limits::{MAX_INLINE, PROTOCOL_VERSION};
use ipc_proto::sample::{
    CountedStack, Frame, ImageGone, SampleBatch, SamplerMessage, SymbolizerMessage, Taken,
};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType,
};

type Near = Link<SymbolizerMessage, SamplerMessage>;
type Far = Link<SamplerMessage, SymbolizerMessage>;

struct Place {
    directory: tempfile::TempDir,
    listener: Listener,
    peers: Peers,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("made");
        let listener = Listener::bind(&directory.path().join("x.sock")).expect("bound");
        let peers = Peers::default();
        Self {
            directory,
            listener,
            peers,
        }
    }

    fn accept(&self) -> Result<Option<Near>, LinkError> {
        self.listener
            .accept(Role::Symbolizer, &[Role::Sampler], &self.peers)
    }

    fn honest(&self) -> (Near, Far) {
        let directory = self.directory.path();
        let (own, peer) = (Role::Sampler, Role::Symbolizer);
        let far = Connector::new(directory, "x.sock", own, peer, &self.peers)
            .poll(0)
            .expect("connected");
        (self.accept().expect("accepted").expect("waits"), far)
    }

    fn raw(&self) -> (Near, OwnedFd) {
        let fd = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None);
        let fd = fd.expect("made");
        let address = SocketAddrUnix::new(self.directory.path().join("x.sock")).expect("short");
        rustix::net::connect(&fd, &address).expect("connected");
        (self.accept().expect("accepted").expect("waits"), fd)
    }
}

fn gone(image: u64) -> SamplerMessage {
    SamplerMessage::ImageGone(ImageGone {
        image: ImageId(image),
    })
}

fn batch(frames: usize) -> SamplerMessage {
    let frame = Frame {
        mapping: 1,
        address: 2,
    };
    let stack = CountedStack {
        user: List(vec![frame; 1000]),
        ..CountedStack::default()
    };
    SamplerMessage::Batch(SampleBatch {
        window: WindowId(1),
        stacks: List(vec![stack; frames / 1000]),
    })
}

fn put(fd: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let flags = SendFlags::empty();
    rustix::net::sendmsg(fd, &[IoSlice::new(bytes)], &mut control, flags).expect("sent");
}

fn datagram(number: u16, flags: u16, sequence: u32, announced: usize, body: &[u8]) -> Vec<u8> {
    let header = Header {
        number,
        flags,
        body: announced as u32,
        sequence,
    };
    [header.to_bytes().as_slice(), body].concat()
}

fn message(sequence: u32, message: &SamplerMessage) -> Vec<u8> {
    let body = message.encode_body();
    datagram(message.number(), 0, sequence, body.len(), &body)
}

fn hello(sequence: u32, version: u32, role: Role) -> Vec<u8> {
    let role = role as u8;
    let body = Hello { version, role }.to_bytes();
    datagram(HELLO, 0, sequence, body.len(), &body)
}

fn greeting() -> Vec<u8> {
    hello(0, PROTOCOL_VERSION, Role::Sampler)
}

/// The cause by which the honest end closes the link after these datagrams.
fn cause(datagrams: &[(Vec<u8>, Vec<OwnedFd>)]) -> &'static str {
    let (mut near, fd) = Place::new().raw();
    for (bytes, fds) in datagrams {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        put(&fd, bytes, &fds);
    }
    loop {
        match near.receive() {
            Ok(Some(_)) => {}
            Ok(None) => return "none",
            Err(LinkError::Violation(violation)) => return violation.name(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn after_hello(bytes: Vec<u8>, fds: Vec<OwnedFd>) -> &'static str {
    cause(&[(greeting(), Vec::new()), (bytes, fds)])
}

fn descriptors(count: usize) -> Vec<OwnedFd> {
    let one = || {
        std::fs::File::open("/dev/null")
            .expect("there is one")
            .into()
    };
    (0..count).map(|_| one()).collect()
}

#[test]
fn messages_arrive_in_order_with_their_descriptors() {
    let (mut near, mut far) = Place::new().honest();
    let file = tempfile::NamedTempFile::new().expect("made");
    std::fs::write(file.path(), "content").expect("written");
    let opened = std::fs::File::open(file.path()).expect("opened");
    assert_eq!(far.send(&gone(1), &[]).expect("sent"), Sent::Done);
    far.send(&gone(2), &[opened.as_fd()]).expect("sent");
    assert_eq!(near.peer(), None);
    let first = near.receive().expect("fine").expect("there");
    assert_eq!((first.message, first.fds.len()), (gone(1), 0));
    assert_eq!(near.peer(), Some(Role::Sampler));
    let mut second = near.receive().expect("fine").expect("there");
    assert_eq!(second.message, gone(2));
    let mut text = String::new();
    let mut received = std::fs::File::from(second.fds.remove(0));
    received.read_to_string(&mut text).expect("read");
    assert_eq!(text, "content");
    assert!(near.receive().expect("fine").is_none());
    let answer = SymbolizerMessage::Taken(Taken::default());
    near.send(&answer, &[]).expect("sent");
    let received = far.receive().expect("fine").expect("there");
    assert_eq!(received.message, answer);
}

#[test]
fn large_bodies_travel_beside_the_datagram() {
    let (mut near, mut far) = Place::new().honest();
    let large = batch(1_000_000);
    assert!(large.encode_body().len() > 10_000_000);
    let fds = descriptors(1);
    far.send(&large, &[fds[0].as_fd()]).expect("sent");
    let received = near.receive().expect("fine").expect("there");
    assert!(received.message == large);
    assert_eq!(received.fds.len(), 1, "the body's own is not handed out");
}

#[test]
fn a_full_link_takes_no_message_and_loses_none() {
    let (mut near, mut far) = Place::new().honest();
    let mut sent = 0;
    while far.send(&gone(sent), &[]).expect("usable") == Sent::Done {
        sent += 1;
        assert!(sent < 1_000_000, "never full");
    }
    assert!(sent > 10);
    for expected in 0..sent {
        let received = near.receive().expect("fine").expect("there");
        assert_eq!(received.message, gone(expected));
    }
    assert!(near.receive().expect("fine").is_none());
    assert_eq!(far.send(&gone(sent), &[]).expect("usable"), Sent::Done);
    let received = near.receive().expect("fine").expect("there");
    assert_eq!(received.message, gone(sent));
}

#[test]
fn a_peer_that_ends_is_noticed() {
    let (mut near, mut far) = Place::new().honest();
    drop(far.send(&gone(1), &[]));
    drop(far);
    assert!(
        near.receive().expect("fine").is_some(),
        "what it said still counts"
    );
    assert!(matches!(near.receive(), Err(LinkError::Closed)));
}

#[test]
fn strangers_are_not_accepted() {
    let mut place = Place::new();
    place.peers.insert(Role::Sampler, 12_345);
    let fd = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None);
    let fd = fd.expect("made");
    let address = SocketAddrUnix::new(place.directory.path().join("x.sock")).expect("short");
    rustix::net::connect(&fd, &address).expect("connected");
    match place.accept() {
        Err(LinkError::Violation(violation)) => assert_eq!(violation.name(), "role"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_message_is_a_hello_and_no_other() {
    assert_eq!(cause(&[(message(0, &gone(1)), Vec::new())]), "hello");
    assert_eq!(
        after_hello(hello(1, PROTOCOL_VERSION, Role::Sampler), Vec::new()),
        "hello"
    );
    let other_version = hello(0, PROTOCOL_VERSION + 1, Role::Sampler);
    assert_eq!(cause(&[(other_version, Vec::new())]), "version");
    let other_role = hello(0, PROTOCOL_VERSION, Role::Viewer);
    assert_eq!(cause(&[(other_role, Vec::new())]), "role");
    assert_eq!(cause(&[(greeting(), descriptors(1))]), "descriptors");
}

#[test]
fn malformed_datagrams_end_the_link() {
    let valid = message(1, &gone(1));
    assert_eq!(after_hello(valid.clone(), Vec::new()), "none");
    assert_eq!(after_hello(b"LDSM".to_vec(), Vec::new()), "malformed");
    let mut magic = valid.clone();
    magic[0] ^= 1;
    assert_eq!(after_hello(magic, Vec::new()), "malformed");
    assert_eq!(
        after_hello(datagram(99, 0, 1, 0, b""), Vec::new()),
        "malformed"
    );
    assert_eq!(
        after_hello(datagram(8, 2, 1, 8, &[0; 8]), Vec::new()),
        "malformed"
    );
    assert_eq!(
        after_hello(datagram(8, 0, 1, 9, &[0; 8]), Vec::new()),
        "length"
    );
    assert_eq!(
        after_hello(datagram(8, 0, 1, 7, &[0; 7]), Vec::new()),
        "malformed"
    );
    assert_eq!(after_hello(message(2, &gone(1)), Vec::new()), "sequence");
    assert_eq!(
        after_hello(vec![0; MAX_INLINE + 1], Vec::new()),
        "oversized"
    );
    assert_eq!(after_hello(valid, descriptors(3)), "oversized");
}

#[test]
fn bodies_that_can_change_end_the_link() {
    let body = gone(1).encode_body();
    let beside = datagram(8, BODY_IN_MEMFD, 1, body.len(), b"");
    let sealed = memfd::sealed(&body).expect("made");
    assert_eq!(after_hello(beside.clone(), vec![sealed]), "none");
    assert_eq!(after_hello(beside.clone(), Vec::new()), "descriptors");
    let open = memfd_create("open", MemfdFlags::ALLOW_SEALING).expect("made");
    rustix::io::write(&open, &body).expect("written");
    assert_eq!(after_hello(beside.clone(), vec![open]), "body");
    let longer = memfd::sealed(&[0; 9]).expect("made");
    assert_eq!(after_hello(beside.clone(), vec![longer]), "body");
    assert_eq!(after_hello(beside, descriptors(1)), "body");
    let twice = datagram(8, BODY_IN_MEMFD, 1, body.len(), &body);
    let sealed = memfd::sealed(&body).expect("made");
    assert_eq!(after_hello(twice, vec![sealed]), "length");
}

#[test]
fn the_peer_finds_the_link_closed_after_a_violation() {
    let (mut near, fd) = Place::new().raw();
    put(&fd, b"nonsense", &[]);
    assert!(near.receive().is_err());
    drop(near);
    let mut greeting = [0; 64];
    let flags = rustix::net::RecvFlags::empty();
    let (length, _) = rustix::net::recv(&fd, &mut greeting[..], flags).expect("the hello");
    assert!(length > 0);
    // Nothing but the hello was ever said.
    let after = rustix::net::recv(&fd, &mut greeting[..], flags);
    assert!(
        matches!(after, Ok((0, _)) | Err(rustix::io::Errno::CONNRESET)),
        "{after:?}"
    );
}

#[test]
fn attempts_to_connect_become_rarer() {
    let directory = tempfile::tempdir().expect("made");
    let (own, peer) = (Role::Sampler, Role::Symbolizer);
    let peers = Peers::default();
    let mut connector: Connector<SamplerMessage, SymbolizerMessage> =
        Connector::new(directory.path(), "x.sock", own, peer, &peers);
    // Nobody listens; then somebody does, and the pause of the last attempt still counts.
    assert!(connector.poll(0).is_none());
    let listener = Listener::bind(&directory.path().join("x.sock")).expect("bound");
    assert!(connector.poll(1).is_none());
    assert!(connector.poll(1_000_000_000).is_some());
    drop(listener);
}

#[test]
fn a_long_name_is_cut_to_its_bound() {
    assert_eq!(Bytes::<4>::cut(b"abcdef").0, b"abcd");
}
