//! A TCP relay between a client and a server: counts what passes, and fails as networks fail. It knows nothing of what it
//! carries, so it stands before any server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

/// What happens to new connections; changing it cuts those that stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    Pass,
    /// The port is closed.
    Closed,
    /// Connections are taken and nothing ever answers.
    Silent,
    /// Connections are answered with bytes of no protocol.
    Garbage,
    /// What the client sends passes; the way back is shut at once.
    HalfClosed,
    /// Connections break after so many bytes from the client.
    CutAfter(u64),
}

#[derive(Debug)]
struct State {
    mode: Mode,
    connections: Vec<TcpStream>,
    ends: bool,
}

#[derive(Debug)]
struct Inner {
    target: String,
    state: Mutex<State>,
    from_client: AtomicU64,
    from_server: AtomicU64,
    accepted: AtomicU64,
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    pub address: SocketAddr,
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens on a free port of 127.0.0.1 and forwards to `target`.
    pub fn start(target: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port")?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner {
            target: target.to_owned(),
            state: Mutex::new(State {
                mode: Mode::Pass,
                connections: Vec::new(),
                ends: false,
            }),
            from_client: AtomicU64::new(0),
            from_server: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        });
        let own = Arc::clone(&inner);
        let thread = std::thread::spawn(move || own.accept(address, listener));
        Ok(Self {
            address,
            inner,
            thread: Some(thread),
        })
    }

    /// Cuts all connections; new ones fare as `mode` says.
    pub fn set(&self, mode: Mode) {
        let mut state = self.inner.state();
        state.mode = mode;
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Bytes that came from clients so far.
    #[must_use]
    pub fn from_client(&self) -> u64 {
        self.inner.from_client.load(Ordering::Relaxed)
    }

    /// Bytes that came from the server so far.
    #[must_use]
    pub fn from_server(&self) -> u64 {
        self.inner.from_server.load(Ordering::Relaxed)
    }

    /// Connections taken so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.inner.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.inner.state().ends = true;
        self.set(Mode::Closed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: Arc<Self>, address: SocketAddr, first: TcpListener) {
        let mut listener = Some(first);
        loop {
            let (mode, ends) = {
                let state = self.state();
                (state.mode, state.ends)
            };
            if ends {
                return;
            }
            if mode == Mode::Closed {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind(address).ok();
            }
            let accepted = listener.as_ref().and_then(|listener| {
                listener.set_nonblocking(true).ok()?;
                listener.accept().ok()
            });
            match accepted {
                Some((stream, _)) => {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    // A connection that fails here is the client's to notice.
                    let _ = self.connect(stream, mode);
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream, mode: Mode) -> std::io::Result<()> {
        client.set_nonblocking(false)?;
        client.set_nodelay(true)?;
        let mut state = self.state();
        state.connections.push(client.try_clone()?);
        drop(state);
        match mode {
            Mode::Silent => return Ok(()),
            Mode::Garbage => {
                let mut client = client;
                client.write_all(&[0xa5; 4096])?;
                return client.shutdown(Shutdown::Write);
            }
            _ => {}
        }
        let server = TcpStream::connect(&self.target).inspect_err(|_nobody_there| {
            // The clone among the connections must not keep it open.
            let _ = client.shutdown(Shutdown::Both);
        })?;
        server.set_nodelay(true)?;
        self.state().connections.push(server.try_clone()?);
        let limit = match mode {
            Mode::CutAfter(bytes) => bytes,
            _ => u64::MAX,
        };
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        let (client_in, client_out) = (client.try_clone()?, client);
        let (server_in, server_out) = (server.try_clone()?, server);
        std::thread::spawn(move || copy(client_in, server_out, &up.from_client, limit));
        if mode == Mode::HalfClosed {
            return client_out.shutdown(Shutdown::Write);
        }
        std::thread::spawn(move || copy(server_in, client_out, &down.from_server, u64::MAX));
        Ok(())
    }
}

/// Copies until `from` has no more, which `to` is told, or until `limit` bytes passed or either fails: then both end.
fn copy(mut from: TcpStream, mut to: TcpStream, counter: &AtomicU64, limit: u64) {
    let mut buffer = [0; 16 * 1024];
    let mut passed = 0;
    while passed < limit {
        let room = buffer
            .len()
            .min(usize::try_from(limit - passed).unwrap_or(usize::MAX));
        let size = match from.read(&mut buffer[..room]) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Err(_) => break,
            Ok(size) => size,
        };
        counter.fetch_add(size as u64, Ordering::Relaxed);
        passed += size as u64;
        if to.write_all(&buffer[..size]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each line with itself.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mut from, mut to) = (stream.try_clone().expect("a clone"), stream);
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        });
        address
    }

    fn talk(relay: &Relay, text: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(relay.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(text)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn it_passes_counts_and_fails_as_told() {
        let relay = Relay::start(&echo().to_string()).expect("a relay");
        assert_eq!(talk(&relay, b"hello").ok(), Some(b"hello".to_vec()));
        assert_eq!((relay.from_client(), relay.from_server()), (5, 5));
        relay.set(Mode::CutAfter(3));
        assert_ne!(talk(&relay, b"hello").ok(), Some(b"hello".to_vec()));
        relay.set(Mode::HalfClosed);
        assert_ne!(talk(&relay, b"hello").ok(), Some(b"hello".to_vec()));
        relay.set(Mode::Garbage);
        let mut stream = TcpStream::connect(relay.address).expect("a connection");
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).expect("garbage");
        assert_eq!(answer, [0xa5; 8]);
        relay.set(Mode::Closed);
        std::thread::sleep(Duration::from_millis(50));
        assert!(TcpStream::connect(relay.address).is_err());
        relay.set(Mode::Pass);
        let again = crate::process::until("the relay is back", Duration::from_secs(5), || {
            Ok(talk(&relay, b"again").ok())
        });
        assert_eq!(again.ok(), Some(b"again".to_vec()));
    }
}
