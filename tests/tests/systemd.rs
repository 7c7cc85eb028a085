//! The units in a booted systemd: started, each process killed, stopped.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use leadsman_tests::http;
use leadsman_tests::machine_tree::Tree;
use leadsman_tests::metrics::Metrics;
use leadsman_tests::process::{Output, Running, run, run_ok, until};
use leadsman_tests::{Machine, require_command};
use rustix::process::{Pid, Signal, kill_process};

const ROLES: [&str; 6] = [
    "viewer",
    "shipper",
    "debuginfo-uploader",
    "symbolizer",
    "opener",
    "sampler",
];
const PAGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7071);
const DELIVERED: &str = "leadsman_edge_delivered_samples_total";

/// A booted container; dead with the value.
struct Booted {
    nspawn: Running,
    leader: i32,
}

impl Booted {
    fn start(tree: &Tree) -> Result<Self> {
        require_command("systemd-nspawn")?;
        let nspawn = Running::start(
            Command::new("systemd-nspawn")
                .args(["--quiet", "--boot", "--register=no", "--keep-unit"])
                .args(["--console=pipe", "--link-journal=no"])
                .arg("--capability=CAP_BPF,CAP_PERFMON,CAP_CHECKPOINT_RESTORE,CAP_SYSLOG,CAP_SYS_RESOURCE")
                .arg("--system-call-filter=bpf perf_event_open")
                .arg("-D")
                .arg(tree.root())
                // Else the container could not have what the units hide from their processes.
                .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "yes"),
        )?;
        let mut booted = Self { nspawn, leader: 0 };
        let id = booted.nspawn.id();
        until(
            "systemd answers in the container",
            Duration::from_secs(60),
            || {
                // Its first child is not yet the init, which that one starts before it ends.
                let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
                let last = children.split_whitespace().next_back();
                let Some(leader) = last.and_then(|pid| pid.parse().ok()) else {
                    return Ok(None);
                };
                booted.leader = leader;
                let state = booted.run(&["systemctl", "is-system-running"])?;
                Ok(matches!(state.text().trim(), "running" | "degraded").then_some(()))
            },
        )?;
        Ok(booted)
    }

    /// A command inside.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--all", "--target", &self.leader.to_string(), "--"])
            .args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Result<Output> {
        run(&mut self.command(words), Duration::from_secs(60))
    }

    fn must(&self, words: &[&str]) -> Result<String> {
        match run_ok(&mut self.command(words), Duration::from_secs(60)) {
            Ok(output) => Ok(output.text()),
            Err(error) => {
                let journal = self.run(&["journalctl", "--no-pager", "-n", "60"])?;
                Err(error.context(journal.text()))
            }
        }
    }

    /// Process ids, as the container counts, of the services that run.
    fn main_pids(&self) -> Result<BTreeMap<&'static str, u32>> {
        let mut pids = BTreeMap::new();
        for role in ROLES {
            let unit = format!("leadsman-{role}.service");
            let text = self.must(&["systemctl", "show", "-p", "MainPID", "--value", &unit])?;
            pids.insert(role, text.trim().parse().unwrap_or(0));
        }
        Ok(pids)
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        if let Some(leader) = Pid::from_raw(self.leader) {
            // The init of a process id namespace takes all of it along.
            let _gone = kill_process(leader, Signal::KILL);
        }
    }
}

fn delivered(edge: &str) -> Result<f64> {
    let metrics = Metrics::parse(&http::get(PAGE, "/metrics")?.text())?;
    metrics.must(DELIVERED, &[("edge", edge)])
}

/// Systemd's watchdog, with less patience than the units give it.
fn one_that_stands_still_is_started_again(booted: &Booted) -> Result<()> {
    booted.must(&[
        "sh",
        "-c",
        "d=/run/systemd/system/leadsman-viewer.service.d; mkdir -p $d && \
         printf '[Service]\\nWatchdogSec=8\\n' > $d/watchdog.conf && \
         systemctl daemon-reload && systemctl restart leadsman-viewer",
    ])?;
    let pid = booted.main_pids()?.get("viewer").copied().unwrap_or(0);
    // Longer than the watchdog waits: it hears from a process that works.
    std::thread::sleep(Duration::from_secs(12));
    let same = booted.main_pids()?.get("viewer") == Some(&pid);
    ensure!(same, "the watchdog killed a viewer that works");
    booted.must(&["sh", "-c", &format!("kill -STOP {pid}")])?;
    until("the viewer runs again", Duration::from_secs(40), || {
        let now = booted.main_pids()?.get("viewer").copied().unwrap_or(0);
        Ok((now > 0 && now != pid).then_some(()))
    })
}

#[test]
fn the_units_start_recover_and_stop() -> Result<()> {
    let _machine = Machine::lock()?;
    let tree = Tree::open()?;
    tree.install()?;
    let booted = Booted::start(&tree)?;
    booted.must(&["systemd-sysusers"])?;
    booted.must(&["systemd-tmpfiles", "--create", "leadsman.conf"])?;
    booted.must(&["systemctl", "daemon-reload"])?;
    booted.must(&["systemctl", "start", "leadsman.target"])?;
    let ready = until("/ready answers 200", Duration::from_secs(40), || {
        let answer = http::get(PAGE, "/ready");
        Ok(answer
            .is_ok_and(|answer| answer.status == 200)
            .then_some(()))
    });
    if let Err(error) = ready {
        let journal = booted.run(&["journalctl", "--no-pager", "-n", "100"])?;
        let said = http::get(PAGE, "/ready").map(|answer| answer.text());
        return Err(error.context(format!("/ready says {said:?}\n{}", journal.text())));
    }
    let rights = booted.must(&["leadsman", "security"])?;
    ensure!(rights.contains("6 processes, 0 deviations"), "{rights}");

    for role in ROLES {
        let before = booted.main_pids()?;
        let pid = before.get(role).copied().unwrap_or(0);
        ensure!(pid > 0, "{role} does not run");
        let killed = Instant::now();
        booted.must(&["sh", "-c", &format!("kill -KILL {pid}")])?;
        let unit = format!("leadsman-{role}.service");
        until(
            &format!("{unit} runs again"),
            Duration::from_secs(20),
            || {
                let state =
                    booted.must(&["systemctl", "show", "-p", "MainPID,ActiveState", &unit])?;
                let again = state.contains("ActiveState=active")
                    && !state.contains(&format!("MainPID={pid}\n"));
                Ok(again.then_some(()))
            },
        )?;
        println!(
            "{role}: again after {:.2} s",
            killed.elapsed().as_secs_f64()
        );
        // A process that was started anew counts anew: what it delivers from now on is what matters.
        let mut least = None;
        until(
            "samples reach the symbolizer again",
            Duration::from_secs(30),
            || {
                let Ok(now) = delivered("samples") else {
                    return Ok(None);
                };
                let first = *least.get_or_insert(now);
                if now < first {
                    least = Some(now);
                }
                Ok((now > least.unwrap_or(now)).then_some(()))
            },
        )
        .with_context(|| format!("after the end of {role}"))?;
        let after = booted.main_pids()?;
        for (other, pid) in &before {
            let same = after.get(other) == Some(pid);
            ensure!(
                same || *other == role,
                "{other} was started again with {role}"
            );
        }
    }

    one_that_stands_still_is_started_again(&booted)?;

    booted.must(&["systemctl", "stop", "leadsman.target"])?;
    until("all units are inactive", Duration::from_secs(20), || {
        let left = booted.must(&[
            "systemctl",
            "list-units",
            "--no-legend",
            "--state=active,activating,deactivating",
            "leadsman*",
        ])?;
        Ok(left.trim().is_empty().then_some(()))
    })?;
    let failed = booted.must(&[
        "systemctl",
        "list-units",
        "--no-legend",
        "--state=failed",
        "leadsman*",
    ])?;
    ensure!(failed.trim().is_empty(), "{failed}");
    let profiles = booted.must(&["ls", "/var/lib/leadsman/profiles"])?;
    ensure!(
        profiles.contains(".pb.gz"),
        "no profile was written: {profiles}"
    );
    let sockets = booted.must(&["ls", "/run/leadsman"])?;
    ensure!(
        sockets.trim().is_empty(),
        "left in /run/leadsman: {sockets}"
    );
    Ok(())
}
