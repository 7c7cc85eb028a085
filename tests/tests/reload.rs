//! A changed configuration file takes effect while Leadsman samples a busy machine, and no sample is lost by it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::Machine;
use leadsman_tests::process::{signal, until};
use leadsman_tests::profile::Profile;
use leadsman_tests::up::Up;
use leadsman_tests::workloads::Workload;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(20);
const RELOADED: &str = "leadsman_config_last_reload_successful";

fn stored(store: &Path) -> Result<Vec<Profile>> {
    let mut files: Vec<PathBuf> = fs::read_dir(store)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.to_string_lossy().ends_with(".pb.gz"));
    files.sort();
    files.iter().map(|file| Profile::read(file)).collect()
}

/// Replaces the file as editors and Kubernetes do.
fn replace(file: &Path, text: &str) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, file)?;
    Ok(())
}

fn samples_with(profile: &Profile, name: &str, value: &str) -> i64 {
    profile.count(|stack| stack.labels.get(name).is_some_and(|of| of == value))
}

#[test]
fn rate_and_rules_change_without_losing_a_sample() -> Result<()> {
    let _machine = Machine::lock()?;
    let _workload = Workload::start("chains-O2", &["600", "plain"])?;
    // Only root looks into it.
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("leadsman.yaml");
    replace(&file, "profiling-cpu-sampling-frequency: 19\n")?;
    let path = file.to_str().context("the path is UTF-8")?;
    let up = Up::start(1, &["--config-path", path])?;
    let slow = 1_000_000_000 / 19;
    until("a window at 19 Hz", PATIENCE, || {
        let stored = stored(&up.store())?;
        Ok(stored
            .iter()
            .any(|profile| profile.period == slow)
            .then_some(()))
    })?;
    replace(
        &file,
        "profiling-cpu-sampling-frequency: 97\nrelabel_configs:\n- {target_label: zone, replacement: blue}\n",
    )?;
    let fast = 1_000_000_000 / 97;
    until("a window at 97 Hz, relabelled", PATIENCE, || {
        let stored = stored(&up.store())?;
        let found = stored
            .iter()
            .any(|profile| profile.period == fast && samples_with(profile, "zone", "blue") > 0);
        Ok(found.then_some(()))
    })?;
    // A window has one rate: its samples fit into its time on all CPUs.
    let cpus = std::thread::available_parallelism()?.get() as i64;
    for profile in stored(&up.store())? {
        ensure!(
            [slow, fast].contains(&profile.period),
            "a period of {} ns",
            profile.period
        );
        let most = (profile.duration_nanos / profile.period + 2) * cpus;
        let samples = profile.count(|_stack| true);
        ensure!(samples <= most, "{samples} samples, at most {most} fit");
    }
    let metrics = up.metrics()?;
    let ring = [("process", "sampler"), ("edge", "ring")];
    let of = |what: &str| format!("leadsman_edge_{what}");
    let produced = metrics.must(&of("produced_samples_total"), &ring)?;
    let delivered = metrics.must(&of("delivered_samples_total"), &ring)?;
    let queued = metrics.sum(&of("queued_samples"), &ring).unwrap_or(0.0);
    ensure!(
        produced == delivered + queued,
        "{produced} produced, {delivered} delivered, {queued} on their way"
    );

    replace(&file, "profiling-cpu-sampling-frequency: many\n")?;
    until("a bad file is told of", PATIENCE, || {
        Ok((up.metrics()?.must(RELOADED, &[])? == 0.0).then_some(()))
    })?;
    replace(
        &file,
        "log-level: debug\nrelabel_configs: [{regex: chains-O2, source_labels: [comm], action: drop}]\n",
    )?;
    signal(up.id(), Signal::HUP)?;
    until("a sound file is taken again", PATIENCE, || {
        Ok((up.metrics()?.must(RELOADED, &[])? == 1.0).then_some(()))
    })?;
    until("what is relabelled away is counted", PATIENCE, || {
        let dropped = up.metrics()?.sum(
            "leadsman_edge_dropped_samples_total",
            &[("process", "shipper"), ("cause", "relabelling")],
        );
        Ok((dropped.unwrap_or(0.0) > 0.0).then_some(()))
    })?;
    let (output, _store) = up.stop(Signal::TERM)?;
    ensure!(output.code() == Some(0), "ended with {}", output.status);
    Ok(())
}
