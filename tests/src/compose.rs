//! A docker daemon with compose, newer than the installed one (docker.rs) and unpacked beside it; stacks go with the value.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Output, Running, run, run_ok, until};

/// The daemon.
#[derive(Debug)]
pub struct Compose {
    directory: tempfile::TempDir,
    tools: PathBuf,
    daemon: Option<Running>,
    /// Compose projects to be taken down: file and environment.
    projects: Vec<PathBuf>,
}

impl Compose {
    /// Starts it and waits until it answers.
    pub fn start() -> Result<Self> {
        let tools = cached("docker")?;
        let directory = tempfile::tempdir()?;
        let plugins = directory.path().join("config/cli-plugins");
        std::fs::create_dir_all(&plugins)?;
        for plugin in ["docker-compose", "docker-buildx"] {
            let from = tools.join("usr/libexec/docker/cli-plugins").join(plugin);
            std::fs::copy(&from, plugins.join(plugin))
                .with_context(|| format!("cannot copy {}", from.display()))?;
        }
        let mut docker = Self {
            directory,
            tools,
            daemon: None,
            projects: Vec::new(),
        };
        let path = |name: &str| docker.directory.path().join(name);
        let mut daemon = docker.tool("dockerd");
        daemon
            .args(["--iptables=false", "--ip6tables=false", "--data-root"])
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg("-H")
            .arg(format!("unix://{}", path("docker.sock").display()));
        docker.daemon = Some(Running::start(&mut daemon)?);
        until("docker answers", Duration::from_secs(30), || {
            let info = run(docker.docker().arg("info"), Duration::from_secs(10))?;
            Ok(info.status.success().then_some(()))
        })?;
        Ok(docker)
    }

    /// One of its programs.
    fn tool(&self, name: &str) -> Command {
        let own = ["usr/sbin", "usr/bin"].map(|part| self.tools.join(part));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)));
        let socket = self.directory.path().join("docker.sock");
        let place = ["usr/sbin", "usr/bin"]
            .map(|part| self.tools.join(part).join(name))
            .into_iter()
            .find(|place| place.is_file());
        let mut command = Command::new(place.unwrap_or_else(|| name.into()));
        command
            .env("PATH", path.unwrap_or_default())
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("DOCKER_CONFIG", self.directory.path().join("config"));
        command
    }

    /// The client.
    #[must_use]
    pub fn docker(&self) -> Command {
        self.tool("docker")
    }

    /// Runs the client to its end.
    pub fn run(&self, words: &[&str]) -> Result<Output> {
        run_ok(self.docker().args(words), Duration::from_secs(120))
    }

    /// Makes the image `name` of a tree.
    pub fn import(&self, tree: &Path, name: &str, change: &str) -> Result<()> {
        let archive = self.directory.path().join("archive.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C")
            .arg(tree)
            .args(["--exclude=./var/cache", "-cf"]);
        run_ok(tar.arg(&archive).arg("."), Duration::from_secs(120))?;
        let archive = archive.to_string_lossy().into_owned();
        self.run(&["import", "--change", change, &archive, name])?;
        Ok(())
    }

    /// `docker compose -f FILE up -d`; taken down with the value.
    pub fn compose_up(&mut self, file: &Path) -> Result<()> {
        self.projects.push(file.to_owned());
        let file = file.to_string_lossy().into_owned();
        self.run(&[
            "compose",
            "-f",
            &file,
            "up",
            "-d",
            "--no-build",
            "--pull",
            "never",
        ])?;
        Ok(())
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        for file in &self.projects {
            let file = file.to_string_lossy().into_owned();
            let words = ["compose", "-f", &file, "down", "-v", "-t", "3"];
            let _best_effort = run(self.docker().args(words), Duration::from_secs(60));
        }
        if let Some(daemon) = self.daemon.take() {
            let _gone = daemon.signal(rustix::process::Signal::TERM);
            let _ended = daemon.wait(Duration::from_secs(20));
        }
    }
}

/// What `cargo xtask test` keeps in its cache under `name`.
pub fn cached(name: &str) -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let found = base.join("leadsman").join(name);
    if !found.is_dir() {
        bail!(
            "{} is not there: `cargo xtask test` makes it",
            found.display()
        );
    }
    Ok(found)
}
