//! Starts one process through `leadsman launch`, with the descriptors it listens on (sd_listen_fds(3)).

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use ipc_proto::hello::Role;

use crate::plan::Process;
use crate::roles::EDGES;
use crate::runtime_directory::Listeners;

/// First descriptor that is passed (SD_LISTEN_FDS_START).
const FIRST: i32 = 3;

/// What started processes inherit.
#[derive(Debug)]
pub(crate) struct Inheritance<'a> {
    /// Their listening sockets.
    pub(crate) listeners: &'a Listeners,
    /// The page's listening socket.
    pub(crate) http: Option<&'a TcpListener>,
}

/// Starts `process`. It leads a process group of its own: Ctrl-C reaches the front command alone, which stops the
/// others in their order.
///
/// # Errors
/// No process, or no descriptor.
pub(crate) fn spawn(process: &Process, inheritance: &Inheritance<'_>) -> io::Result<Child> {
    command(process, inheritance)?.process_group(0).spawn()
}

/// The command that becomes `process`.
///
/// # Errors
/// A descriptor is not to be had.
pub(crate) fn command(process: &Process, inheritance: &Inheritance<'_>) -> io::Result<Command> {
    let passed = passed(process.role, inheritance)?;
    let names: Vec<&str> = passed.iter().map(|(name, _)| *name).collect();
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("leadsman")
        .arg("launch")
        .arg(process.role.name())
        .arg(format!("--uid={}", process.user.uid))
        .arg(format!("--gid={}", process.user.gid))
        .args(process.groups.iter().map(|gid| format!("--group={gid}")))
        .args(process.store.then_some("--store"))
        .arg("--")
        .args(&process.arguments)
        .env_clear()
        .envs(process.environment.iter().cloned())
        .env("LISTEN_FDS", names.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(match process.prints_traces {
            true => Stdio::inherit(),
            false => Stdio::null(),
        });
    let mappings = (FIRST..)
        .zip(passed)
        .map(|(child_fd, (_, parent_fd))| FdMapping {
            parent_fd,
            child_fd,
        });
    command
        .fd_mappings(mappings.collect())
        .map_err(io::Error::other)?;
    Ok(command)
}

fn passed(role: Role, from: &Inheritance<'_>) -> io::Result<Vec<(&'static str, OwnedFd)>> {
    let mut passed = Vec::new();
    for edge in EDGES.iter().filter(|edge| edge.listener == role) {
        if let Some(listener) = from.listeners.get(edge.socket) {
            passed.push((edge.socket, listener.try_clone()?));
        }
    }
    match role {
        Role::Viewer => {
            if let Some(http) = from.http {
                passed.push(("http", http.as_fd().try_clone_to_owned()?));
            }
        }
        // Who opens it decides whether it shows addresses, so the confined process can't.
        Role::Sampler => passed.push(("kallsyms", File::open("/proc/kallsyms")?.into())),
        // The same for where modules lie; a kernel without modules has no such file.
        Role::Symbolizer => {
            if let Ok(modules) = File::open("/proc/modules") {
                passed.push(("modules", modules.into()));
            }
        }
        _ => {}
    }
    Ok(passed)
}
