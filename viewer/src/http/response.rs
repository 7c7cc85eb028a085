//! A whole response: status, content and the headers that keep a browser from doing more than showing it.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Nothing but the viewer's own files: no inline code, no frame, no form, no other origin.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// Smaller bodies don't gain from compression.
const COMPRESS_FROM: usize = 2048;

/// Status codes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    BadRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    HeadTooLarge,
    ServiceUnavailable,
}

impl Status {
    /// The code and its phrase.
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::ServiceUnavailable => "503 Service Unavailable",
        }
    }

    /// The code alone, as a metric's label.
    pub(crate) fn code(self) -> &'static str {
        self.line().get(..3).unwrap_or_default()
    }
}

/// A response before it becomes bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// What became of the request.
    pub(crate) status: Status,
    content_type: &'static str,
    /// File name to save it under.
    attachment: Option<String>,
    compressible: bool,
    /// The content.
    pub(crate) body: Vec<u8>,
}

impl Response {
    fn new(status: Status, content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            status,
            content_type,
            attachment: None,
            compressible: true,
            body,
        }
    }

    /// One line of text.
    pub(crate) fn text(status: Status, line: &str) -> Self {
        let body = if line.is_empty() {
            Vec::new()
        } else {
            format!("{line}\n").into_bytes()
        };
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    /// A JSON document.
    pub(crate) fn json(body: Vec<u8>) -> Self {
        Self::new(Status::Ok, "application/json", body)
    }

    /// An HTML document.
    pub(crate) fn html(body: Vec<u8>) -> Self {
        Self::new(Status::Ok, "text/html; charset=utf-8", body)
    }

    /// A file of the page.
    pub(crate) fn asset(content_type: &'static str, content: &'static str) -> Self {
        Self::new(Status::Ok, content_type, content.as_bytes().to_vec())
    }

    /// Metrics as text of that type.
    pub(crate) fn metrics(content_type: &'static str, body: String) -> Self {
        Self::new(Status::Ok, content_type, body.into_bytes())
    }

    /// A gzip pprof file to be saved as `name`, which must be plain ASCII without quotes.
    pub(crate) fn profile(name: String, body: Vec<u8>) -> Self {
        Self {
            attachment: Some(name),
            compressible: false,
            ..Self::new(Status::Ok, "application/vnd.google.protobuf+gzip", body)
        }
    }

    /// The response's bytes on a connection.
    pub(crate) fn into_bytes(self, head_only: bool, keep_alive: bool, gzip: bool) -> Vec<u8> {
        let compressed = (gzip && self.compressible && self.body.len() >= COMPRESS_FROM)
            .then(|| compress(&self.body))
            .flatten();
        let encoding = if compressed.is_some() {
            "Content-Encoding: gzip\r\n"
        } else {
            ""
        };
        let body = compressed.unwrap_or(self.body);
        let attachment = self.attachment.map_or_else(String::new, |name| {
            format!("Content-Disposition: attachment; filename=\"{name}\"\r\n")
        });
        let allow = if self.status == Status::MethodNotAllowed {
            "Allow: GET, HEAD\r\n"
        } else {
            ""
        };
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut bytes = format!(
            "HTTP/1.1 {}\r\n\
             Content-Type: {}\r\n\
             Content-Length: {}\r\n\
             {encoding}{attachment}{allow}\
             Vary: Accept, Accept-Encoding\r\n\
             Cache-Control: no-store\r\n\
             Content-Security-Policy: {CONTENT_SECURITY_POLICY}\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Referrer-Policy: no-referrer\r\n\
             Cross-Origin-Opener-Policy: same-origin\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\n\
             Connection: {connection}\r\n\r\n",
            self.status.line(),
            self.content_type,
            body.len(),
        )
        .into_bytes();
        if !head_only {
            bytes.extend_from_slice(&body);
        }
        bytes
    }
}

/// The body in gzip; nothing when the encoder fails, which writing to memory doesn't.
fn compress(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn head_and_body(bytes: &[u8]) -> (String, Vec<u8>) {
        let split = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8(bytes[..split].to_vec()).expect("ASCII");
        (head, bytes[split + 4..].to_vec())
    }

    #[test]
    fn every_response_carries_the_safety_headers() {
        let bytes = Response::text(Status::NotFound, "no such page").into_bytes(false, true, true);
        let (head, body) = head_and_body(&bytes);
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"));
        for header in [
            "Content-Security-Policy: default-src 'none'; script-src 'self'",
            "frame-ancestors 'none'",
            "X-Content-Type-Options: nosniff",
            "Referrer-Policy: no-referrer",
            "Content-Length: 13",
        ] {
            assert!(head.contains(header), "{header} in {head}");
        }
        assert!(!head.contains("Access-Control"));
        assert_eq!(body, b"no such page\n");
    }

    #[test]
    fn a_head_request_gets_the_length_and_no_body() {
        let (head, body) =
            head_and_body(&Response::json(b"[1,2]".to_vec()).into_bytes(true, false, false));
        assert!(head.contains("Content-Length: 5"));
        assert!(head.contains("Connection: close"));
        assert!(body.is_empty());
    }

    #[test]
    fn long_bodies_are_compressed_for_those_who_take_it() {
        let text = "leadsman ".repeat(1000).into_bytes();
        let (head, body) =
            head_and_body(&Response::json(text.clone()).into_bytes(false, true, true));
        assert!(head.contains("Content-Encoding: gzip"));
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice())
            .read_to_end(&mut back)
            .expect("gzip");
        assert_eq!(back, text);
        let (head, body) =
            head_and_body(&Response::json(text.clone()).into_bytes(false, true, false));
        assert!(!head.contains("Content-Encoding"));
        assert_eq!(body, text);
    }

    #[test]
    fn profiles_are_attachments_and_not_compressed_twice() {
        let (head, _) = head_and_body(
            &Response::profile("profile.pb.gz".into(), vec![7; 10_000])
                .into_bytes(false, true, true),
        );
        assert!(head.contains("Content-Disposition: attachment; filename=\"profile.pb.gz\""));
        assert!(head.contains("Content-Type: application/vnd.google.protobuf+gzip"));
        assert!(!head.contains("Content-Encoding"));
    }
}
