//! The Debian tree that tests boot and make images of: made once, kept in the cache.

use anyhow::Result;

use crate::{packages, tool, up};

/// What makes the tree, and the service manager of its first process.
const INCLUDE: &str = "--include=systemd,systemd-sysv,dbus,libcap2-bin,passwd,python3-minimal";
const SUITE: &str = "bookworm";

/// Makes the tree unless it is there.
pub(crate) fn run() -> Result<()> {
    let directory = tool::cache_directory()?;
    let tree = directory.join("debian-root");
    if tree.is_dir() {
        println!("{} is there", tree.display());
        return Ok(());
    }
    packages::install(&[("debootstrap", "makes the Debian tree that tests boot")])?;
    std::fs::create_dir_all(&directory)?;
    let new = directory.join("debian-root.new");
    if new.exists() {
        // What an interrupted run left.
        std::fs::remove_dir_all(&new)?;
    }
    tool::run(
        up::as_root("debootstrap")?
            .args(["--variant=minbase", INCLUDE, SUITE])
            .arg(&new)
            .stdout(std::process::Stdio::null()),
    )?;
    std::fs::rename(new, tree)?;
    Ok(())
}
