//! Debian's kernels: which there are, and their images, fetched once and kept in the cache directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::tool::{self, cache_directory};

/// One kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Major and minor release.
    pub(crate) version: &'static str,
    /// The suite that has it.
    suite: &'static str,
}

/// Those that are known to this task.
pub(crate) const KERNELS: [Kernel; 3] = [
    Kernel {
        version: "5.10",
        suite: "bullseye",
    },
    Kernel {
        version: "6.1",
        suite: "bookworm",
    },
    Kernel {
        version: "6.12",
        suite: "bookworm-backports",
    },
];

/// Depends on the suite's newest kernel.
const METAPACKAGE: &str = "linux-image-amd64";

impl Kernel {
    /// Its image; fetched when it is not in the cache yet.
    pub(crate) fn fetch(&self) -> Result<PathBuf> {
        let directory = cache_directory()?.join("kernels").join(self.version);
        if let Some(image) = image_in(&directory) {
            return Ok(image);
        }
        let unfinished = directory.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(&unfinished)
            .with_context(|| format!("cannot create {}", unfinished.display()))?;
        let apt = Apt::of(self.suite, &unfinished)?;
        tool::run(apt.command("apt-get").args(["update", "-q"]))?;
        let depends = tool::output(apt.command("apt-cache").args(["depends", METAPACKAGE]))?;
        let package = depends
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|package| package.starts_with("linux-image-"))
            .with_context(|| format!("{METAPACKAGE} of {} depends on no image", self.suite))?;
        println!("fetching {package} (once)");
        tool::run(
            apt.command("apt-get")
                .args(["download", "-q", package])
                .current_dir(&unfinished),
        )?;
        unpack(&unfinished)?;
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::rename(&unfinished, &directory)?;
        image_in(&directory).with_context(|| format!("{package} has no boot/vmlinuz"))
    }
}

fn image_in(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| name_starts(path, "vmlinuz-"))
}

fn name_starts(path: &Path, prefix: &str) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// Keeps the image of the downloaded package, nothing else.
fn unpack(directory: &Path) -> Result<()> {
    let package = fs::read_dir(directory)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    let tree = directory.join("tree");
    tool::run(tool::command("dpkg-deb").arg("-x").arg(&package).arg(&tree))?;
    let image = image_in(&tree.join("boot")).context("the package has no boot/vmlinuz-*")?;
    let name = image.file_name().context("an image has a name")?;
    fs::rename(&image, directory.join(name))?;
    fs::remove_dir_all(tree)?;
    fs::remove_dir_all(directory.join("apt"))?;
    fs::remove_file(package)?;
    Ok(())
}
