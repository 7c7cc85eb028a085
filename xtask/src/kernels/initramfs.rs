//! What runs inside: an initramfs of busybox, Leadsman's binaries, the test programs with their workloads, and the libraries
//! of all of them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::tool;

/// Leadsman's own binaries: all that the release directory has of them.
const PREFIX: &str = "leadsman";
/// Statically linked: nothing of the machine's is needed to start it.
const BUSYBOX: &str = "/usr/bin/busybox";
/// Where things lie inside.
const BINARIES: &str = "opt/leadsman";
const WORKLOADS: &str = "opt/workloads";
const TEST_PROGRAMS: &str = "opt/tests";

/// Builds the archive of Leadsman's `binaries` and of `tests`, which are test programs with the tests
/// to run of each.
pub(super) fn pack(binaries: &Path, tests: &[(&str, &[&str])]) -> Result<PathBuf> {
    let directory = tool::target_directory().join("kernels");
    let root = directory.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for part in [
        "bin",
        "dev",
        "etc",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/bin",
        BINARIES,
        WORKLOADS,
        TEST_PROGRAMS,
    ] {
        fs::create_dir_all(root.join(part))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    let mut copied = Vec::new();
    let mut add = |from: &Path, into: &str| -> Result<()> {
        let name = from.file_name().context("a file has a name")?;
        let to = root.join(into).join(name);
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        copied.push(to);
        Ok(())
    };
    add(Path::new(BUSYBOX), "bin").context("is busybox-static installed?")?;
    for binary in own_binaries(binaries)? {
        // They are sampled too, and an emulator takes long to read where their lines are.
        let stripped = directory.join(binary.file_name().context("a binary has a name")?);
        tool::run(
            Command::new("strip")
                .args(["--strip-debug", "-o"])
                .arg(&stripped)
                .arg(&binary),
        )?;
        add(&stripped, BINARIES)?;
    }
    let mut builder = Command::new(tool::target_directory().join("release/workloads"));
    let workloads = tool::output(&mut builder)?;
    for entry in fs::read_dir(workloads.trim())? {
        add(&entry?.path(), WORKLOADS)?;
    }
    for (program, _) in tests {
        let built = super::test_program(program)?;
        let renamed = directory.join(program);
        fs::copy(built, &renamed)?;
        add(&renamed, TEST_PROGRAMS)?;
    }
    for library in libraries(&copied)? {
        let inside = root.join(library.strip_prefix("/")?);
        if let Some(parent) = inside.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&library, inside).with_context(|| format!("no {}", library.display()))?;
    }
    let init = root.join("init");
    fs::write(&init, script(tests))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    archive(&root, &directory.join("initramfs"))
}

fn own_binaries(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut binaries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() && path.extension().is_none() && name.starts_with(PREFIX) {
            binaries.push(path);
        }
    }
    ensure!(
        binaries.len() >= 7,
        "{} holds only {} of Leadsman's binaries",
        directory.display(),
        binaries.len()
    );
    Ok(binaries)
}

/// Every library that `programs` are linked with, by ldd.
fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for program in programs {
        // Scripts and static programs have none: ldd says so by its status.
        let Ok(output) = Command::new("ldd").arg(program).output() else {
            bail!("cannot run ldd");
        };
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            // Those with an $ORIGIN lie in the tree already.
            if word.starts_with('/')
                && !word.contains("/kernels/root/")
                && Path::new(word).is_file()
            {
                found.insert(PathBuf::from(word));
            }
        }
    }
    Ok(found)
}

/// Mounts what is needed, says what the kernel lacks, runs the tests, and turns the machine off.
fn script(tests: &[(&str, &[&str])]) -> String {
    let mut script = format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t tmpfs shm /root
export PATH=/bin HOME=/root LEADSMAN_BIN_DIR=/{BINARIES} LEADSMAN_WORKLOADS=/{WORKLOADS}
cd /tmp
echo \"Linux $(uname -r), $(nproc) CPUs\"
failed=0
/{BINARIES}/leadsman doctor || failed=1
"
    );
    for (program, names) in tests {
        let names = names.join(" ");
        // Many recordings at once would measure each other.
        script += &format!(
            "/{TEST_PROGRAMS}/{program} --test-threads 1 --nocapture --exact {names} || failed=1\n"
        );
    }
    script
        + &format!(
            "echo \"{} $failed\"\npoweroff -f\n",
            super::machine::VERDICT
        )
}

/// cpio's newc format, as the kernel wants it.
fn archive(root: &Path, file: &Path) -> Result<PathBuf> {
    let list = Command::new("find")
        .arg(".")
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run find")?;
    let listed = list.stdout.context("find has an output")?;
    let output = File::create(file)?;
    tool::run(
        Command::new(BUSYBOX)
            .args(["cpio", "-o", "-H", "newc", "-R", "0:0"])
            .current_dir(root)
            .stdin(listed)
            .stdout(output)
            .stderr(Stdio::null()),
    )?;
    Ok(file.to_path_buf())
}
