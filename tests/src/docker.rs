//! A Docker daemon of the test's own: its directories, its socket, no network, and the containerd below it. Gone with the
//! value.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::process::{Output, Running, run_ok, until};
use crate::{public_directory, require_command};

/// The group that may use its socket, as Debian's `docker` may.
const SOCKET_GROUP: u32 = 64_123;

/// The daemon.
#[derive(Debug)]
pub struct Docker {
    daemon: Option<Running>,
    directory: tempfile::TempDir,
}

impl Docker {
    /// Starts the daemon and waits until it answers.
    pub fn start() -> Result<Self> {
        let daemon = require_command("dockerd")?;
        // overlayfs can't be on itself.
        // Whoever the sockets let in must reach them.
        let directory = public_directory("leadsman-docker-")?;
        let at = |name: &str| directory.path().join(name);
        let mut command = Command::new(daemon);
        command
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--host")
            .arg(format!("unix://{}", at("docker.sock").display()))
            .args(["--group", &SOCKET_GROUP.to_string()])
            .args([
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--storage-driver=vfs",
            ]);
        let docker = Self {
            daemon: Some(Running::start(&mut command)?),
            directory,
        };
        until("the Docker daemon answers", Duration::from_secs(60), || {
            Ok(docker.run(&["version"]).is_ok().then_some(()))
        })?;
        Ok(docker)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// The socket of its containerd.
    pub fn containerd(&self) -> Result<PathBuf> {
        let state = self.directory.path().join("exec/containerd");
        // As the distribution's own is: for root and its group.
        for directory in [self.directory.path().join("exec"), state.clone()] {
            std::fs::set_permissions(directory, Permissions::from_mode(0o711))?;
        }
        let socket = state.join("containerd.sock");
        std::fs::set_permissions(&socket, Permissions::from_mode(0o660))?;
        Ok(socket)
    }

    /// Runs `script` in busybox's shell in a container of containerd's own, named `id`, until it ends. `labels`: `NAME=VALUE`.
    pub fn run_in_containerd(&self, id: &str, labels: &[&str], script: &str) -> Result<()> {
        let mut command = Command::new("/usr/bin/ctr");
        command
            .arg("--address")
            .arg(self.containerd()?)
            .args(["run", "--rm", "--rootfs"]);
        for label in labels {
            command.args(["--label", label]);
        }
        command.arg(self.directory.path().join("root")).args([
            id,
            "/bin/busybox",
            "sh",
            "-c",
            script,
        ]);
        run_ok(&mut command, Duration::from_secs(60))?;
        Ok(())
    }

    /// Runs the client.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("/usr/bin/docker");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()))
            .args(arguments);
        run_ok(&mut command, Duration::from_secs(60))
    }

    /// Makes an image of one static busybox.
    pub fn import_busybox(&self, name: &str) -> Result<()> {
        let busybox = require_command("busybox")?;
        let root = self.directory.path().join("root/bin");
        std::fs::create_dir_all(&root)?;
        std::fs::copy(&busybox, root.join("busybox")).context("busybox")?;
        let archive = self.directory.path().join("root.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C")
            .arg(self.directory.path().join("root"))
            .arg("-cf")
            .arg(&archive)
            .arg(".");
        run_ok(&mut tar, Duration::from_secs(60))?;
        self.run(&["import", &archive.to_string_lossy(), name])?;
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            // It unmounts what its containers had; a test that failed already has said so.
            let _asked = daemon.signal(Signal::TERM);
            let _ended = daemon.wait(Duration::from_secs(20));
        }
    }
}
