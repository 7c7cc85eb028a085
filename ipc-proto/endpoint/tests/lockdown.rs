//! Confines and locks down a process as each role, and lets it try what it must not be able to do. Needs root.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use ipc_endpoint::confine::{self, Identity};
use ipc_endpoint::lockdown::{self, Plan};
use ipc_endpoint::memfd;
use ipc_endpoint::rights::{self, Files, Machine};
use ipc_proto::hello::Role;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

const UID: u32 = 61_234;
const STAGE: &str = "LEADSMAN_TEST_STAGE";
const ROLE: &str = "LEADSMAN_TEST_ROLE";
const DIRECTORY: &str = "LEADSMAN_TEST_DIRECTORY";

fn main() -> ExitCode {
    let role = std::env::var(ROLE)
        .ok()
        .and_then(|name| Role::from_name(&name));
    match std::env::var(STAGE).as_deref() {
        Ok("launch") => launch(role.unwrap()),
        Ok("run") => run(role.unwrap()),
        Ok("parse") => parse(),
        _ => test(),
    }
}

fn test() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        println!("lockdown: skipped: needs root");
        return ExitCode::SUCCESS;
    }
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("file"), "content").unwrap();
    for path in [directory.path(), &own] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    for rights in &rights::ALL {
        let found = child("launch", Some(rights.role), &own);
        check(rights, &found);
        println!("lockdown as {}: ok", rights.role.name());
    }
    refuses_root();
    let found = child("parse", None, &own);
    assert_eq!(found["uid"], "65534");
    assert_eq!(found["capabilities"], "none");
    assert_eq!(found["open /etc/passwd"], "PERM");
    println!("lockdown of a parsing command: ok");
    ExitCode::SUCCESS
}

/// What the child said about itself: lines of `what=result`.
fn child(stage: &str, role: Option<Role>, own: &Path) -> BTreeMap<String, String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .env(STAGE, stage)
        .env(ROLE, role.map_or("", Role::name))
        .env(DIRECTORY, own)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{role:?}: {text}{errors}");
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(what, result)| (what.to_owned(), result.to_owned()))
        .collect()
}

fn check(rights: &rights::Rights, found: &BTreeMap<String, String>) {
    let role = rights.role.name();
    let machine = Machine::read();
    let has = rights::capability_names(rights.after_lockdown(&machine));
    assert_eq!(found["capabilities"], has, "{role}");
    assert_eq!(found["uid"], UID.to_string(), "{role}");
    assert_eq!(found["no_new_privs"], "1", "{role}");
    assert_eq!(found["seccomp"], "2", "{role}");
    assert_eq!(found["own network"], "true", "{role}");
    for denied in [
        "AF_INET",
        "openat for writing elsewhere",
        "new process",
        "device node",
    ] {
        assert_ne!(found[denied], "ok", "{role}: {denied}");
    }
    let (passwd, read, write) = match rights.files {
        Files::None => (false, false, false),
        Files::ReadAnything => (true, true, false),
        Files::ReadDirectory => (false, true, false),
        Files::WriteDirectory | Files::WriteDirectoryReadMachine => (false, true, true),
    };
    assert_eq!(found["open /etc/passwd"] == "ok", passwd, "{role}");
    assert_eq!(found["read own directory"] == "ok", read, "{role}");
    assert_eq!(found["write own directory"] == "ok", write, "{role}");
    for permitted in ["memfd", "AF_UNIX", "random"] {
        assert_eq!(found[permitted], "ok", "{role}: {permitted}");
    }
    let threads = rights.groups.iter().any(|group| group.name == "threads");
    assert_eq!(found["thread"] == "ok", threads, "{role}");
}

fn refuses_root() {
    let output = Command::new(std::env::current_exe().unwrap())
        .env(STAGE, "run")
        .env(ROLE, Role::Shipper.name())
        .env(DIRECTORY, "/")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(errors.contains("uid 0"), "{errors}");
    println!("lockdown refuses root: ok");
}

/// As the launcher does it: confine, then execute the program by a descriptor opened before.
fn launch(role: Role) -> ExitCode {
    let program = File::open(std::env::current_exe().unwrap()).unwrap();
    let rights = rights::of(role).unwrap();
    for shortfall in confine::enter(rights, &Machine::read(), &Identity::alone(UID), false).unwrap()
    {
        eprintln!("{shortfall}");
    }
    let error = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .env(STAGE, "run")
        .exec();
    eprintln!("{error}");
    ExitCode::FAILURE
}

fn run(role: Role) -> ExitCode {
    let own = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let plan = match rights::of(role).unwrap().files {
        Files::None | Files::ReadAnything => Plan::default(),
        Files::ReadDirectory => Plan {
            read: vec![own.clone()],
            ..Plan::default()
        },
        Files::WriteDirectory | Files::WriteDirectoryReadMachine => Plan {
            write: vec![own.clone()],
            ..Plan::default()
        },
    };
    let status = File::open("/proc/self/status").unwrap();
    let network = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    say("own network", network.lines().count() <= 3);
    if let Err(error) = lockdown::enter(role, &plan) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    describe(&status);
    try_everything(&own);
    ExitCode::SUCCESS
}

fn parse() -> ExitCode {
    let status = File::open("/proc/self/status").unwrap();
    if let Err(error) = lockdown::parse_only(&Plan::default()) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    describe(&status);
    say("open /etc/passwd", outcome(open("/etc/passwd")));
    ExitCode::SUCCESS
}

fn describe(status: &File) {
    let mut text = [0; 8192];
    let length = rustix::io::pread(status, &mut text, 0).unwrap();
    let text = std::str::from_utf8(&text[..length]).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_ascii_whitespace().next().unwrap()
    };
    let bits = u64::from_str_radix(field("CapEff:"), 16).unwrap();
    let capabilities = CapabilitySet::from_bits_retain(bits);
    say("capabilities", rights::capability_names(capabilities));
    say("uid", field("Uid:"));
    say("no_new_privs", field("NoNewPrivs:"));
    say("seccomp", field("Seccomp:"));
}

fn try_everything(own: &Path) {
    use rustix::net::{AddressFamily, SocketType, socket};
    say("open /etc/passwd", outcome(open("/etc/passwd")));
    say("read own directory", outcome(open(own.join("file"))));
    let create = |path: &Path| {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE;
        rustix::fs::open(path, flags, rustix::fs::Mode::RUSR)
    };
    let new = own.join(format!("new-{}", std::process::id()));
    say("write own directory", outcome(create(&new)));
    let elsewhere = own.with_file_name("elsewhere");
    say("openat for writing elsewhere", outcome(create(&elsewhere)));
    say(
        "AF_INET",
        outcome(socket(AddressFamily::INET, SocketType::STREAM, None)),
    );
    say(
        "AF_UNIX",
        outcome(socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)),
    );
    say(
        "memfd",
        if memfd::sealed(b"x").is_ok() {
            "ok"
        } else {
            "refused"
        },
    );
    let mut bytes = [0; 8];
    let random = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    say("random", outcome(random));
    let process = Command::new("/bin/true").spawn();
    say(
        "new process",
        if process.is_ok() { "ok" } else { "refused" },
    );
    let thread = std::thread::Builder::new().spawn(|| {});
    say("thread", if thread.is_ok() { "ok" } else { "refused" });
    let node = rustix::fs::mknodat(
        rustix::fs::CWD,
        own.join("node"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::RUSR,
        0,
    );
    say("device node", outcome(node));
}

fn open(path: impl AsRef<Path>) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = rustix::fs::OFlags::RDONLY;
    rustix::fs::open(path.as_ref(), flags, rustix::fs::Mode::empty())
}

fn outcome<T>(result: Result<T, Errno>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(Errno::PERM) => "PERM".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn say(what: &str, result: impl std::fmt::Display) {
    println!("{what}={result}");
}
