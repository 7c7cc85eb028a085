//! Docker's API over its socket, which Podman's service speaks too: one list, then events. HTTP/1.0, so that responses
//! are as they are and end with the connection.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use super::{Containers, Engine, Named, PATIENCE, RuntimeContainer, SILENCE};

/// Bytes of the head of a response.
const MAX_HEAD: u64 = 64 << 10;
/// Bytes of a list.
const MAX_LIST: u64 = 32 << 20;
/// Bytes of one event.
const MAX_EVENT: u64 = 1 << 20;

/// Why the runtime named nothing.
#[derive(Debug, Error)]
pub(super) enum DockerError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it does not speak HTTP")]
    NotHttp,
    #[error("it answered {0}")]
    Status(u16),
    #[error("its answer is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("its answer is larger than {0} bytes")]
    TooLarge(u64),
}

impl DockerError {
    /// Whether something else than HTTP/1 answered, as gRPC servers do.
    pub(super) fn is_other_language(&self) -> bool {
        match self {
            Self::NotHttp => true,
            Self::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ),
            Self::Status(_) | Self::Malformed(_) | Self::TooLarge(_) => false,
        }
    }
}

type Map = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    image: Option<String>,
    labels: Option<Map>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    actor: Option<Actor>,
}

#[derive(Debug, Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: Option<Map>,
}

/// Takes all containers there are, calls `named`, then takes those that events tell of, until the connection ends or
/// nothing happened for long.
///
/// # Errors
/// It does not speak Docker's language, or is not to be reached.
pub(super) fn follow(
    socket: &Path,
    containers: &Containers,
    named: &mut dyn FnMut(),
) -> Result<(), DockerError> {
    list(socket, containers)?;
    named();
    events(socket, containers)
}

/// Takes all containers there are, ended ones included.
fn list(socket: &Path, containers: &Containers) -> Result<(), DockerError> {
    let body = get(socket, "/containers/json?all=1", PATIENCE)?;
    let mut text = Vec::new();
    body.take(MAX_LIST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_LIST {
        return Err(DockerError::TooLarge(MAX_LIST));
    }
    let listed: Vec<Listed> = serde_json::from_slice(&text)?;
    for one in listed {
        let names = one.names.unwrap_or_default();
        let name = names.first().map(String::as_str).unwrap_or_default();
        let labels = one.labels.unwrap_or_default().into_iter();
        let named = Named {
            id: one.id,
            name: name.to_owned(),
            image: one.image.unwrap_or_default(),
            ..Named::default()
        };
        containers.insert(RuntimeContainer::new(Engine::Docker, named, labels));
    }
    Ok(())
}

/// Takes the containers that events tell of.
fn events(socket: &Path, containers: &Containers) -> Result<(), DockerError> {
    // {"type":["container"],"event":["create","start","rename"]}
    let filters = "%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22create%22%2C%22start%22%2C%22rename%22%5D%7D";
    let mut body = get(socket, &format!("/events?filters={filters}"), SILENCE)?;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut body).take(MAX_EVENT).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        if line.len() as u64 >= MAX_EVENT {
            return Err(DockerError::TooLarge(MAX_EVENT));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let event: Event = serde_json::from_slice(&line)?;
        if let Some(actor) = event.actor {
            let mut labels = actor.attributes.unwrap_or_default();
            // Docker puts the container's labels beside these.
            let named = Named {
                id: actor.id,
                name: labels.remove("name").unwrap_or_default(),
                image: labels.remove("image").unwrap_or_default(),
                ..Named::default()
            };
            labels.remove("oldName");
            let labels = labels.into_iter();
            containers.insert(RuntimeContainer::new(Engine::Docker, named, labels));
        }
    }
}

/// The body of a response of status 200.
fn get(
    socket: &Path,
    target: &str,
    patience: Duration,
) -> Result<BufReader<UnixStream>, DockerError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {target} HTTP/1.0\r\nHost: docker\r\nAccept: application/json\r\n\r\n"
    )?;
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    let mut limited = (&mut stream).take(MAX_HEAD);
    loop {
        let length = limited.read_until(b'\n', &mut head)?;
        if length == 0 {
            return Err(DockerError::NotHttp);
        }
        if head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n") {
            break;
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(_) => return Err(DockerError::NotHttp),
    }
    match response.code {
        Some(200) => Ok(stream),
        Some(code) => Err(DockerError::Status(code)),
        None => Err(DockerError::NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Answers each connection with the next text.
    fn server(answers: Vec<String>) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.extend(byte);
                }
                assert!(request.starts_with(b"GET /"));
                let _reader_left = stream.write_all(answer.as_bytes());
            }
        });
        (directory, path)
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}")
    }

    #[test]
    fn containers_are_listed_and_events_add_to_them() {
        let (_directory, path) = server(vec![
            ok(
                r#"[{"Id":"aa","Names":["/web"],"Image":"nginx:1","Labels":{"tier":"front"},"Ports":[]},{"Id":"bb","Names":null,"Labels":null}]"#,
            ),
            ok(
                "{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"ID\":\"cc\",\"Attributes\":{\"name\":\"job\",\"image\":\"i\",\"x\":\"y\"}}}\n",
            ),
        ]);
        let containers = Containers::default();
        let mut lists = 0;
        follow(&path, &containers, &mut || lists += 1).unwrap();
        assert_eq!(lists, 1);
        let web = containers.find("aa", None).unwrap();
        assert_eq!((web.name.as_str(), web.image.as_str()), ("web", "nginx:1"));
        assert_eq!(web.labels, [("tier".to_owned(), "front".to_owned())]);
        assert_eq!(containers.find("bb", None).unwrap().name, "");
        let job = containers.find("cc", None).unwrap();
        assert_eq!((job.name.as_str(), job.labels.len()), ("job", 1));
    }

    #[test]
    fn nonsense_is_an_error() {
        for answer in [
            String::new(),
            "SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
            "HTTP/1.0 500 no\r\n\r\n".to_owned(),
            ok("{"),
            ok("{}"),
            format!("HTTP/1.0 200 OK\r\n{}\r\n", "a: b\r\n".repeat(100)),
        ] {
            let (_directory, path) = server(vec![answer.clone()]);
            let containers = Containers::default();
            assert!(list(&path, &containers).is_err(), "{answer:.40}");
            assert!(containers.is_empty());
        }
        assert!(list(Path::new("/nonexistent.sock"), &Containers::default()).is_err());
    }
}
