//! `cargo xtask install`: binaries, units, users and directories onto this machine, or into a tree below `--root`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tool::{self, root, target_directory};
use crate::up;

/// The binaries, side by side.
const BINARIES: [&str; 7] = [
    "leadsman",
    "leadsman-sampler",
    "leadsman-opener",
    "leadsman-symbolizer",
    "leadsman-debuginfo-uploader",
    "leadsman-shipper",
    "leadsman-viewer",
];
const LIBRARY: &str = "usr/lib/leadsman";
const UNITS: &str = "usr/lib/systemd/system";
const CONFIG: &str = "etc/leadsman/leadsman.yaml";
const USAGE: &str = "usage: cargo xtask install [--root DIR] [--no-build]";

/// What was asked for.
#[derive(Debug, Default)]
struct Options {
    /// The tree to install into; the machine itself when absent.
    root: Option<PathBuf>,
    no_build: bool,
}

/// Builds and installs.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    let options = parse(arguments)?;
    let live = options.root.is_none();
    if live && !rustix::process::geteuid().is_root() {
        bail!("installing needs root: run it by sudo, or into a tree by --root DIR");
    }
    if !options.no_build {
        up::build()?;
    }
    let to = options.root.unwrap_or_else(|| PathBuf::from("/"));
    for name in BINARIES {
        let from = target_directory().join("release").join(name);
        copy(&from, &to.join(LIBRARY).join(name), 0o755)?;
    }
    link(&to.join("usr/bin/leadsman"), "../lib/leadsman/leadsman")?;
    units(&to)?;
    // What somebody changed stays.
    if !to.join(CONFIG).exists() {
        copy(
            &root().join("systemd/leadsman.yaml"),
            &to.join(CONFIG),
            0o644,
        )?;
    }
    copy(
        &root().join("README.md"),
        &to.join("usr/share/doc/leadsman/README.md"),
        0o644,
    )?;
    if live {
        drop_ins(&to)?;
        tool::run(&mut tool::command("systemd-sysusers"))?;
        tool::run(tool::command("systemd-tmpfiles").args(["--create", "leadsman.conf"]))?;
        tool::run(tool::command("systemctl").arg("daemon-reload"))?;
        println!("installed; start it by: systemctl enable --now leadsman.target");
    } else {
        println!("installed into {}", to.display());
    }
    Ok(())
}

fn parse(arguments: &[OsString]) -> Result<Options> {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--root") => options.root = Some(arguments.next().context(USAGE)?.into()),
            Some("--no-build") => options.no_build = true,
            _ => bail!("{USAGE}"),
        }
    }
    Ok(options)
}

fn units(to: &Path) -> Result<()> {
    for entry in fs::read_dir(root().join("systemd"))? {
        let from = entry?.path();
        let name = from
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let place = match from.extension().and_then(|end| end.to_str()) {
            Some("service" | "socket" | "target") => to.join(UNITS).join(name),
            Some("sysusers") => to.join("usr/lib/sysusers.d/leadsman.conf"),
            Some("tmpfiles") => to.join("usr/lib/tmpfiles.d/leadsman.conf"),
            _ => continue,
        };
        copy(&from, &place, 0o644)?;
    }
    Ok(())
}

/// Where this machine's kernel asks for more capabilities than usual, the units that need them get them.
fn drop_ins(to: &Path) -> Result<()> {
    let paranoid: i32 = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(2);
    let kernel = kernel();
    let needing = [
        ("leadsman-sampler", paranoid >= 3 || kernel < (5, 8)),
        ("leadsman-opener", kernel < (5, 9)),
    ];
    for (unit, needed) in needing {
        let place = to
            .join("etc/systemd/system")
            .join(format!("{unit}.service.d/capabilities.conf"));
        if needed {
            let from = root().join(format!("systemd/drop-in/{unit}.conf"));
            copy(&from, &place, 0o644)?;
            println!(
                "{}: this kernel asks for more capabilities",
                place.display()
            );
        }
    }
    Ok(())
}

fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|text| text.parse().unwrap_or(u32::MAX));
    (
        numbers.next().unwrap_or(u32::MAX),
        numbers.next().unwrap_or(0),
    )
}

/// Replaces a file whole: a running program keeps its own.
fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let failed = || format!("cannot install {} as {}", from.display(), to.display());
    let directory = to.parent().context("no directory")?;
    fs::create_dir_all(directory).with_context(failed)?;
    let temporary = to.with_extension("new");
    fs::copy(from, &temporary).with_context(failed)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(mode)).with_context(failed)?;
    fs::rename(&temporary, to).with_context(failed)
}

fn link(path: &Path, target: &str) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    symlink(target, path).with_context(|| format!("cannot link {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_taken_and_nonsense_is_not() {
        let options = parse(&["--root".into(), "/x".into(), "--no-build".into()]).expect("valid");
        assert_eq!(options.root, Some(PathBuf::from("/x")));
        assert!(options.no_build);
        assert!(parse(&["--root".into()]).is_err());
        assert!(parse(&["--prefix".into()]).is_err());
    }
}
