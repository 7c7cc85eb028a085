//! A profiled program may be anything: one whose file is broken in every place that a parser reads costs its own frames at
//! most. Everyone else's samples go on, and no process dies of it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::process::run_ok;
use leadsman_tests::record::record_profile;
use leadsman_tests::workloads::{Workload, programs, some_chains, variant};
use leadsman_tests::{Machine, require_command};

/// File offset and size of a section.
fn section(file: &Path, name: &str) -> Result<(usize, usize)> {
    let output = run_ok(
        Command::new(require_command("readelf")?)
            .args(["-S", "--wide"])
            .arg(file),
        Duration::from_secs(20),
    )?;
    let text = output.text();
    let line = text
        .lines()
        .find(|line| line.split_whitespace().any(|word| word == name));
    let line = line.with_context(|| format!("no {name} in {}", file.display()))?;
    let after: Vec<&str> = line
        .split(name)
        .nth(1)
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let number = |at: usize| usize::from_str_radix(after.get(at).copied().unwrap_or(""), 16);
    Ok((number(2)?, number(3)?))
}

fn fill(bytes: &mut [u8], (offset, size): (usize, usize), pattern: &[u8]) -> Result<()> {
    let range = bytes
        .get_mut(offset..offset + size)
        .context("a section outside its file")?;
    for (byte, value) in range.iter_mut().zip(pattern.iter().cycle()) {
        *byte = *value;
    }
    Ok(())
}

/// Copies of chains-static, which needs none of the parts that are broken in order to run.
fn broken_copies(directory: &Path) -> Result<Vec<String>> {
    let original = programs()?.path("chains-static");
    let whole = std::fs::read(&original)?;
    let eh_frame = section(&original, ".eh_frame")?;
    let symbols = section(&original, ".symtab")?;
    let strings = section(&original, ".strtab")?;
    let headers =
        u64::from_le_bytes(whole.get(0x28..0x30).context("a short file")?.try_into()?) as usize;
    let mut names = Vec::new();
    let mut write = |name: &str, bytes: &[u8]| -> Result<()> {
        let path = directory.join(name);
        std::fs::write(&path, bytes)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        names.push(name.to_owned());
        Ok(())
    };
    let broken = |offset: usize, size: usize, pattern: &[u8]| -> Result<Vec<u8>> {
        let mut bytes = whole.clone();
        fill(&mut bytes, (offset, size), pattern)?;
        Ok(bytes)
    };
    write("bad-eh-ff", &broken(eh_frame.0, eh_frame.1, &[0xff])?)?;
    write("bad-eh-zero", &broken(eh_frame.0, eh_frame.1, &[0])?)?;
    write(
        "bad-eh-noise",
        &broken(
            eh_frame.0 + 64,
            eh_frame.1 - 64,
            &[0x14, 0, 0, 0, 0x91, 7, 0x0f, 0xff, 0x7f],
        )?,
    )?;
    write(
        "bad-symbols",
        &broken(symbols.0, symbols.1, &[0xff, 0x80, 0x7f])?,
    )?;
    write(
        "bad-strings",
        &broken(strings.0, strings.1, b"\xf0\x9f\x92")?,
    )?;
    write(
        "bad-shoff",
        &broken(0x28, 8, &[0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])?,
    )?;
    write("bad-shnum", &broken(0x3c, 2, &[0xff, 0xff])?)?;
    write(
        "bad-sections",
        &broken(headers, whole.len() - headers, &[0xfe, 0xff, 0x01])?,
    )?;
    write(
        "cut-short",
        whole.get(..symbols.0).context("no symbol table")?,
    )?;
    Ok(names)
}

struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Gone already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn broken_files_cost_only_their_own_frames() -> Result<()> {
    let _machine = Machine::lock()?;
    let directory = tempfile::tempdir()?;
    let mut running = Running(Vec::new());
    let names = broken_copies(directory.path())?;
    for name in &names {
        let child = Command::new(directory.path().join(name))
            .args(["60", "plain"])
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        running.0.push(child);
    }
    let good = Workload::start("chains-O2", &["600", "plain", "realign"])?;
    let recording = record_profile(&["-d", "4s", "-F", "499"])?;
    for chain in some_chains(variant("chains-O2")?, &["w-plain", "w-realign"]) {
        let judgement = recording.profile.judge(&chain, |stack| {
            stack.pid == i64::from(good.id()) && stack.thread_name == chain.thread
        });
        ensure!(
            judgement.all > 50 && judgement.share() >= 0.97,
            "{}: {} samples, {:.1} % right{}",
            chain.thread,
            judgement.all,
            100.0 * judgement.share(),
            judgement.shown()
        );
    }
    for (name, child) in names.iter().zip(&running.0) {
        let samples = recording
            .profile
            .count(|stack| stack.pid == i64::from(child.id()));
        println!("{name:14} {samples} samples");
        ensure!(
            samples > 20,
            "{name}: its samples are lost, {samples} of them are left"
        );
    }
    ensure!(
        !recording.output.stderr.contains("panicked"),
        "{}",
        recording.output.stderr
    );
    Ok(())
}
