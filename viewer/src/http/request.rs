//! A request's head: parsed once from untrusted bytes, bounded, only what the viewer needs kept. Never reads a body.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use thiserror::Error;

/// Bytes of a request's head; a browser's is below 2 KiB, a long selector below 4 KiB.
pub(crate) const MAX_HEAD: usize = 16 * 1024;
/// Header lines of a request.
const MAX_HEADERS: usize = 64;

/// What the viewer knows about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Whether only the response's head is wanted.
    pub(crate) head_only: bool,
    /// Path as sent, without the query: no route has a character that needs an escape.
    pub(crate) path: String,
    /// What stands behind `?`, still escaped.
    pub(crate) query: String,
    /// The `Host` header.
    pub(crate) host: Option<String>,
    /// Whether the client wants to send another request on this connection.
    pub(crate) keep_alive: bool,
    /// Whether the client takes a gzip content encoding.
    pub(crate) accepts_gzip: bool,
    /// The `Accept` header.
    pub(crate) accept: Option<String>,
}

/// Why a request isn't served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum RequestError {
    /// Longer than [`MAX_HEAD`] or more than [`MAX_HEADERS`] lines.
    #[error("request head larger than {MAX_HEAD} bytes or {MAX_HEADERS} lines")]
    TooLarge,
    /// Not HTTP/1.
    #[error("malformed request: {0}")]
    Malformed(httparse::Error),
    /// Neither GET nor HEAD.
    #[error("only GET and HEAD are served")]
    Method,
    /// The target is no absolute path in printable ASCII.
    #[error("request target is no absolute path")]
    Target,
    /// The request carries a body.
    #[error("requests with a body are not served")]
    Body,
    /// A header that must occur once occurs twice, or isn't ASCII.
    #[error("header {0} is doubled or malformed")]
    Header(&'static str),
}

/// Parses the head at the start of `bytes`: the request and the head's length, or nothing when more bytes are needed.
///
/// # Errors
/// [`RequestError`]; the connection can't be used any more.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(RequestError::TooLarge);
        }
        Ok(httparse::Status::Partial) if bytes.len() >= MAX_HEAD => {
            return Err(RequestError::TooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(RequestError::Malformed(error)),
    };
    let head_only = match parsed.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(RequestError::Method),
    };
    let target = parsed.path.unwrap_or_default();
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(RequestError::Target);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        head_only,
        path: path.to_owned(),
        query: query.to_owned(),
        host: None,
        keep_alive: parsed.version == Some(1),
        accepts_gzip: false,
        accept: None,
    };
    for header in parsed.headers.iter() {
        read_header(&mut request, header)?;
    }
    Ok(Some((request, length)))
}

fn read_header(request: &mut Request, header: &httparse::Header<'_>) -> Result<(), RequestError> {
    let is = |name: &str| header.name.eq_ignore_ascii_case(name);
    if is("host") {
        let host = text(header, "host")?;
        if request.host.replace(host.to_owned()).is_some() {
            return Err(RequestError::Header("host"));
        }
    } else if is("transfer-encoding") {
        return Err(RequestError::Body);
    } else if is("content-length") {
        if text(header, "content-length")? != "0" {
            return Err(RequestError::Body);
        }
    } else if is("connection") {
        let wishes = text(header, "connection")?;
        for wish in wishes.split(',').map(str::trim) {
            if wish.eq_ignore_ascii_case("close") {
                request.keep_alive = false;
            } else if wish.eq_ignore_ascii_case("keep-alive") {
                request.keep_alive = true;
            }
        }
    } else if is("accept") {
        request.accept = Some(text(header, "accept")?.to_owned());
    } else if is("accept-encoding") {
        request.accepts_gzip = text(header, "accept-encoding")?
            .split(',')
            .any(accepts_gzip);
    }
    Ok(())
}

/// Whether one element of `Accept-Encoding` names gzip with a weight above zero (RFC 9110, 12.5.3).
fn accepts_gzip(element: &str) -> bool {
    let mut parts = element.split(';').map(str::trim);
    parts
        .next()
        .is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"))
        && !parts.any(|weight| matches!(weight, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
}

fn text<'a>(header: &httparse::Header<'a>, name: &'static str) -> Result<&'a str, RequestError> {
    std::str::from_utf8(header.value)
        .ok()
        .filter(|value| value.is_ascii())
        .map(str::trim)
        .ok_or(RequestError::Header(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> Result<Request, RequestError> {
        let (request, length) = parse(text.as_bytes())?.expect("a whole head");
        assert_eq!(length, text.len());
        Ok(request)
    }

    #[test]
    fn a_request_is_read() {
        let request = whole(
            "GET /flamegraph?window=last:3 HTTP/1.1\r\nHost: localhost:7071\r\nAccept-Encoding: br, gzip\r\n\r\n",
        )
        .unwrap();
        assert_eq!(
            request,
            Request {
                head_only: false,
                path: "/flamegraph".into(),
                query: "window=last:3".into(),
                host: Some("localhost:7071".into()),
                keep_alive: true,
                accepts_gzip: true,
                accept: None,
            }
        );
    }

    #[test]
    fn connection_wishes_are_heeded() {
        assert!(!whole("GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
        assert!(
            !whole("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n")
                .unwrap()
                .keep_alive
        );
        assert!(
            whole("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                .unwrap()
                .keep_alive
        );
        assert!(
            !whole("GET / HTTP/1.1\r\nAccept-Encoding: gzip;q=0\r\n\r\n")
                .unwrap()
                .accepts_gzip
        );
    }

    #[test]
    fn what_is_not_served_says_why() {
        let refused = |text: &str| parse(text.as_bytes()).unwrap_err();
        assert_eq!(refused("POST / HTTP/1.1\r\n\r\n"), RequestError::Method);
        assert_eq!(
            refused("GET http://a/ HTTP/1.1\r\n\r\n"),
            RequestError::Target
        );
        assert_eq!(
            refused("GET / HTTP/1.1\r\nContent-Length: 4\r\n\r\n"),
            RequestError::Body
        );
        assert_eq!(
            refused("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            RequestError::Body
        );
        assert_eq!(
            refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            RequestError::Header("host")
        );
        assert!(matches!(
            refused("\x16\x03\x01\x02"),
            RequestError::Malformed(_)
        ));
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD));
        assert_eq!(refused(&long), RequestError::TooLarge);
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "A: b\r\n".repeat(MAX_HEADERS + 1)
        );
        assert_eq!(refused(&many), RequestError::TooLarge);
    }

    #[test]
    fn an_incomplete_head_waits() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: loc").unwrap(), None);
        assert_eq!(parse(b"").unwrap(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_head_reads_the_same_however_it_is_cut(cut in 0usize..60) {
            let text = b"GET /windows HTTP/1.1\r\nHost: localhost\r\n\r\nGET /rest";
            let cut = cut.min(text.len());
            if let Some((request, length)) = parse(text.get(..cut).unwrap()).unwrap() {
                prop_assert_eq!(length, 42);
                prop_assert_eq!(request.path, "/windows");
            } else {
                prop_assert!(cut < 42);
            }
        }
    }
}
