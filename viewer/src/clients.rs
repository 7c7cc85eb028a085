//! The HTTP clients' sockets: accepts, reads, writes and closes them. What is read and written is
//! [`Connection`]'s and the engine's business.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use crate::engine::ConnectionId;
use crate::http::Response;
use crate::http::connection::{Connection, Received};

/// Connections at one time.
const MAX_CLIENTS: usize = 96;
/// Bytes taken from a client at once.
const READ_BYTES: usize = 16 * 1024;

#[derive(Debug)]
struct Client {
    stream: TcpStream,
    connection: Connection,
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Clients {
    listener: TcpListener,
    clients: BTreeMap<ConnectionId, Client>,
    next: u64,
}

/// What a client wants to know about its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Whether there is something to read.
    Read,
    /// Whether there is room to write.
    Write,
    /// Only whether the client is gone.
    Hangup,
}

/// How an accepted connection was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It is served.
    Served,
    /// It was closed: too many others.
    Refused,
    /// There was none.
    None,
}

impl Clients {
    /// Serves a listener.
    ///
    /// # Errors
    /// The listener can't be made non-blocking.
    pub(crate) fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            clients: BTreeMap::new(),
            next: 0,
        })
    }

    /// The listening socket.
    pub(crate) fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// Every client's socket and what to wait for.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (ConnectionId, &TcpStream, Interest)> {
        self.clients.iter().map(|(id, client)| {
            let interest = if client.connection.wants_read() {
                Interest::Read
            } else if client.connection.wants_write() {
                Interest::Write
            } else {
                Interest::Hangup
            };
            (*id, &client.stream, interest)
        })
    }

    /// When the first connection is cut off.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.clients
            .values()
            .filter_map(|client| client.connection.deadline())
            .min()
    }

    /// Accepts a connection; when there are too many, one that waits for its client's next request makes room.
    pub(crate) fn accept(&mut self, now: Duration) -> Accepted {
        let Ok((stream, _)) = self.listener.accept() else {
            return Accepted::None;
        };
        if self.clients.len() >= MAX_CLIENTS {
            let idle = self
                .clients
                .iter()
                .find(|(_, client)| client.connection.is_idle())
                .map(|(id, _)| *id);
            match idle {
                Some(idle) => self.clients.remove(&idle),
                None => return Accepted::Refused,
            };
        }
        if stream.set_nonblocking(true).is_err() {
            return Accepted::Refused;
        }
        // Responses are written whole: waiting for more to send only delays their ends.
        let _ = stream.set_nodelay(true);
        self.next = self.next.wrapping_add(1);
        self.clients.insert(
            ConnectionId(self.next),
            Client {
                stream,
                connection: Connection::new(now),
            },
        );
        Accepted::Served
    }

    /// Reads what a client sent.
    pub(crate) fn read(&mut self, id: ConnectionId, now: Duration) -> Received {
        let Some(client) = self.clients.get_mut(&id) else {
            return Received::Nothing;
        };
        let mut buffer = [0; READ_BYTES];
        match client.stream.read(&mut buffer) {
            Ok(count) => client
                .connection
                .on_received(buffer.get(..count).unwrap_or_default(), now),
            Err(error) if is_temporary(&error) => Received::Nothing,
            Err(_gone) => client.connection.on_received(&[], now),
        }
    }

    /// Queues a response and sends what the socket takes; the request that was sent behind it, if one was.
    pub(crate) fn respond(
        &mut self,
        id: ConnectionId,
        response: Response,
        now: Duration,
    ) -> Received {
        match self.clients.get_mut(&id) {
            Some(client) => {
                client.connection.respond(response, now);
                self.write(id, now)
            }
            None => Received::Nothing,
        }
    }

    /// Sends what the socket takes; the next request that was already received, if one was.
    pub(crate) fn write(&mut self, id: ConnectionId, now: Duration) -> Received {
        let Some(client) = self.clients.get_mut(&id) else {
            return Received::Nothing;
        };
        while client.connection.wants_write() {
            match client.stream.write(client.connection.pending()) {
                Ok(count) if count > 0 => client.connection.on_sent(count, now),
                Err(error) if is_temporary(&error) => return Received::Nothing,
                Ok(_) | Err(_) => {
                    self.clients.remove(&id);
                    return Received::Nothing;
                }
            }
        }
        if client.connection.has_ended() {
            // A client that is gone already needs no telling.
            let _ = client.stream.shutdown(Shutdown::Write);
        }
        client.connection.next_request()
    }

    /// Forgets a client that hung up.
    pub(crate) fn hang_up(&mut self, id: ConnectionId) {
        self.clients.remove(&id);
    }

    /// Closes connections that are done or too slow; which ones, and whether they were too slow.
    pub(crate) fn close_finished(&mut self, now: Duration) -> Vec<(ConnectionId, bool)> {
        let mut closed = Vec::new();
        self.clients.retain(|id, client| {
            let idle = client.connection.is_idle();
            let over = client.connection.on_deadline(now);
            if client.connection.is_closed() {
                closed.push((*id, over && !idle));
            }
            !client.connection.is_closed()
        });
        closed
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
