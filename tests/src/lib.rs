//! The black-box tests' harness: builds and starts workloads with known stacks, runs the built binaries under deadlines and
//! reads what comes out. It may know the command lines, the files and the sockets of the product; it must never link a
//! process crate.
#![forbid(unsafe_code)]

pub mod attacks;
pub mod binaries;
pub mod certificates;
pub mod cgroup;
pub mod chain;
pub mod collector;
pub mod compose;
pub mod credentials;
pub mod docker;
pub mod generated;
pub mod http;
pub mod kubernetes_api;
pub mod machine_tree;
pub mod metrics;
pub mod mixed_load;
pub mod nginx;
pub mod odd;
pub mod open_telemetry;
pub mod parca;
pub mod perf;
pub mod places;
pub mod process;
pub mod profile;
pub mod record;
pub mod relay;
pub mod report;
pub mod up;
pub mod workloads;

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// Says no, loudly, where the tests that need the kernel's help cannot work: they must never pass by doing nothing.
pub fn require_root() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this test loads BPF programs and needs root: run `cargo xtask test`, which asks for it"
    );
    Ok(())
}

/// A command that must be installed; its Debian package stands in tests/PACKAGES.
pub fn require_command(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/go/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    match std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
    {
        Some(file) => Ok(file),
        None => bail!(
            "'{name}' is not installed: `cargo xtask test` installs the packages listed in tests/PACKAGES"
        ),
    }
}

/// A new directory that every user may pass, unlike the usual 0700: Leadsman's processes have users of their own.
pub fn public_directory(prefix: &str) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o755));
    builder.tempdir().context("cannot make a directory")
}

/// Holds the machine for one test: recordings at the same time would measure each other.
#[derive(Debug)]
pub struct Machine {
    _lock: File,
}

impl Machine {
    /// Waits until no other test, of any test program, holds the machine. Needs root.
    pub fn lock() -> Result<Self> {
        require_root()?;
        let path = std::env::temp_dir().join("leadsman-tests.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        lock.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { _lock: lock })
    }
}
