//! The runtime directory with its listening sockets, made before anybody is started and removed at the end.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ipc_proto::hello::Role;
use rustix::fs::{Gid, Uid, chown};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use crate::error::Failure;
use crate::roles::{self, EDGES, Edge};
use crate::users::User;

/// Connections that may wait for a process that is being restarted.
const BACKLOG: i32 = 16;
/// Holds the process id of the front command.
const PID_FILE: &str = "leadsman.pid";
/// Where a recorded command waits for the recording's start.
pub(crate) const GATE: &str = "gate.sock";
/// A recording's own store and cache.
pub(crate) const STORE: &str = "store";
pub(crate) const CACHE: &str = "cache";
/// The copy of the configuration file.
pub(crate) const CONFIGURATION: &str = "configuration";

/// The directory; gone with the value.
#[derive(Debug)]
pub(crate) struct RuntimeDirectory {
    path: PathBuf,
    listeners: Listeners,
}

/// Listening sockets by name.
pub(crate) type Listeners = HashMap<&'static str, OwnedFd>;

impl RuntimeDirectory {
    /// Makes the directory, takes over one that a killed run left behind.
    ///
    /// # Errors
    /// Another Leadsman runs there, or the directory can't be made.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let failed = |what: &str, error: io::Error| {
            Failure::failed(format!(
                "cannot {what} {}: {error}: choose another --runtime-directory",
                path.display()
            ))
        };
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if let Some(pid) = running(path) {
                    return Err(Failure::failed(format!(
                        "Leadsman runs already as process {pid} in {}: stop it first, or choose another --runtime-directory",
                        path.display()
                    )));
                }
                clear(path).map_err(|error| failed("take over", error))?;
            }
            Err(error) => return Err(failed("create", error)),
        }
        let directory = Self {
            path: path.to_owned(),
            listeners: HashMap::new(),
        };
        // Others pass through it to the sockets, and list nothing.
        fs::set_permissions(path, Permissions::from_mode(0o711))
            .and_then(|()| fs::write(path.join(PID_FILE), format!("{}\n", std::process::id())))
            .map_err(|error| failed("write to", error))?;
        Ok(directory)
    }

    /// Makes every socket of which the listener is among `listeners`, each for its connectors alone.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(crate) fn listen(
        &mut self,
        listeners: &[Role],
        user: impl Fn(Role) -> Option<User>,
    ) -> Result<(), Failure> {
        self.listeners = listen_in(&self.path, listeners, user)?;
        Ok(())
    }

    /// The listening sockets.
    pub(crate) fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Hands a listening socket out for good.
    pub(crate) fn take(&mut self, socket: &str) -> Option<OwnedFd> {
        self.listeners.remove(socket)
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RuntimeDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("leadsman: cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Takes part in a directory that several service managers share, one for each process: makes it where it is missing, and
/// `role`'s own sockets in it, in place of those of an earlier life.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn share(
    path: &Path,
    role: Role,
    user: impl Fn(Role) -> Option<User>,
) -> Result<Listeners, Failure> {
    let failed = |error: io::Error| {
        Failure::failed(format!(
            "cannot use {}: {error}: choose another --runtime-directory",
            path.display()
        ))
    };
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o711)))
        .map_err(failed)?;
    for edge in EDGES.iter().filter(|edge| edge.listener == role) {
        match fs::remove_file(path.join(edge.socket)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    listen_in(path, &[role], user)
}

fn listen_in(
    directory: &Path,
    listeners: &[Role],
    user: impl Fn(Role) -> Option<User>,
) -> Result<Listeners, Failure> {
    let mut made = Listeners::new();
    for edge in EDGES
        .iter()
        .filter(|edge| listeners.contains(&edge.listener))
    {
        let path = directory.join(edge.socket);
        let listener = make(&path, edge, &user).map_err(|error| {
            Failure::failed(format!(
                "cannot make the socket {}: {error}",
                path.display()
            ))
        })?;
        made.insert(edge.socket, listener);
    }
    Ok(made)
}

/// The process that holds a runtime directory, if it lives.
pub(crate) fn running(path: &Path) -> Option<i32> {
    let text = fs::read_to_string(path.join(PID_FILE)).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let executable = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // The number may be another process's by now.
    (executable.file_name()?.to_str()?.starts_with("leadsman")).then_some(pid)
}

/// Removes what a killed run left; refuses a directory that holds anything else.
fn clear(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let own = |known: &str| name == known;
        if own(STORE) || own(CACHE) || own(CONFIGURATION) {
            fs::remove_dir_all(entry.path())?;
        } else if own(PID_FILE) || own(GATE) || EDGES.iter().any(|edge| own(edge.socket)) {
            fs::remove_file(entry.path())?;
        } else {
            return Err(io::Error::other(format!(
                "it holds {}, which is not Leadsman's",
                name.to_string_lossy()
            )));
        }
    }
    Ok(())
}

/// A listening socket that just its connectors can write to, which is what connect(2) asks for. Whoever listens
/// inherits it and needs no right on its path.
fn make(
    path: &Path,
    edge: &Edge,
    user: impl Fn(Role) -> Option<User>,
) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let connectors: Vec<User> = edge
        .connectors
        .iter()
        .filter_map(|role| user(*role))
        .collect();
    let mode = roles::socket_mode(edge);
    let owner = connectors.first().map(|user| Uid::from_raw(user.uid));
    let group = connectors.get(1).map(|user| Gid::from_raw(user.gid));
    // In this order: changing the mode of somebody else's file takes another capability.
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(mode))?;
    chown(path, owner, group)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_left_directory_is_taken_over_and_a_strange_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("samples.sock"), "").unwrap();
        // No process has this number (kernel.pid_max is at most 2^22).
        fs::write(path.join(PID_FILE), "99999999\n").unwrap();
        let directory = RuntimeDirectory::create(&path).unwrap();
        assert!(!path.join("samples.sock").exists());
        drop(directory);
        assert!(!path.exists());

        fs::create_dir(&path).unwrap();
        fs::write(path.join("diary"), "").unwrap();
        let error = RuntimeDirectory::create(&path).unwrap_err().to_string();
        assert!(error.contains("diary"), "{error}");
        assert!(path.join("diary").exists());
    }

    #[test]
    fn two_do_not_run_in_one_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        let _first = RuntimeDirectory::create(&path).unwrap();
        let error = RuntimeDirectory::create(&path).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
    }
}
