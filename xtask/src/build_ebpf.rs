//! Builds the BPF object reproducibly: `ebpf/leadsman-bpf.o`, with the compilers' versions beside it.
//!
//! Debian's rustc-web brings a core library for bpfel-unknown-none; the stable Rust of everything else has none.
//! The object keeps its BTF and loses its DWARF.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tool::{self, cargo_home, root};
use crate::{cargo_tools, packages};

/// The compiler that has a core library for BPF, and its packages.
const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
/// Strips the object: its version decides about bytes too.
const OBJCOPY: &str = "/usr/bin/llvm-objcopy";
/// What the build needs of Debian, and what for.
pub(crate) const PACKAGES: [(&str, &str); 4] = [
    ("rustc-web", "compiles the BPF programs"),
    ("cargo-web", "builds the BPF programs"),
    ("libstd-rust-web-dev-bpf", "core library for BPF"),
    ("llvm", "llvm-objcopy strips the BPF object"),
];
/// Where the packages' libLLVM is, without which bpf-linker aborts.
const LLVM_LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

const OBJECT: &str = "ebpf/leadsman-bpf.o";
const TOOLCHAIN: &str = "ebpf/leadsman-bpf.toolchain";

/// Builds; with `check` compares instead of writing.
fn build_or_check(check: bool) -> Result<()> {
    packages::install(&PACKAGES)?;
    let linker = linker()?;
    let built = build(&linker)?;
    let object =
        std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let toolchain = toolchain()?;
    if check {
        return compare(&object, &toolchain);
    }
    std::fs::write(root().join(OBJECT), &object)?;
    std::fs::write(root().join(TOOLCHAIN), &toolchain)?;
    println!("{OBJECT}: {} bytes", object.len());
    Ok(())
}

/// `build-ebpf [--check]`.
pub(crate) fn run(arguments: &[OsString]) -> Result<()> {
    match arguments {
        [] => build_or_check(false),
        [check] if check == "--check" => build_or_check(true),
        _ => bail!("usage: cargo xtask build-ebpf [--check]"),
    }
}

fn compare(object: &[u8], toolchain: &str) -> Result<()> {
    let committed = std::fs::read(root().join(OBJECT)).with_context(|| format!("no {OBJECT}"))?;
    if committed == object {
        println!(
            "{OBJECT} is what its source and {} give",
            toolchain.trim().replace('\n', ", ")
        );
        return Ok(());
    }
    let committed_by = std::fs::read_to_string(root().join(TOOLCHAIN)).unwrap_or_default();
    if committed_by == toolchain {
        bail!("{OBJECT} differs from its source: run `cargo xtask build-ebpf` and commit it");
    }
    bail!(
        "{OBJECT} was built by other compilers, so its bytes say nothing about its source: it by {}; here are {}. Run `cargo xtask build-ebpf` and commit both files",
        committed_by.trim().replace('\n', ", "),
        toolchain.trim().replace('\n', ", "),
    )
}

fn toolchain() -> Result<String> {
    let rustc = tool::output(tool::command(RUSTC).arg("--version"))?;
    let objcopy = tool::output(tool::command(OBJCOPY).arg("--version"))?;
    let objcopy = objcopy
        .lines()
        .find(|line| line.contains("version"))
        .context("llvm-objcopy does not say its version")?;
    Ok(format!(
        "{}\n{}\nllvm-objcopy: {}\n",
        rustc.trim(),
        cargo_tools::BPF_LINKER.title(),
        objcopy.trim()
    ))
}

/// bpf-linker behind a script that shows it its libraries.
fn linker() -> Result<PathBuf> {
    let program = cargo_tools::BPF_LINKER.program()?;
    let wrapper = tool::target_directory().join("bpf/bpf-link");
    std::fs::create_dir_all(tool::target_directory().join("bpf"))?;
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={LLVM_LIBRARIES} exec '{}' \"$@\"\n",
        program.display()
    );
    // Written again only when it differs: another build may be executing it.
    if std::fs::read_to_string(&wrapper).ok().as_deref() != Some(&script) {
        std::fs::write(&wrapper, script)?;
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(wrapper)
}

/// The stripped object, in the target directory.
fn build(linker: &Path) -> Result<PathBuf> {
    let target = tool::target_directory().join("bpf");
    let flags = [
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        format!("-Clinker={}", linker.display()),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Without these the object holds the paths of whoever built it.
        format!("--remap-path-prefix={}=/src", root().display()),
        format!(
            "--remap-path-prefix={}/registry/src=/cargo",
            cargo_home()?.display()
        ),
    ];
    tool::run(
        tool::command(CARGO)
            .args(["build", "--quiet", "--locked", "--profile", "bpf"])
            .args(["--target", "bpfel-unknown-none"])
            .args(["--package", "leadsman-ebpf", "--bin", "leadsman-bpf"])
            .args(["--features", "programs"])
            .arg("--target-dir")
            .arg(&target)
            .env("RUSTC", RUSTC)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env_remove("CARGO")
            .env_remove("RUSTUP_TOOLCHAIN"),
    )?;
    let directory = target.join("bpfel-unknown-none/bpf");
    let stripped = directory.join("leadsman-bpf.stripped");
    strip(&directory.join("leadsman-bpf"), &stripped)?;
    Ok(stripped)
}

/// Removes DWARF; BTF stays, the loader needs it.
fn strip(from: &Path, to: &Path) -> Result<()> {
    tool::run(
        tool::command(OBJCOPY)
            .arg("--strip-debug")
            .arg(from)
            .arg(to),
    )
    .context("cannot strip the BPF object")?;
    let object = std::fs::read(to)?;
    for section in [".BTF\0", ".BTF.ext\0"] {
        let bytes = section.as_bytes();
        if !object.windows(bytes.len()).any(|window| window == bytes) {
            bail!(
                "the stripped BPF object has no section {}",
                section.trim_end_matches('\0')
            );
        }
    }
    Ok(())
}
