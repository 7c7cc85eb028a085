//! Where the product's binaries and this build's target directory are. Must never fall back to an installed Leadsman.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::public_directory;

/// The front command and the processes it starts, as they are named on disk.
pub const NAMES: [&str; 7] = [
    "leadsman",
    "leadsman-sampler",
    "leadsman-opener",
    "leadsman-symbolizer",
    "leadsman-debuginfo-uploader",
    "leadsman-shipper",
    "leadsman-viewer",
];

/// The directory that holds all of [`NAMES`]: `LEADSMAN_BIN_DIR`, else the profile directory that this test program
/// was built into, else its `release` sibling.
pub fn directory() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("LEADSMAN_BIN_DIR") {
        let directory = PathBuf::from(directory);
        return match missing(&directory) {
            None => Ok(directory),
            Some(name) => bail!("LEADSMAN_BIN_DIR={} holds no {name}", directory.display()),
        };
    }
    let own = profile_directory()?;
    let release = target_directory()?.join("release");
    for directory in [&own, &release] {
        if missing(directory).is_none() {
            return Ok(directory.clone());
        }
    }
    bail!(
        "the product's binaries are neither in {} nor in {}: build them with `cargo build --release --workspace`",
        own.display(),
        release.display()
    )
}

/// The front command's path.
pub fn leadsman() -> Result<PathBuf> {
    Ok(directory()?.join("leadsman"))
}

/// Copies of all binaries where every user may run them: the target directory may lie in somebody's closed home.
pub fn copied_for_everybody() -> Result<TempDir> {
    let copies = public_directory("binaries-")?;
    let from = directory()?;
    for name in NAMES {
        std::fs::copy(from.join(name), copies.path().join(name))
            .with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(copies)
}

/// The target directory that this test program stands in.
pub fn target_directory() -> Result<PathBuf> {
    let profile = profile_directory()?;
    Ok(profile
        .parent()
        .context("the test program stands outside a target directory")?
        .to_path_buf())
}

fn profile_directory() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot read the test program's own path")?;
    let directory = own.parent().context("the test program has no directory")?;
    let directory = if directory.ends_with("deps") {
        directory.parent().unwrap_or(directory)
    } else {
        directory
    };
    Ok(directory.to_path_buf())
}

fn missing(directory: &Path) -> Option<&'static str> {
    NAMES
        .into_iter()
        .find(|name| !directory.join(name).is_file())
}
