//! The viewer as a process: what it serves over its socket, how it waits for windows and reports, what it refuses.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use command_fds::{CommandFdExt as _, FdMapping};
use ipc_endpoint::connect::Connector;
use ipc_endpoint::link::Link;
use ipc_endpoint::peers::Peers;
use ipc_endpoint::statistics::{Nothing, dropped, gauge};
use ipc_proto::codec::List;
use ipc_proto::hello::Role;
use ipc_proto::statistics::{Statistics, StatisticsMessage};
use pprof::{Builder, Labels, Line, Meta};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use tempfile::TempDir;

const NOBODY: u32 = 65_534;

/// A running viewer over a store of its own.
struct Viewer {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leadsman-viewer"));
    // It refuses to run with more rights than it may have.
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

impl Viewer {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).expect("permitted");
        let http = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = http.local_addr().expect("its address");
        let statistics =
            socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
        let path = directory.path().join("statistics.sock");
        bind(&statistics, &SocketAddrUnix::new(&path).expect("a path")).expect("bound");
        listen(&statistics, 8).expect("listening");
        rustix::io::ioctl_fionbio(&statistics, true).expect("non-blocking");
        let viewer = command();
        let mut shell = Command::new("/bin/sh");
        if is_root() {
            shell.uid(NOBODY).gid(NOBODY);
        }
        shell
            .args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"])
            .arg(viewer.get_program())
            .arg("--local-store-directory")
            .arg(directory.path())
            .args([
                "--peer",
                &format!("sampler={}", rustix::process::geteuid().as_raw()),
            ])
            .env("LISTEN_FDS", "2")
            .env("LISTEN_FDNAMES", "http:statistics.sock")
            .stdin(Stdio::null());
        let mapping = |parent_fd: OwnedFd, child_fd| FdMapping {
            parent_fd,
            child_fd,
        };
        shell
            .fd_mappings(vec![mapping(http.into(), 3), mapping(statistics, 4)])
            .expect("no collision");
        let child = shell.spawn().expect("started");
        Self {
            child,
            address,
            directory,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connected");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("set");
        stream
    }

    fn send(&self, request: &str) -> (u16, String, Vec<u8>) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let split = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8(answer[..split].to_vec()).expect("text");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (
            status.expect("a status"),
            head,
            answer[split + 4..].to_vec(),
        )
    }

    fn get(&self, target: &str) -> (u16, String) {
        let (status, _, body) = self.send(&format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ));
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// Asks until the answer is as wanted.
    fn until(&self, target: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
        for _ in 0..200 {
            let (status, body) = self.get(target);
            if wanted(status, &body) {
                return body;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!(
            "{target} never answered as wanted, last: {:?}",
            self.get(target)
        );
    }

    fn sampler(&self) -> Link<StatisticsMessage, Nothing> {
        let mut peers = Peers::default();
        peers.insert(
            Role::Viewer,
            if is_root() {
                NOBODY
            } else {
                rustix::process::geteuid().as_raw()
            },
        );
        let mut connector = Connector::new(
            self.directory.path(),
            "statistics.sock",
            Role::Sampler,
            Role::Viewer,
            &peers,
        );
        connector.poll(0).expect("a link")
    }
}

/// Writes a one-second window as the shipper does: whole under another name, then renamed.
fn write_window(store: &Path, ago: Duration, comm: &str) {
    let start = SystemTime::now() - ago;
    let millis = start
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970")
        .as_millis();
    let mut builder = Builder::new(Meta {
        time_nanos: i64::try_from(millis * 1_000_000).expect("this century"),
        duration_nanos: 1_000_000_000,
        frequency: 97,
    });
    let function = builder.function("<b>hot</b>", "hot", "app.c");
    let hot = builder.location(None, 0x10, &[Line { function, line: 3 }]);
    let labels = Labels {
        pid: Some(42),
        thread_id: Some(43),
        comm,
        thread_name: comm,
        others: &[],
    };
    builder.sample(&[hot], &labels, 97);
    let date = Command::new("date")
        .args(["-u", "-d", &format!("@{}", millis / 1000), "+%Y%m%dT%H%M%S"])
        .output()
        .expect("a date");
    let date = String::from_utf8(date.stdout).expect("text");
    let name = format!("leadsman-{}.{:03}Z.pb.gz", date.trim(), millis % 1000);
    let hidden = store.join(format!(".{name}"));
    std::fs::write(&hidden, pprof::write_gzip(&builder.finish())).expect("written");
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o644)).expect("permitted");
    std::fs::rename(hidden, store.join(name)).expect("renamed");
}

#[test]
fn the_page_and_its_data_are_served() {
    let viewer = Viewer::start();
    write_window(viewer.directory.path(), Duration::from_secs(2), "app");
    viewer.until("/windows", |_, body| body.contains(r#""samples":97"#));
    let (status, head, body) =
        viewer.send("GET / HTTP/1.1\r\nHost: 127.0.0.1:7071\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 200);
    assert!(head.contains("Content-Security-Policy: default-src 'none'"));
    let page = String::from_utf8(body).expect("text");
    for linked in ["/style.css", "/page.js", "/favicon.svg"] {
        assert!(page.contains(&format!("\"{linked}\"")), "{linked}");
        assert_eq!(viewer.get(linked).0, 200, "{linked}");
    }
    for imported in ["/flamegraph.js", "/timeline.js"] {
        assert!(
            viewer.get("/page.js").1.contains(&format!(".{imported}")),
            "{imported}"
        );
        assert_eq!(viewer.get(imported).0, 200, "{imported}");
    }
    let tree = viewer.get("/flamegraph?process=comm:app").1;
    assert!(
        tree.contains(r#""total":97"#) && tree.contains("<b>hot</b>"),
        "{tree}"
    );
    assert!(
        viewer
            .get("/processes")
            .1
            .contains(r#""comm":"app","samples":97"#)
    );
    let (status, head, body) =
        viewer.send("GET /download HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(status, 200);
    assert!(head.contains("attachment; filename=\"leadsman-"), "{head}");
    assert_eq!(pprof::read(&body).expect("a profile").sample.len(), 1);
}

#[test]
fn ready_says_what_is_missing_until_samples_flow() {
    let viewer = Viewer::start();
    assert_eq!(viewer.get("/healthy").0, 200);
    let (status, reason) = viewer.get("/ready");
    assert_eq!(status, 503);
    assert!(
        reason.contains("sampler") && reason.trim_end().lines().count() == 1,
        "{reason}"
    );
    let mut sampler = viewer.sampler();
    let metrics = vec![
        gauge("leadsman_sampler_attached", "Attached.", &[], 1.0),
        dropped("kernel", "ring_full", 3),
    ];
    let report = StatisticsMessage::Statistics(Statistics {
        metrics: List(metrics),
        last: false,
    });
    sampler.send(&report, &[]).expect("sent");
    viewer.until("/ready", |status, body| {
        status == 503 && body.contains("first window")
    });
    write_window(viewer.directory.path(), Duration::from_secs(1), "app");
    viewer.until("/ready", |status, _| status == 200);
    let metrics = viewer.get("/metrics").1;
    assert!(metrics.contains("leadsman_edge_dropped_samples_total{process=\"sampler\",edge=\"kernel\",cause=\"ring_full\"} 3"));
    assert!(metrics.contains("leadsman_process_cpu_seconds_total{process=\"viewer\"} "));
    assert!(
        viewer
            .get("/status")
            .1
            .contains(r#""cause":"ring full","samples":3.0"#)
    );
}

#[test]
fn a_reporter_that_breaks_the_protocol_is_cut_off_and_counted() {
    let viewer = Viewer::start();
    let hostile = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    let path = viewer.directory.path().join("statistics.sock");
    rustix::net::connect(&hostile, &SocketAddrUnix::new(path).expect("a path")).expect("connected");
    rustix::net::send(
        &hostile,
        b"no header at all",
        rustix::net::SendFlags::NOSIGNAL,
    )
    .expect("sent");
    viewer.until("/metrics", |_, body| {
        body.contains("leadsman_link_violations_total{process=\"viewer\"} 1")
    });
    assert_eq!(viewer.get("/healthy").0, 200);
}

#[test]
fn query_waits_for_the_next_window() {
    let viewer = Viewer::start();
    let store = viewer.directory.path().to_owned();
    write_window(&store, Duration::from_secs(5), "old");
    viewer.until("/windows", |_, body| body.contains("samples"));
    let query = "GET /query?query=%7Bcomm%3D%22app%22%7D HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (status, head, body) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| viewer.send(query));
        viewer.until("/metrics", |_, body| {
            body.contains("leadsman_viewer_waiting_requests{process=\"viewer\"} 1")
        });
        write_window(&store, Duration::from_secs(1), "app");
        asked.join().expect("answered")
    });
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    assert!(head.contains("Content-Type: application/vnd.google.protobuf+gzip"));
    assert!(head.contains("attachment; filename=\"profile.pb.gz\""));
    assert_eq!(pprof::read(&body).expect("a profile").sample[0].value, [97]);
    assert_eq!(viewer.get("/query?query=%7Bcomm%3D%22none%22%7D").0, 404);
    assert_eq!(viewer.get("/query?query=%7Bcomm").0, 400);
}

#[test]
fn strange_requests_are_refused() {
    let viewer = Viewer::start();
    let status = |request: &str| viewer.send(request).0;
    assert_eq!(
        status(
            "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ),
        403
    );
    assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 400);
    assert_eq!(status("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"), 405);
    assert_eq!(
        status("GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        404
    );
    assert_eq!(
        status(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000))),
        431
    );
    assert_eq!(status("\0\0\0\0\r\n\r\n"), 400);
    let (status, head, body) =
        viewer.send("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!((status, body.is_empty()), (200, true));
    assert!(!head.contains("Content-Length: 0"), "{head}");
}

#[test]
fn idle_connections_do_not_keep_others_out() {
    let viewer = Viewer::start();
    let mut idle: Vec<TcpStream> = (0..200).map(|_| viewer.connect()).collect();
    assert_eq!(viewer.get("/healthy").0, 200);
    for stream in &mut idle[..100] {
        let _ = stream.write_all(b"GET / HT");
    }
    assert_eq!(viewer.get("/healthy").0, 200);
}

#[test]
fn what_cannot_start_says_why() {
    let run = |arguments: &[&str]| {
        let output = command().args(arguments).output().expect("run");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let (code, error) = run(&["--http-address", &address]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains(&address) && error.contains("--http-address"),
        "{error}"
    );
    let (code, error) = run(&[
        "--http-address",
        "127.0.0.1:0",
        "--local-store-directory",
        "/nonexistent",
    ]);
    assert_eq!(code, Some(1));
    assert!(error.contains("/nonexistent"), "{error}");
    let (code, error) = run(&["--http-address", "nowhere"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("nowhere"), "{error}");
}
