//! Docker with compose and capabilities newer than Debian 12's: the packages of the next release, unpacked into the cache and
//! started by hand, so that nothing of the machine changes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

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
const SOURCE: &str = "deb http://deb.debian.org/debian trixie main\n";

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
    for name in [
        "lists/partial",
        "cache/archives/partial",
        "packages",
        "tree",
    ] {
        fs::create_dir_all(work.join(name))?;
    }
    fs::write(work.join("sources.list"), SOURCE)?;
    fs::write(work.join("status"), "")?;
    apt_get(&work, &["update", "-q"])?;
    let download = ["download", "-q"].iter().chain(&PACKAGES).copied();
    apt_get(&work, &download.collect::<Vec<_>>())?;
    tool::run(
        tool::command("apt-get")
            .args(["-q", "download", OWN])
            .current_dir(work.join("packages")),
    )?;
    for entry in fs::read_dir(work.join("packages"))? {
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

/// apt with a state of its own below `work`: the machine's sources and packages stay as they are.
fn apt_get(work: &Path, arguments: &[&str]) -> Result<()> {
    let option = |name: &str, path: &str| format!("{name}={}", work.join(path).display());
    let mut command = tool::command("apt-get");
    for option in [
        option("Dir::Etc::sourcelist", "sources.list"),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        option("Dir::State::lists", "lists"),
        option("Dir::State::status", "status"),
        option("Dir::Cache", "cache"),
        "APT::Architectures::=amd64".to_owned(),
    ] {
        command.args(["-o", &option]);
    }
    tool::run(command.args(arguments).current_dir(work.join("packages")))
}
