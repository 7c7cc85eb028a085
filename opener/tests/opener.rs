//! The real opener, confined as the launcher does it, against processes of another user. Needs root.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs::{File, Permissions};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use ipc_endpoint::confine::{self, Identity};
use ipc_endpoint::connect::Connector;
use ipc_endpoint::link::{Link, LinkError, Sent};
use ipc_endpoint::listener::Listener;
use ipc_endpoint::peers::Peers;
use ipc_endpoint::rights::{self, Machine};
use ipc_proto::codec::Bytes;
use ipc_proto::hello::Role;
use ipc_proto::ids::Pid;
use ipc_proto::opener::{
    OpenDebugFile, OpenExecutable, OpenMaps, OpenPerfMap, OpenStatus, Opened, OpenerReply,
    OpenerRequest, Sampled,
};

const OPENER_UID: u32 = 61_301;
const TARGET_UID: u32 = 61_302;
const LAUNCH: &str = "LEADSMAN_TEST_LAUNCH";

type Channel = Link<OpenerRequest, OpenerReply>;

fn main() -> ExitCode {
    if std::env::var_os(LAUNCH).is_some() {
        return launch();
    }
    if !rustix::process::geteuid().is_root() {
        println!("opener: skipped: needs root");
        return ExitCode::SUCCESS;
    }
    let stage = Stage::set();
    for (name, test) in [
        (
            "executables of other users, by mapping",
            executables as fn(&Stage),
        ),
        ("nothing of processes that are not sampled", not_sampled),
        (
            "a process that is gone, by the path the sampler named",
            gone,
        ),
        ("maps", maps),
        ("perf maps of their owner only", perf_maps),
        ("debug files", debug_files),
        ("a role asks only what is its own", forbidden),
    ] {
        test(&stage);
        println!("opener: {name}: ok");
    }
    ExitCode::SUCCESS
}

/// Becomes the opener.
fn launch() -> ExitCode {
    let program = File::open(env!("CARGO_BIN_EXE_leadsman-opener")).unwrap();
    let rights = rights::of(Role::Opener).unwrap();
    let identity = Identity::alone(OPENER_UID);
    confine::enter(rights, &Machine::read(), &identity, false).unwrap();
    let error = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .args(std::env::args_os().skip(1))
        .env("LISTEN_PID", std::process::id().to_string())
        .exec();
    eprintln!("{error}");
    ExitCode::FAILURE
}

/// The running opener and a directory.
struct Stage {
    directory: tempfile::TempDir,
    opener: Child,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.opener);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.opener.wait().unwrap().success());
    }
}

impl Stage {
    fn set() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let path = directory.path().join("opener.sock");
        let listener = Listener::bind(&path).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let runtime = directory.path().to_str().unwrap();
        command
            .args(["--runtime-directory", runtime])
            .args(["--peer", "sampler=0", "--peer", "symbolizer=0"])
            .env(LAUNCH, "1")
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "opener.sock")
            .fd_mappings(vec![FdMapping {
                parent_fd: rustix::io::dup(&listener).unwrap(),
                child_fd: 3,
            }])
            .unwrap();
        let opener = command.spawn().unwrap();
        Self { directory, opener }
    }

    fn connect(&self, role: Role) -> Channel {
        let mut peers = Peers::default();
        peers.insert(Role::Opener, OPENER_UID);
        let directory = self.directory.path();
        Connector::new(directory, "opener.sock", role, Role::Opener, &peers)
            .poll(0)
            .unwrap()
    }

    /// A program of its own user in a directory that nobody else may enter.
    fn target(&self, name: &str) -> Target {
        let directory = self.directory.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        let program = directory.join("program");
        std::fs::copy("/bin/sleep", &program).unwrap();
        for path in [&program, &directory] {
            chown(path, Some(TARGET_UID), Some(TARGET_UID)).unwrap();
            std::fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
        }
        let child = Command::new(&program)
            .arg("1000")
            .uid(TARGET_UID)
            .gid(TARGET_UID)
            .spawn()
            .unwrap();
        let mapping = executable_mapping(child.id(), &program);
        Target {
            program,
            child,
            mapping,
        }
    }
}

struct Target {
    program: PathBuf,
    child: Child,
    mapping: (u64, u64),
}

impl Drop for Target {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Target {
    fn pid(&self) -> Pid {
        Pid(self.child.id())
    }

    fn path(&self) -> Vec<u8> {
        self.program.to_str().unwrap().as_bytes().to_vec()
    }

    fn sampled(&self) -> OpenerRequest {
        OpenerRequest::Sampled(Sampled {
            pid: self.pid(),
            start_time: 0,
            path: Bytes(self.path()),
        })
    }

    fn executable(&self, request: u64) -> OpenerRequest {
        OpenerRequest::OpenExecutable(OpenExecutable {
            request,
            pid: self.pid(),
            mapping_start: self.mapping.0,
            mapping_end: self.mapping.1,
            path: Bytes(self.path()),
            ..OpenExecutable::default()
        })
    }
}

fn executable_mapping(pid: u32, program: &Path) -> (u64, u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut lines = maps
            .lines()
            .filter(|line| line.ends_with(program.to_str().unwrap()));
        if let Some(line) = lines.find(|line| line.contains("r-xp")) {
            let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            return (number(start), number(end));
        }
        assert!(Instant::now() < deadline, "the program does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send(link: &mut Channel, request: &OpenerRequest) {
    assert_eq!(link.send(request, &[]).unwrap(), Sent::Done);
}

fn receive(link: &mut Channel) -> Result<(Opened, Vec<OwnedFd>), LinkError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(received) = link.receive()? {
            let OpenerReply::Opened(opened) = received.message;
            return Ok((opened, received.fds));
        }
        assert!(Instant::now() < deadline, "no answer");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn ask(link: &mut Channel, request: &OpenerRequest) -> (Opened, Option<File>) {
    send(link, request);
    let (opened, mut fds) = receive(link).unwrap();
    assert_eq!(
        fds.len(),
        usize::from(opened.status == OpenStatus::Opened as u8)
    );
    (opened, fds.pop().map(File::from))
}

fn status(link: &mut Channel, request: &OpenerRequest) -> u8 {
    ask(link, request).0.status
}

/// Names the target as sampled, and waits until the opener has heard it: the two links are served independently.
fn name(stage: &Stage, target: &Target) -> Channel {
    let mut sampler = stage.connect(Role::Sampler);
    send(&mut sampler, &target.sampled());
    let maps = OpenerRequest::OpenMaps(OpenMaps {
        request: 1,
        pid: target.pid(),
        start_time: 0,
    });
    assert_eq!(status(&mut sampler, &maps), OpenStatus::Opened as u8);
    sampler
}

fn executables(stage: &Stage) {
    let target = stage.target("executables");
    let content = std::fs::read(&target.program).unwrap();
    let _sampler = name(stage, &target);
    let mut symbolizer = stage.connect(Role::Symbolizer);
    let (opened, file) = ask(&mut symbolizer, &target.executable(7));
    assert_eq!((opened.request, opened.size), (7, content.len() as u64));
    let mut file = file.unwrap();
    let flags = rustix::fs::fcntl_getfl(&file).unwrap();
    assert!(!flags.intersects(rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::RDWR));
    let mut found = Vec::new();
    file.read_to_end(&mut found).unwrap();
    assert_eq!(found, content);
    // Deleted files are still mapped.
    std::fs::remove_file(&target.program).unwrap();
    let wanted = target.executable(8);
    assert_eq!(status(&mut symbolizer, &wanted), OpenStatus::Opened as u8);
    // An address within the mapping is enough, when the kernel has split or merged it since.
    let OpenerRequest::OpenExecutable(mut inner) = wanted else {
        unreachable!()
    };
    (inner.mapping_start, inner.mapping_end) =
        (inner.mapping_start + 4096, inner.mapping_end + 4096);
    inner.path = Bytes::default();
    let wanted = OpenerRequest::OpenExecutable(inner);
    assert_eq!(status(&mut symbolizer, &wanted), OpenStatus::Opened as u8);
}

fn not_sampled(stage: &Stage) {
    let target = stage.target("not-sampled");
    let mut symbolizer = stage.connect(Role::Symbolizer);
    let refused = OpenStatus::NotSampled as u8;
    assert_eq!(status(&mut symbolizer, &target.executable(1)), refused);
    let pid = target.pid();
    let perf_map = OpenerRequest::OpenPerfMap(OpenPerfMap {
        request: 2,
        pid,
        start_time: 0,
    });
    assert_eq!(status(&mut symbolizer, &perf_map), refused);
}

fn gone(stage: &Stage) {
    let mut target = stage.target("gone");
    let _sampler = name(stage, &target);
    target.child.kill().unwrap();
    target.child.wait().unwrap();
    let mut symbolizer = stage.connect(Role::Symbolizer);
    let wanted = target.executable(1);
    assert_eq!(status(&mut symbolizer, &wanted), OpenStatus::Opened as u8);
    let OpenerRequest::OpenExecutable(mut other) = wanted else {
        unreachable!()
    };
    other.path = Bytes(b"/bin/sh".to_vec());
    let wanted = OpenerRequest::OpenExecutable(other);
    assert_eq!(
        status(&mut symbolizer, &wanted),
        OpenStatus::ProcessGone as u8
    );
}

fn maps(stage: &Stage) {
    let target = stage.target("maps");
    let mut sampler = stage.connect(Role::Sampler);
    let mut wanted = OpenMaps {
        request: 3,
        pid: target.pid(),
        start_time: 0,
    };
    let (_, file) = ask(&mut sampler, &OpenerRequest::OpenMaps(wanted.clone()));
    let mut text = String::new();
    file.unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains(target.program.to_str().unwrap()), "{text}");
    // Another process of the same number would have started at another time.
    wanted.start_time = 1;
    let wanted = OpenerRequest::OpenMaps(wanted);
    assert_eq!(status(&mut sampler, &wanted), OpenStatus::ProcessGone as u8);
}

fn perf_maps(stage: &Stage) {
    let target = stage.target("perf-maps");
    let _sampler = name(stage, &target);
    let mut symbolizer = stage.connect(Role::Symbolizer);
    let wanted = OpenerRequest::OpenPerfMap(OpenPerfMap {
        request: 1,
        pid: target.pid(),
        start_time: 0,
    });
    let path = PathBuf::from(format!("/tmp/perf-{}.map", target.pid().0));
    assert_eq!(status(&mut symbolizer, &wanted), OpenStatus::NotFound as u8);
    std::fs::write(&path, "1000 10 f\n").unwrap();
    chown(&path, Some(TARGET_UID), None).unwrap();
    let own = status(&mut symbolizer, &wanted);
    chown(&path, Some(OPENER_UID), None).unwrap();
    let of_others = status(&mut symbolizer, &wanted);
    std::fs::remove_file(&path).unwrap();
    symlink("/etc/shadow", &path).unwrap();
    let link = status(&mut symbolizer, &wanted);
    std::fs::remove_file(&path).unwrap();
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    let fifo = status(&mut symbolizer, &wanted);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(own, OpenStatus::Opened as u8);
    for refused in [of_others, link, fifo] {
        assert_eq!(refused, OpenStatus::Refused as u8);
    }
}

fn debug_files(stage: &Stage) {
    let target = stage.target("debug-files");
    let _sampler = name(stage, &target);
    let mut symbolizer = stage.connect(Role::Symbolizer);
    let beside = target.program.with_file_name("program.debug");
    std::fs::copy("/bin/sleep", &beside).unwrap();
    let wanted = |path: &[u8], name: &[u8]| {
        OpenerRequest::OpenDebugFile(OpenDebugFile {
            request: 1,
            pid: target.pid(),
            path: Bytes(path.to_vec()),
            name: Bytes(name.to_vec()),
            ..OpenDebugFile::default()
        })
    };
    let path = target.path();
    let mut ask = |path: &[u8], name: &[u8]| status(&mut symbolizer, &wanted(path, name));
    assert_eq!(ask(&path, b"program.debug"), OpenStatus::Opened as u8);
    assert_eq!(ask(&path, b"other.debug"), OpenStatus::NotFound as u8);
    assert_eq!(ask(&path, b"../x"), OpenStatus::NotFound as u8);
    assert_eq!(ask(b"/bin/x", b"sh"), OpenStatus::NotSampled as u8);
}

fn forbidden(stage: &Stage) {
    let target = stage.target("forbidden");
    let mut symbolizer = stage.connect(Role::Symbolizer);
    send(&mut symbolizer, &target.sampled());
    assert!(matches!(receive(&mut symbolizer), Err(LinkError::Closed)));
    // Others go on.
    let _sampler = name(stage, &target);
}
