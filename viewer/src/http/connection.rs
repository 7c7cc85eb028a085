//! One client's connection as a state machine over bytes and deadlines. Never touches a socket or a clock.

use std::time::Duration;

use super::request::{self, MAX_HEAD, RequestError};
use super::{Request, Response};

/// From the first byte of a request, or from the connection's start, to its last: slower clients are cut off.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may stay open without a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a response may make no progress.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the client may take to hang up after the last response. Closing before it has read all would make the kernel
/// reset the connection when bytes of it are unread, and the response would be lost.
const LINGER: Duration = Duration::from_secs(2);

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The (rest of the) next request.
    Reading,
    /// The engine's response.
    Answering,
    /// The client taking the response.
    Writing,
    /// The client's end; what it still sends is thrown away.
    Lingering,
    /// Nothing: it is to be closed.
    Closed,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    received: Vec<u8>,
    to_send: Vec<u8>,
    sent: usize,
    deadline: Option<Duration>,
    head_only: bool,
    keep_alive: bool,
    accepts_gzip: bool,
}

/// What a connection's bytes amount to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Not a whole request.
    Nothing,
    /// A request; [`Connection::respond`] must follow before the next one is read.
    Request(Request),
    /// A request that gets refused; the connection closes after the response.
    Refused(RequestError),
}

impl Connection {
    /// A connection accepted at `now`.
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            state: State::Reading,
            received: Vec::new(),
            to_send: Vec::new(),
            sent: 0,
            deadline: now.checked_add(READ_TIMEOUT),
            head_only: false,
            keep_alive: false,
            accepts_gzip: false,
        }
    }

    /// Whether bytes from the client are wanted now.
    pub(crate) fn wants_read(&self) -> bool {
        matches!(self.state, State::Reading | State::Lingering)
    }

    /// Whether nothing more will be sent, so that the client should be told.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Lingering
    }

    /// Whether bytes for the client are waiting.
    pub(crate) fn wants_write(&self) -> bool {
        self.state == State::Writing
    }

    /// Whether the connection is to be closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the connection only waits for a next request or its end, so that closing it costs the client nothing.
    pub(crate) fn is_idle(&self) -> bool {
        match self.state {
            State::Reading => self.received.is_empty(),
            State::Lingering => true,
            State::Answering | State::Writing | State::Closed => false,
        }
    }

    /// When [`Self::on_deadline`] is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Takes bytes that the client sent. Zero bytes mean that it sends no more.
    pub(crate) fn on_received(&mut self, bytes: &[u8], now: Duration) -> Received {
        if bytes.is_empty() {
            self.state = State::Closed;
            return Received::Nothing;
        }
        if self.state == State::Lingering {
            return Received::Nothing;
        }
        if self.is_idle() {
            self.deadline = now.checked_add(READ_TIMEOUT);
        }
        self.received.extend_from_slice(bytes);
        self.next_request()
    }

    /// The next request among the bytes received.
    pub(crate) fn next_request(&mut self) -> Received {
        if self.state != State::Reading {
            return Received::Nothing;
        }
        let head = self.received.get(..MAX_HEAD).unwrap_or(&self.received);
        match request::parse(head) {
            Ok(None) => Received::Nothing,
            Ok(Some((request, length))) => {
                self.received.drain(..length.min(self.received.len()));
                self.head_only = request.head_only;
                self.keep_alive = request.keep_alive;
                self.accepts_gzip = request.accepts_gzip;
                self.state = State::Answering;
                self.deadline = None;
                Received::Request(request)
            }
            Err(error) => {
                self.keep_alive = false;
                self.state = State::Answering;
                self.deadline = None;
                Received::Refused(error)
            }
        }
    }

    /// Queues the response to the last request.
    pub(crate) fn respond(&mut self, response: Response, now: Duration) {
        if self.state != State::Answering {
            return;
        }
        self.to_send = response.into_bytes(self.head_only, self.keep_alive, self.accepts_gzip);
        self.sent = 0;
        self.state = State::Writing;
        self.deadline = now.checked_add(WRITE_TIMEOUT);
    }

    /// The bytes to send next.
    pub(crate) fn pending(&self) -> &[u8] {
        self.to_send.get(self.sent..).unwrap_or_default()
    }

    /// Notes that `count` of the pending bytes were taken.
    pub(crate) fn on_sent(&mut self, count: usize, now: Duration) {
        self.sent = self.sent.saturating_add(count);
        self.deadline = now.checked_add(WRITE_TIMEOUT);
        if self.sent < self.to_send.len() {
            return;
        }
        self.to_send = Vec::new();
        self.sent = 0;
        if self.keep_alive {
            self.state = State::Reading;
            let timeout = if self.received.is_empty() {
                IDLE_TIMEOUT
            } else {
                READ_TIMEOUT
            };
            self.deadline = now.checked_add(timeout);
        } else {
            self.state = State::Lingering;
            self.received = Vec::new();
            self.deadline = now.checked_add(LINGER);
        }
    }

    /// Cuts the connection off when its time is over; whether it was.
    pub(crate) fn on_deadline(&mut self, now: Duration) -> bool {
        let over = self.deadline.is_some_and(|deadline| deadline <= now);
        if over {
            self.state = State::Closed;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Status;

    const START: Duration = Duration::from_secs(100);
    const GET: &[u8] = b"GET /healthy HTTP/1.1\r\nHost: localhost\r\n\r\n";

    fn send_all(connection: &mut Connection, now: Duration) -> Vec<u8> {
        let mut sent = Vec::new();
        while connection.wants_write() {
            let some = connection
                .pending()
                .iter()
                .take(100)
                .copied()
                .collect::<Vec<_>>();
            sent.extend_from_slice(&some);
            connection.on_sent(some.len(), now);
        }
        sent
    }

    #[test]
    fn requests_are_answered_in_turn_on_one_connection() {
        let mut connection = Connection::new(START);
        let two = [GET, GET].concat();
        for round in 0..2 {
            let received = if round == 0 {
                connection.on_received(&two, START)
            } else {
                connection.next_request()
            };
            assert!(matches!(received, Received::Request(request) if request.path == "/healthy"));
            assert!(!connection.wants_read(), "not before the first is answered");
            connection.respond(Response::text(Status::Ok, "yes"), START);
            assert!(send_all(&mut connection, START).ends_with(b"yes\n"));
        }
        assert_eq!(connection.next_request(), Received::Nothing);
        assert!(connection.is_idle());
    }

    #[test]
    fn a_slow_request_is_cut_off_however_many_bytes_trickle_in() {
        let mut connection = Connection::new(START);
        let mut now = START;
        for byte in GET.iter().take(20) {
            now += Duration::from_millis(600);
            if connection.on_deadline(now) {
                break;
            }
            connection.on_received(&[*byte], now);
        }
        assert!(connection.is_closed());
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut_off() {
        let mut connection = Connection::new(START);
        connection.on_received(GET, START);
        connection.respond(Response::json(vec![b' '; 1000]), START);
        connection.on_sent(10, START);
        assert!(!connection.on_deadline(START + WRITE_TIMEOUT / 2));
        assert!(connection.on_deadline(START + WRITE_TIMEOUT));
        assert!(connection.is_closed());
    }

    #[test]
    fn a_refused_request_closes_after_its_response() {
        let mut connection = Connection::new(START);
        let received = connection.on_received(b"PUT / HTTP/1.1\r\n\r\n", START);
        assert_eq!(received, Received::Refused(RequestError::Method));
        connection.respond(Response::text(Status::MethodNotAllowed, "no"), START);
        let sent = String::from_utf8(send_all(&mut connection, START)).expect("text");
        assert!(sent.contains("Allow: GET, HEAD"));
        assert!(connection.has_ended());
        assert_eq!(
            connection.on_received(GET, START),
            Received::Nothing,
            "thrown away"
        );
        connection.on_received(&[], START);
        assert!(connection.is_closed());
    }

    #[test]
    fn a_client_that_does_not_hang_up_is_not_waited_for_long() {
        let mut connection = Connection::new(START);
        connection.on_received(b"GET / HTTP/1.0\r\n\r\n", START);
        connection.respond(Response::text(Status::Ok, "yes"), START);
        send_all(&mut connection, START);
        connection.on_received(GET, START + LINGER / 2);
        assert!(connection.on_deadline(START + LINGER));
        assert!(connection.is_closed());
    }

    #[test]
    fn an_unanswered_request_has_no_deadline_of_its_own() {
        let mut connection = Connection::new(START);
        connection.on_received(GET, START);
        assert!(!connection.on_deadline(START + Duration::from_secs(3600)));
    }
}
