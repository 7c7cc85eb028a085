//! `leadsman up`: the local store's files are whole, dated and retained; the end of everything is clean.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::Machine;
use leadsman_tests::credentials::descendants;
use leadsman_tests::process::until;
use leadsman_tests::profile::Profile;
use leadsman_tests::up::Up;
use leadsman_tests::workloads::Workload;
use rustix::process::Signal;

fn profiles(store: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(store)
        .with_context(|| format!("cannot list {}", store.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.to_string_lossy().ends_with(".pb.gz"));
    // Dated names sort by time.
    files.sort();
    Ok(files)
}

fn loaded_programs() -> Result<usize> {
    // Every BPF program that a process holds shows in its fdinfo; ours are held by our processes alone.
    let mut found = 0;
    for process in std::fs::read_dir("/proc")?.flatten() {
        for descriptor in std::fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let is_program = std::fs::read_link(descriptor.path())
                .is_ok_and(|target| target.to_string_lossy() == "anon_inode:bpf-prog");
            found += usize::from(is_program);
        }
    }
    Ok(found)
}

#[test]
fn windows_become_whole_files_and_the_end_is_clean() -> Result<()> {
    let _machine = Machine::lock()?;
    let _workload = Workload::start("chains-O2", &["600", "plain"])?;
    let programs_before = loaded_programs()?;
    let up = Up::start(1, &[])?;
    let runtime = up.runtime_directory();
    let started = descendants(up.id())?;
    until("four windows are stored", Duration::from_secs(20), || {
        Ok((profiles(&up.store())?.len() >= 4).then_some(()))
    })?;
    let before = profiles(&up.store())?.len();
    let (output, directory) = up.stop(Signal::TERM)?;
    ensure!(
        output.code() == Some(0),
        "ended with {}: {}",
        output.status,
        output.stderr
    );
    let store = directory.path().join("store");
    let files = profiles(&store)?;
    ensure!(
        files.len() > before || files.len() >= 5,
        "the last window was not written"
    );
    let all: BTreeSet<_> = std::fs::read_dir(&store)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let strange: Vec<_> = all
        .iter()
        .filter(|path| path.is_file() && !files.contains(path))
        .collect();
    ensure!(strange.is_empty(), "left in the store: {strange:?}");
    let mut last_end = 0;
    for file in &files {
        let profile = Profile::read(file)?;
        ensure!(
            profile.time_nanos >= last_end - 50_000_000,
            "{} overlaps the one before",
            file.display()
        );
        last_end = profile.time_nanos + profile.duration_nanos;
        ensure!(
            std::fs::metadata(file)?.mode() & 0o022 == 0,
            "{} is writable for others",
            file.display()
        );
    }
    let seen = files.iter().filter(|file| {
        Profile::read(file)
            .is_ok_and(|profile| profile.count(|stack| stack.thread_name == "w-plain") > 0)
    });
    ensure!(
        seen.count() + 1 >= files.len(),
        "windows without the thread that computes all the time"
    );
    for pid in started {
        ensure!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "process {pid} is still there"
        );
    }
    ensure!(!runtime.exists(), "the runtime directory is still there");
    // The kernel frees a program some time after its last user.
    until("its BPF programs are gone", Duration::from_secs(5), || {
        Ok((loaded_programs()? <= programs_before).then_some(()))
    })?;
    Ok(())
}

#[test]
fn an_interrupt_ends_everything_too() -> Result<()> {
    let _machine = Machine::lock()?;
    let up = Up::start(10, &[])?;
    let started = descendants(up.id())?;
    let (output, directory) = up.stop(Signal::INT)?;
    ensure!(
        output.code() == Some(0),
        "ended with {}: {}",
        output.status,
        output.stderr
    );
    ensure!(
        !profiles(&directory.path().join("store"))?.is_empty(),
        "the only window, cut short, was not written"
    );
    for pid in started {
        ensure!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "process {pid} is still there"
        );
    }
    Ok(())
}

#[test]
fn the_oldest_go_first_when_the_store_is_full() -> Result<()> {
    let _machine = Machine::lock()?;
    let _workload = Workload::start("chains-O2", &["600"])?;
    const BYTES: u64 = 100_000;
    let up = Up::start(1, &["--local-store-max-bytes", &BYTES.to_string()])?;
    let first = until("a first profile", Duration::from_secs(10), || {
        Ok(profiles(&up.store())?.first().cloned())
    })?;
    until("the first profile is gone", Duration::from_secs(60), || {
        Ok((!first.exists()).then_some(()))
    })?;
    let files = profiles(&up.store())?;
    let bytes: u64 = files
        .iter()
        .filter_map(|file| std::fs::metadata(file).ok())
        .map(|data| data.len())
        .sum();
    ensure!(!files.is_empty(), "the newest is kept");
    ensure!(
        bytes <= BYTES || files.len() == 1,
        "{bytes} bytes in {} files",
        files.len()
    );
    drop(up);
    let up = Up::start(1, &["--local-store-max-age", "6s"])?;
    let first = until("a first profile", Duration::from_secs(10), || {
        Ok(profiles(&up.store())?.first().cloned())
    })?;
    until("it is gone by its age", Duration::from_secs(20), || {
        Ok((!first.exists()).then_some(()))
    })?;
    until("younger ones are kept", Duration::from_secs(10), || {
        Ok((!profiles(&up.store())?.is_empty()).then_some(()))
    })?;
    Ok(())
}
