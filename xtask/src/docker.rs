//! Docker with compose and capabilities newer than Debian 12's: the packages of the next release, unpacked into the cache and
//! started by hand, so that nothing of the machine changes.

use std::fs;

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::tool;

/// From the next release.
const PACKAGES: [&str; 5] = [
    "docker.io",
    "docker-cli",
    "containerd",
    "docker-compose",
    "docker-buildx",
];
/// Of this release: the next one's needs a newer C library.
const OWN: &str = "runc";
const NEXT_RELEASE: &str = "trixie";

/// Unpacks it unless it is there.
pub(crate) fn run() -> Result<()> {
    let directory = tool::cache_directory()?;
    let place = directory.join("docker");
    if place.is_dir() {
        println!("{} is there", place.display());
        return Ok(());
    }
    let work = directory.join("docker.new");
    if work.exists() {
        // What an interrupted run left.
        fs::remove_dir_all(&work)?;
    }
    let packages = work.join("packages");
    fs::create_dir_all(&packages)?;
    fs::create_dir_all(work.join("tree"))?;
    let apt = Apt::of(NEXT_RELEASE, &work)?;
    tool::run(apt.command("apt-get").args(["update", "-q"]))?;
    tool::run(
        apt.command("apt-get")
            .args(["download", "-q"])
            .args(PACKAGES)
            .current_dir(&packages),
    )?;
    tool::run(
        tool::command("apt-get")
            .args(["-q", "download", OWN])
            .current_dir(&packages),
    )?;
    for entry in fs::read_dir(&packages)? {
        tool::run(
            tool::command("dpkg")
                .arg("-x")
                .arg(entry?.path())
                .arg(work.join("tree")),
        )?;
    }
    fs::rename(work.join("tree"), &place).context("cannot keep the unpacked packages")?;
    fs::remove_dir_all(&work)?;
    Ok(())
}
