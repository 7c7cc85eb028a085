//! Three outages of a Parca server, with the shipper and the uploader killed meanwhile: no sample is lost, and none comes
//! twice but those whose answer was lost on its way. Every gRPC status and broken answers: what is final is dropped and
//! counted, all else arrives.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::Machine;
use leadsman_tests::parca::{Fault, Options, StandIn};
use leadsman_tests::process::{signal, until};
use leadsman_tests::profile::Profile;
use leadsman_tests::relay::{Mode, Relay};
use leadsman_tests::up::Up;
use leadsman_tests::workloads::Workload;
use rustix::process::Signal;
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(60);
const EDGE: [(&str, &str); 2] = [("process", "shipper"), ("edge", "remote-store")];

fn pause(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

fn kill(up: &Up, role: &str) -> Result<()> {
    signal(up.process(role)?, Signal::KILL).with_context(|| format!("cannot kill the {role}"))
}

/// Samples of the local store's windows that started before `end`.
fn local_samples(store: &Path, end: i64) -> Result<i64> {
    let mut samples = 0;
    for entry in std::fs::read_dir(store)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".pb.gz") {
            let profile = Profile::read(&path)?;
            if profile.time_nanos < end {
                samples += profile.count(|_| true);
            }
        }
    }
    Ok(samples)
}

/// Samples on the server of windows before `end`.
fn remote_samples(server: &StandIn, end: i64) -> i64 {
    let store = server.store();
    let profiles = store.profiles().iter();
    profiles
        .filter(|profile| profile.time_nanos < end)
        .map(leadsman_tests::parca::ingest::StoredProfile::total)
        .sum()
}

/// Waits until the server has windows from after now and nothing waits on disk; returns their first instant.
fn caught_up(server: &StandIn, up: &Up) -> Result<i64> {
    let now = leadsman_tests::parca::client::now_nanos();
    until(
        "the spool is empty and fresh windows arrive",
        PATIENCE,
        || {
            let newest = {
                let store = server.store();
                store
                    .profiles()
                    .iter()
                    .map(|profile| profile.time_nanos)
                    .max()
            };
            // The viewer or the shipper may be on its way back.
            let spooled = up
                .metrics()
                .ok()
                .and_then(|metrics| metrics.sum("leadsman_spool_samples", &[]));
            Ok((newest > Some(now) && spooled == Some(0.0)).then_some(now))
        },
    )
}

#[test]
fn three_outages_and_two_kills_cost_no_sample() -> Result<()> {
    let _machine = Machine::lock()?;
    let mut server = StandIn::start(Options::default())?;
    let relay = Relay::start(&server.address.to_string())?;
    let _workload = Workload::start("chains-O2", &["200"])?;
    let up = Up::start_with_remote_store(
        1,
        &relay.address.to_string(),
        &[
            "--remote-store-insecure",
            "--remote-store-rpc-unary-timeout",
            "3s",
            "--profiling-cpu-sampling-frequency",
            "97",
        ],
    )?;
    caught_up(&server, &up)?;
    // The port is closed, as of a server that is not there.
    relay.set(Mode::Closed);
    pause(2);
    kill(&up, "shipper")?;
    pause(4);
    relay.set(Mode::Pass);
    caught_up(&server, &up)?;
    // Connections are taken and nobody answers.
    relay.set(Mode::Silent);
    pause(2);
    kill(&up, "debuginfo-uploader")?;
    pause(4);
    relay.set(Mode::Pass);
    caught_up(&server, &up)?;
    // The server itself ends and starts again.
    server.stop();
    pause(4);
    server.start_again()?;
    let end = caught_up(&server, &up)?;
    let local = local_samples(&up.store(), end)?;
    let (remote, twice) = (remote_samples(&server, end), server.store().duplicates());
    println!("{remote} samples on the server, {twice} of them twice, {local} in the local store");
    ensure!(
        remote - twice == local,
        "{remote} samples on the server, {twice} of them twice, {local} in the local store"
    );
    let violations = server.store().violations();
    ensure!(violations.is_empty(), "{}", violations.join("\n"));
    Ok(())
}

#[test]
fn the_end_does_not_wait_for_the_interval() -> Result<()> {
    let _machine = Machine::lock()?;
    let server = StandIn::start(Options::default())?;
    let _workload = Workload::start("chains-O2", &["60"])?;
    let up = Up::start_with_remote_store(
        1,
        &server.address.to_string(),
        &[
            "--remote-store-insecure",
            "--remote-store-batch-write-interval=1h",
        ],
    )?;
    pause(5);
    let (output, directory) = up.stop(Signal::TERM)?;
    ensure!(!output.stderr.contains("does not end"), "{}", output.stderr);
    // What came with the end is on its way or on disk; nothing else of it is left in memory.
    let local = local_samples(&directory.path().join("store"), i64::MAX)?;
    ensure!(local > 0, "no sample in the local store");
    let remote = remote_samples(&server, i64::MAX);
    let spooled = std::fs::read_dir(directory.path().join("spool"))?.count();
    ensure!(
        remote == local || spooled > 0,
        "{remote} of {local} samples on the server, nothing on disk"
    );
    Ok(())
}

#[test]
fn every_status_and_broken_answers_are_told_apart() -> Result<()> {
    let _machine = Machine::lock()?;
    let server = StandIn::start(Options::default())?;
    let _workload = Workload::start("chains-O2", &["200"])?;
    let up =
        Up::start_with_remote_store(1, &server.address.to_string(), &["--remote-store-insecure"])?;
    caught_up(&server, &up)?;
    // Batches that the server will never take cost themselves and nothing else. They are sent again in parts, each of which
    // must be refused too before samples are given up.
    server
        .gate()
        .demand("WriteRaw", Fault::Status(Code::InvalidArgument), u32::MAX);
    until("the refused batch is counted", PATIENCE, || {
        let metrics = up.metrics()?;
        let dropped = metrics.sum("leadsman_edge_dropped_samples_total", &EDGE);
        Ok(dropped.filter(|samples| *samples > 0.0))
    })?;
    server.gate().relent();
    caught_up(&server, &up)?;
    let given_up = up
        .metrics()?
        .must("leadsman_edge_dropped_samples_total", &EDGE)?;
    for fault in [
        Fault::Status(Code::Unavailable),
        Fault::Status(Code::ResourceExhausted),
        Fault::Status(Code::DeadlineExceeded),
        Fault::Status(Code::Aborted),
        Fault::Status(Code::Cancelled),
        Fault::Status(Code::Unknown),
        Fault::Status(Code::Internal),
        Fault::Status(Code::Unauthenticated),
        Fault::Status(Code::PermissionDenied),
        Fault::Status(Code::Unimplemented),
        Fault::Slow(Duration::from_secs(2)),
        Fault::Garbage,
        Fault::HalfAnswer,
        Fault::DoneThen(Code::Unavailable),
        Fault::Page(502),
    ] {
        let calls = server.gate().calls("WriteRaw");
        server.gate().demand("WriteRaw", fault, 1);
        // The fault, and the next call's success, after which pauses are short again.
        until(&format!("{fault:?} is over"), PATIENCE, || {
            Ok((server.gate().calls("WriteRaw") >= calls + 2).then_some(()))
        })?;
    }
    let end = caught_up(&server, &up)?;
    let metrics = up.metrics()?;
    let dropped = metrics.must("leadsman_edge_dropped_samples_total", &EDGE)?;
    ensure!(
        dropped == given_up,
        "{dropped} samples dropped, {given_up} of them by the one final status"
    );
    let local = local_samples(&up.store(), end)?;
    let (remote, twice) = (remote_samples(&server, end), server.store().duplicates());
    ensure!(
        (remote - twice + dropped as i64) == local,
        "{remote} samples on the server, {twice} of them twice, {dropped} dropped, {local} in the local store"
    );
    Ok(())
}
