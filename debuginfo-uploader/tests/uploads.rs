//! The uploader as a process of its own, between a pretended symbolizer and a pretended store. Needs root: it does not run as
//! root itself.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use ipc_endpoint::connect::Connector;
use ipc_endpoint::link::{Link, Received, Sent};
use ipc_endpoint::listener::Listener;
use ipc_endpoint::peers::Peers;
use ipc_proto::codec::Bytes;
use ipc_proto::debuginfo::{DebuginfoOffer, OfferMessage, Verdict, VerdictMessage};
use ipc_proto::hello::Role;
use tokio_stream::StreamExt;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};

#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    clippy::unwrap_used,
    dead_code,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code keeps the generator's style"
)]
mod wire {
    include!("../../tests/src/generated/parca.debuginfo.v1alpha1.rs");
}

use wire::debuginfo_service_server::{DebuginfoService, DebuginfoServiceServer};
use wire::upload_instructions::UploadStrategy;
use wire::upload_request::Data;

const UPLOADER_UID: u32 = 61_303;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the store was asked and has.
#[derive(Debug, Default)]
struct State {
    calls: Vec<&'static str>,
    /// Errors that the next calls of a method get.
    errors: HashMap<&'static str, VecDeque<Code>>,
    hashes: HashMap<String, (i64, String)>,
    received: HashMap<String, Vec<u8>>,
    finished: HashSet<String>,
    /// Files go to this address instead.
    storage: Option<String>,
    /// Uploads hang after their first chunk.
    hangs: bool,
}

/// The store.
#[derive(Clone, Debug, Default)]
struct Store(Arc<Mutex<State>>);

impl Store {
    fn call(&self, method: &'static str) -> Result<(), Status> {
        let mut state = self.0.lock().unwrap();
        state.calls.push(method);
        let error = state.errors.get_mut(method).and_then(VecDeque::pop_front);
        error.map_or(Ok(()), |code| Err(Status::new(code, "as the test wants")))
    }

    fn count(&self, method: &str) -> usize {
        let state = self.0.lock().unwrap();
        state.calls.iter().filter(|call| **call == method).count()
    }

    fn has(&self, build_id: &str) -> bool {
        self.0.lock().unwrap().finished.contains(build_id)
    }

    fn fail(&self, method: &'static str, codes: &[Code]) {
        let errors = &mut self.0.lock().unwrap().errors;
        errors.insert(method, codes.iter().copied().collect());
    }

    /// Serves on a free port of the loopback.
    fn serve(&self, runtime: &tokio::runtime::Runtime) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let service = DebuginfoServiceServer::new(self.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = TcpIncoming::from(listener);
            let server = Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        address
    }
}

#[tonic::async_trait]
impl DebuginfoService for Store {
    async fn should_initiate_upload(
        &self,
        request: Request<wire::ShouldInitiateUploadRequest>,
    ) -> Result<Response<wire::ShouldInitiateUploadResponse>, Status> {
        self.call("should")?;
        let known = self.has(&request.into_inner().build_id);
        Ok(Response::new(wire::ShouldInitiateUploadResponse {
            should_initiate_upload: !known,
            reason: if known { "exists" } else { "first time" }.to_owned(),
        }))
    }

    async fn initiate_upload(
        &self,
        request: Request<wire::InitiateUploadRequest>,
    ) -> Result<Response<wire::InitiateUploadResponse>, Status> {
        self.call("initiate")?;
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        let storage = state.storage.clone();
        let strategy = match storage {
            Some(_) => UploadStrategy::SignedUrl,
            None => UploadStrategy::Grpc,
        };
        let build_id = request.build_id;
        state
            .hashes
            .insert(build_id.clone(), (request.size, request.hash));
        Ok(Response::new(wire::InitiateUploadResponse {
            upload_instructions: Some(wire::UploadInstructions {
                upload_id: "7".to_owned(),
                upload_strategy: strategy as i32,
                signed_url: storage
                    .map(|address| format!("http://{address}/{build_id}?signature=a%20b"))
                    .unwrap_or_default(),
                build_id,
                ..Default::default()
            }),
        }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<wire::UploadRequest>>,
    ) -> Result<Response<wire::UploadResponse>, Status> {
        self.call("upload")?;
        let mut stream = request.into_inner();
        let first = stream.next().await.and_then(Result::ok);
        let Some(Data::Info(info)) = first.and_then(|first| first.data) else {
            return Err(Status::invalid_argument("no info first"));
        };
        let mut bytes = Vec::new();
        while let Some(message) = stream.next().await {
            match message?.data {
                Some(Data::ChunkData(chunk)) => bytes.extend(&chunk[..]),
                _ => return Err(Status::invalid_argument("no chunk")),
            }
            while self.0.lock().unwrap().hangs {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let size = bytes.len() as u64;
        let mut state = self.0.lock().unwrap();
        state.received.insert(info.build_id.clone(), bytes);
        Ok(Response::new(wire::UploadResponse {
            build_id: info.build_id,
            size,
        }))
    }

    async fn mark_upload_finished(
        &self,
        request: Request<wire::MarkUploadFinishedRequest>,
    ) -> Result<Response<wire::MarkUploadFinishedResponse>, Status> {
        self.call("mark")?;
        let request = request.into_inner();
        let mut state = self.0.lock().unwrap();
        let (size, _) = state.hashes.get(&request.build_id).unwrap().clone();
        let received = state.received.get(&request.build_id).map_or(0, Vec::len);
        assert_eq!(
            usize::try_from(size).unwrap(),
            received,
            "the announced size"
        );
        assert_eq!(request.upload_id, "7");
        state.finished.insert(request.build_id);
        Ok(Response::new(wire::MarkUploadFinishedResponse {}))
    }
}

/// An object storage that takes PUT; answers with the statuses given, then with 200.
fn storage(store: Store, mut statuses: VecDeque<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let status = statuses.pop_front().unwrap_or("200 OK");
            take_put(stream.unwrap(), &store, status);
        }
    });
    address
}

fn take_put(stream: TcpStream, store: &Store, status: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_ascii_lowercase());
    }
    assert!(lines[0].starts_with("put /") && lines[0].contains("?signature=a%20b"));
    let length = lines
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    if status.starts_with('2') {
        let build_id = lines[0]["put /".len()..].split('?').next().unwrap();
        let received = &mut store.0.lock().unwrap().received;
        received.insert(build_id.to_owned(), body);
    }
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
    (&stream).write_all(answer.as_bytes()).unwrap();
}

/// Everything around one uploader.
struct Stage {
    directory: tempfile::TempDir,
    listener: Listener,
    store: Store,
    address: std::net::SocketAddr,
    _runtime: tokio::runtime::Runtime,
    uploader: Child,
    link: Link<OfferMessage, VerdictMessage>,
    room: u32,
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.uploader.kill());
        drop(self.uploader.wait());
    }
}

impl Stage {
    fn set(store: Store) -> Self {
        assert!(rustix::process::geteuid().is_root(), "needs root");
        let directory = tempfile::tempdir().unwrap();
        let mode = Permissions::from_mode(0o777);
        std::fs::set_permissions(directory.path(), mode).unwrap();
        let binary = directory.path().join("uploader");
        // By another process: while a child of another test holds our writing descriptor, nobody could execute it.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_leadsman-debuginfo-uploader"))
            .arg(binary)
            .status();
        assert!(copied.unwrap().success());
        let path = directory.path().join("debuginfo.sock");
        let listener = Listener::bind(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = store.serve(&runtime);
        let uploader = start(directory.path(), &listener, address);
        let link = connect(directory.path());
        Self {
            directory,
            listener,
            store,
            address,
            _runtime: runtime,
            uploader,
            link,
            room: 0,
        }
    }

    /// Ends the uploader without a warning, and starts another one.
    fn kill(&mut self) {
        self.uploader.kill().unwrap();
        self.uploader.wait().unwrap();
        self.uploader = start(self.directory.path(), &self.listener, self.address);
        self.link = connect(self.directory.path());
        self.room = 0;
    }

    fn offer(&mut self, build_id: &[u8], file: &Path) -> Verdict {
        let file = File::open(file).unwrap();
        let offer = OfferMessage::Offer(DebuginfoOffer {
            build_id: Bytes(build_id.to_vec()),
            path: Bytes(b"/bin/program".to_vec()),
            size: file.metadata().unwrap().len(),
            debug_size: 0,
        });
        while self.link.send(&offer, &[file.as_fd()]).unwrap() == Sent::WouldBlock {
            std::thread::sleep(Duration::from_millis(1));
        }
        wait_for("a verdict", || {
            while let Some(Received { message, .. }) = self.link.receive().unwrap() {
                match message {
                    VerdictMessage::Room(room) => self.room += room.offers,
                    VerdictMessage::Verdict(verdict) => {
                        assert_eq!(verdict.build_id.0, build_id);
                        let all = Verdict::ALL.iter().copied();
                        return all.into_iter().find(|one| *one as u8 == verdict.verdict);
                    }
                }
            }
            None
        })
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Store) -> bool) {
        wait_for(what, || is_so(&self.store).then_some(()));
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(directory: &Path, listener: &Listener, store: std::net::SocketAddr) -> Child {
    let program = directory.join("uploader");
    let shell = format!("LISTEN_PID=$$ exec {} \"$@\"", program.display());
    Command::new("sh")
        .args(["-c", &shell, "sh"])
        .arg("--runtime-directory")
        .arg(directory)
        .args(["--peer", "symbolizer=0", "--remote-store-insecure"])
        .arg(format!("--remote-store-address={store}"))
        .arg(format!("--debuginfo-temp-dir={}", directory.display()))
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "debuginfo.sock")
        .stdin(Stdio::null())
        .uid(UPLOADER_UID)
        .gid(UPLOADER_UID)
        .fd_mappings(vec![FdMapping {
            parent_fd: rustix::io::dup(listener).unwrap(),
            child_fd: 3,
        }])
        .unwrap()
        .spawn()
        .unwrap()
}

fn connect(directory: &Path) -> Link<OfferMessage, VerdictMessage> {
    let mut peers = Peers::default();
    peers.insert(Role::DebuginfoUploader, 0);
    let mut connector = Connector::new(
        directory,
        "debuginfo.sock",
        Role::Symbolizer,
        Role::DebuginfoUploader,
        &peers,
    );
    let start = Instant::now();
    wait_for("the uploader", || {
        connector.poll(u64::try_from(start.elapsed().as_nanos()).unwrap())
    })
}

/// A program with debuginfo.
fn program(directory: &Path) -> PathBuf {
    let program = directory.join("program");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/extract/program.c");
    let mut compiler = Command::new("gcc");
    let status = compiler
        .arg("-g")
        .arg(source)
        .arg("-o")
        .arg(&program)
        .status();
    assert!(status.unwrap().success());
    program
}

#[test]
fn a_thousand_processes_of_one_binary_cause_one_upload() {
    let mut stage = Stage::set(Store::default());
    let program = program(stage.directory.path());
    assert_eq!(stage.offer(b"abcd", &program), Verdict::Accepted);
    for _ in 0..1000 {
        assert_eq!(stage.offer(b"abcd", &program), Verdict::Known);
    }
    stage.wait_until("the upload", |store| store.has("61626364"));
    assert_eq!(stage.offer(b"abcd", &program), Verdict::Known);
    assert!(stage.room > 1000, "each refused offer gives its room back");
    for method in ["should", "initiate", "upload", "mark"] {
        assert_eq!(stage.store.count(method), 1, "{method}");
    }
    let sent = stage.directory.path().join("sent");
    let state = stage.store.0.lock().unwrap();
    let bytes = &state.received["61626364"];
    assert!(bytes.len() < std::fs::metadata(&program).unwrap().len() as usize);
    std::fs::write(&sent, bytes).unwrap();
    drop(state);
    let lines = |file: &Path| {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg("nm \"$1\" | awk '/ T main$/ {print $1}' | addr2line -f -e \"$1\"");
        let output = command.arg("sh").arg(file).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(lines(&sent).contains("program.c:"), "{}", lines(&sent));
    assert_eq!(lines(&sent), lines(&program));
}

#[test]
fn an_upload_that_was_killed_starts_again() {
    let mut stage = Stage::set(Store::default());
    let program = program(stage.directory.path());
    stage.store.0.lock().unwrap().hangs = true;
    stage.offer(b"abcd", &program);
    stage.wait_until("the upload", |store| store.count("upload") == 1);
    stage.kill();
    stage.store.0.lock().unwrap().hangs = false;
    assert_eq!(stage.offer(b"abcd", &program), Verdict::Accepted);
    stage.wait_until("the second upload", |store| store.has("61626364"));
    assert_eq!(stage.store.count("initiate"), 2);
}

#[test]
fn files_go_to_the_url_that_the_store_signs() {
    let store = Store::default();
    let statuses = ["503 Slow Down", "403 Forbidden"].into();
    store.0.lock().unwrap().storage = Some(storage(store.clone(), statuses));
    let mut stage = Stage::set(store);
    let program = program(stage.directory.path());
    stage.offer(b"abcd", &program);
    stage.wait_until("the upload", |store| store.has("61626364"));
    // A busy storage is tried again by the same URL; one that refuses it, by a new one.
    assert_eq!(stage.store.count("initiate"), 2);
    assert_eq!(stage.store.count("upload"), 0);
}

#[test]
fn errors_that_pass_are_waited_out_and_others_are_final() {
    let store = Store::default();
    store.fail("should", &[Code::Unavailable, Code::ResourceExhausted]);
    store.fail("upload", &[Code::Internal]);
    store.fail("mark", &[Code::Unavailable]);
    let mut stage = Stage::set(store);
    let program = program(stage.directory.path());
    stage.offer(b"abcd", &program);
    stage.wait_until("the upload", |store| store.has("61626364"));
    // The bytes go again under the number that the store gave them.
    let counts = ["should", "initiate", "upload"].map(|method| stage.store.count(method));
    assert_eq!(counts, [3, 1, 2]);

    // Somebody else was faster: it is there.
    stage
        .store
        .fail("initiate", &[Code::FailedPrecondition, Code::AlreadyExists]);
    for build_id in [b"abce", b"abcf"] {
        assert_eq!(stage.offer(build_id, &program), Verdict::Accepted);
    }
    stage.store.fail("should", &[]);
    stage.wait_until("the answers", |store| store.count("initiate") == 3);
    // A third one that is uploaded shows that the first two are over.
    stage.offer(b"abcg", &program);
    stage.wait_until("the last", |store| store.has("61626367"));
    assert_eq!(stage.store.count("upload"), 3);
    for build_id in [b"abce", b"abcf"] {
        assert_eq!(stage.offer(build_id, &program), Verdict::Known);
    }
}

#[test]
fn a_file_without_symbols_is_never_initiated() {
    let mut stage = Stage::set(Store::default());
    let program = program(stage.directory.path());
    let stripped = stage.directory.path().join("stripped");
    let mut strip = Command::new("strip");
    let status = strip
        .arg("-s")
        .arg("-o")
        .arg(&stripped)
        .arg(&program)
        .status();
    assert!(status.unwrap().success());
    stage.offer(b"abcd", &stripped);
    stage.offer(b"abce", &program);
    stage.wait_until("the good one", |store| store.has("61626365"));
    assert!(!stage.store.has("61626364"));
    assert_eq!(stage.store.count("initiate"), 1);
    // The process ends when it is told to, whatever it does.
    let pid = rustix::process::Pid::from_child(&stage.uploader);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(stage.uploader.wait().unwrap().success());
    let left = std::fs::read_dir(stage.directory.path()).unwrap();
    let extracts = left.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("extract")
    });
    assert_eq!(extracts.count(), 0);
}
