//! `cargo xtask kernels`: boots Debian's kernels in an emulator and runs the tests of known stacks inside, with the binaries
//! that were built here, or those in LEADSMAN_BIN_DIR.

mod image;
mod initramfs;
mod machine;

use std::ffi::OsString;

use anyhow::{Context, Result, bail};

use crate::{packages, tool, up};
use image::Kernel;

/// What the task needs of Debian beside what the tests need.
const PACKAGES: [(&str, &str); 2] = [
    ("qemu-system-x86", "runs other kernels"),
    ("busybox-static", "the other kernels' init and shell"),
];

/// The kernel that has all guarantees and is the oldest of these: what runs when none is named.
const DEFAULT: &str = "6.1";

/// The tests that run inside: test program, and names of its tests.
const TESTS: [(&str, &[&str]); 1] = [("kernel", &["threads_show_their_chains"])];

/// `kernels [VERSION...]`.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    let mut kernels = Vec::new();
    for argument in arguments {
        kernels.push(kernel(&argument.to_string_lossy())?);
    }
    if kernels.is_empty() {
        kernels.push(kernel(DEFAULT)?);
    }
    packages::install_for_tests(&PACKAGES)?;
    let binaries = match std::env::var_os("LEADSMAN_BIN_DIR") {
        Some(directory) => directory.into(),
        None => {
            up::build()?;
            tool::target_directory().join("release")
        }
    };
    let guest = initramfs::pack(&binaries, &TESTS)?;
    let mut failed = Vec::new();
    for kernel in kernels {
        let result = kernel
            .fetch()
            .and_then(|image| machine::run(&image, &guest));
        if let Err(error) = result {
            println!("Linux {}: FAILED: {error:#}", kernel.version);
            failed.push(kernel.version);
        }
    }
    if !failed.is_empty() {
        bail!("on Linux {}", failed.join(", "));
    }
    Ok(())
}

fn kernel(version: &str) -> Result<&'static Kernel> {
    let known = image::KERNELS
        .iter()
        .find(|kernel| kernel.version == version);
    known.with_context(|| {
        let versions = image::KERNELS.map(|kernel| kernel.version).join(" ");
        format!("there is no kernel {version:?} here; known: {versions}")
    })
}

/// The test program `name`, built; its path.
fn test_program(name: &str) -> Result<std::path::PathBuf> {
    let messages = tool::output(
        tool::cargo()
            // As `cargo xtask test` builds them, so that nothing is built twice.
            .args(["test", "--quiet", "--release", "--workspace"])
            .args(["--test", name, "--no-run", "--message-format", "json"]),
    )?;
    let path = messages
        .lines()
        .filter(|line| line.contains(&format!("\"name\":\"{name}\"")))
        .find_map(|line| {
            let (_, rest) = line.split_once("\"executable\":\"")?;
            Some(rest.split_once('"')?.0)
        });
    Ok(path
        .with_context(|| format!("cargo does not say where it put the test program {name}"))?
        .into())
}
