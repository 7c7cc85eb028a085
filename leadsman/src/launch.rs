//! `leadsman launch ROLE`: takes this process's rights away, then becomes the role's binary.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use ipc_endpoint::confine::{self, Identity};
use ipc_endpoint::logger;
use ipc_endpoint::rights::{self, Machine};
use ipc_proto::hello::Role;

use crate::cli::Launch;
use crate::error::Failure;
use crate::roles;

/// The sampler comes before what it samples, as a kernel thread would.
pub(crate) const SAMPLER_NICENESS: i32 = -10;
/// glibc gives large blocks back when they are freed, and threads share one heap (mallopt(3)): the start's parsing must
/// not cost memory for ever.
pub(crate) const FRUGAL: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "65536"),
];

/// Does not return when all goes well.
///
/// # Errors
/// The rights can't be taken away, or the binary can't be started.
pub(crate) fn run(launch: &Launch) -> Result<ExitCode, Failure> {
    logger::init(
        launch.role,
        log::LevelFilter::Warn,
        logger::Format::default(),
    );
    let binary = binary(&roles::binary(launch.role))?;
    let role = launch.role.name();
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("cannot start leadsman-{role}: {error}"))
    };
    let rights = rights::of(launch.role).ok_or_else(|| failed(&"it has no rights"))?;
    // Opened now: its directory may be closed to the process's user.
    let opened = File::open(&binary).map_err(|error| failed(&error))?;
    if launch.role == Role::Sampler {
        // It copies numbers for a few microseconds at a time; on a busy machine its rings fill while it waits.
        let _as_good_as_it_gets = rustix::process::setpriority_process(None, SAMPLER_NICENESS);
    }
    let machine = Machine::read();
    let identity = Identity {
        uid: launch.uid,
        gid: launch.gid,
        groups: launch.groups.clone(),
    };
    let shortfalls = confine::enter(rights, &machine, &identity, launch.store)
        .map_err(|error| failed(&error))?;
    for shortfall in shortfalls {
        log::warn!("{shortfall}");
    }
    match execute(&binary, &opened, launch) {
        Ok(never) => match never {},
        Err(error) => Err(failed(&error)),
    }
}

fn execute(binary: &Path, opened: &File, launch: &Launch) -> io::Result<Infallible> {
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let mut last = io::Error::other("no path");
    for path in [binary, &by_descriptor] {
        last = Command::new(path)
            .arg0(roles::binary(launch.role))
            .args(&launch.arguments)
            .env("LISTEN_PID", std::process::id().to_string())
            .envs(FRUGAL)
            .exec();
        if last.kind() != io::ErrorKind::PermissionDenied {
            break;
        }
    }
    Err(last)
}

/// A binary beside this one.
///
/// # Errors
/// It is not there.
pub(crate) fn binary(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("cannot find the own binary: {error}")))?;
    let binary = own.with_file_name(name);
    if binary.is_file() {
        Ok(binary)
    } else {
        Err(Failure::failed(format!(
            "{} is missing: install all of Leadsman's binaries side by side",
            binary.display()
        )))
    }
}
