//! Runs `leadsman up` on a port, a store and a runtime directory of its own. Everything it started is gone when the value
//! goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::binaries;
use crate::credentials::{Credentials, descendants};
use crate::http;
use crate::metrics::Metrics;
use crate::process::{Output, Running, until};
use crate::profile::Profile;
use crate::public_directory;

/// From start to samples flowing end to end.
const READY: Duration = Duration::from_secs(15);

/// A running Leadsman.
#[derive(Debug)]
pub struct Up {
    running: Running,
    pub address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Up {
    /// Starts with windows of `window` seconds and waits until it says that it is ready.
    pub fn start(window: u32, more: &[&str]) -> Result<Self> {
        Self::start_in(public_directory("up-")?, window, more)
    }

    /// As [`Up::start`], with the local store and a remote one at `address`: fresh windows go there every second.
    pub fn start_with_remote_store(window: u32, address: &str, more: &[&str]) -> Result<Self> {
        let interval = ["--remote-store-batch-write-interval", "1s"];
        Self::start_shipping(window, address, &[&interval, more].concat())
    }

    /// The same, with all else as it is by default.
    pub fn start_shipping(window: u32, address: &str, more: &[&str]) -> Result<Self> {
        let directory = public_directory("up-")?;
        let spool = directory.path().join("spool");
        let spool = spool.to_str().context("the path is UTF-8")?;
        let mut arguments = vec![
            "--remote-store-address",
            address,
            "--remote-store-spool-directory",
            spool,
        ];
        arguments.extend_from_slice(more);
        Self::start_in(directory, window, &arguments)
    }

    fn start_in(directory: tempfile::TempDir, window: u32, more: &[&str]) -> Result<Self> {
        let address = free_address()?;
        let mut up = Self {
            running: Running::start(
                Command::new(binaries::leadsman()?)
                    .arg("up")
                    .arg("--local-store-directory")
                    .arg(directory.path().join("store"))
                    .arg("--runtime-directory")
                    .arg(directory.path().join("run"))
                    .args(["--http-address", &address.to_string()])
                    .args(["--profiling-duration", &format!("{window}s")])
                    .args(more),
            )?,
            address,
            directory,
        };
        let ready = until("/ready answers 200", READY, || {
            if !up.running.is_alive()? {
                return Ok(Some(false));
            }
            let is_ready =
                http::get(address, "/ready").is_ok_and(|response| response.status == 200);
            Ok(is_ready.then_some(true))
        })?;
        if !ready {
            let output = up.running.wait(Duration::from_secs(1))?;
            bail!(
                "leadsman up ended with {}: {}",
                output.status,
                output.stderr
            );
        }
        Ok(up)
    }

    /// Where the profiles are.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// The profiles there, a file each.
    pub fn stored(&self) -> Result<BTreeSet<PathBuf>> {
        let mut files = BTreeSet::new();
        for entry in std::fs::read_dir(self.store())? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(".pb.gz") {
                files.insert(path);
            }
        }
        Ok(files)
    }

    /// What it samples in at least `duration` from now on, whole windows.
    pub fn sampled(&self, duration: Duration) -> Result<Profile> {
        let known = self.stored()?;
        std::thread::sleep(duration);
        let mut sampled = Profile::default();
        for file in self.stored()?.difference(&known) {
            let profile = Profile::read(file)?;
            sampled.period = profile.period;
            sampled.stacks.extend(profile.stacks);
        }
        Ok(sampled)
    }

    /// Where the sockets are.
    #[must_use]
    pub fn runtime_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The front command's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// All started processes by the name of their executable, without the front command.
    pub fn processes(&self) -> Result<BTreeMap<String, Credentials>> {
        let mut found = BTreeMap::new();
        for pid in descendants(self.id())? {
            let executable = std::fs::read_link(format!("/proc/{pid}/exe"))
                .with_context(|| format!("cannot read /proc/{pid}/exe"))?;
            let name = executable
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            found.insert(name, Credentials::of(pid)?);
        }
        Ok(found)
    }

    /// The process id of one role, `symbolizer` for instance.
    pub fn process(&self, role: &str) -> Result<u32> {
        let name = format!("leadsman-{role}");
        Ok(self
            .processes()?
            .get(&name)
            .with_context(|| format!("no {name} runs"))?
            .pid)
    }

    /// Scrapes `/metrics`.
    pub fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&http::get(self.address, "/metrics")?.text())
    }

    /// Sends `signal` to the front command and waits for its end.
    pub fn stop(self, signal: Signal) -> Result<(Output, tempfile::TempDir)> {
        self.running.signal(signal)?;
        // 5 s are promised; what is above is the machine's own slowness.
        let output = self.running.wait(Duration::from_secs(10))?;
        Ok((output, self.directory))
    }
}

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}
