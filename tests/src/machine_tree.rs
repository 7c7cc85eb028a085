//! A Debian tree that boots: made once by `cargo xtask test` and kept in its cache; each test writes to a layer of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::process::run_ok;

/// A writable view of the tree, unmounted and removed with the value.
#[derive(Debug)]
pub struct Tree {
    directory: tempfile::TempDir,
}

impl Tree {
    /// A view of the cached tree.
    pub fn open() -> Result<Self> {
        let lower = cached()?;
        let directory = tempfile::tempdir()?;
        let path = |name| directory.path().join(name);
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(path(name))?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            path("upper").display(),
            path("work").display()
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]);
        run_ok(mount.arg(path("root")), Duration::from_secs(10))?;
        Ok(Self { directory })
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Installs Leadsman's binaries and units into it.
    pub fn install(&self) -> Result<()> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut install = Command::new(cargo);
        install
            .args(["xtask", "install", "--no-build", "--root"])
            .arg(self.root())
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        run_ok(&mut install, Duration::from_secs(120)).map(|_output| ())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(self.root()).status();
    }
}

/// Where `cargo xtask` keeps it.
fn cached() -> Result<PathBuf> {
    crate::compose::cached("debian-root")
}
