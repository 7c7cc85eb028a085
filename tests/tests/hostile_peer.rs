//! A peer that breaks the protocol loses its link, is counted, and harms nobody else: every attack on every socket, as a
//! stranger, as root and as the very user that the socket is for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::attacks::ATTACKS;
use leadsman_tests::process::{run_ok, until};
use leadsman_tests::up::Up;
use leadsman_tests::{Machine, http, public_directory, require_command};

/// Socket, the process that listens, one process that connects.
const EDGES: [(&str, &str, &str); 5] = [
    ("samples.sock", "symbolizer", "sampler"),
    ("opener.sock", "opener", "symbolizer"),
    ("symbolized.sock", "shipper", "symbolizer"),
    ("debuginfo.sock", "debuginfo-uploader", "symbolizer"),
    ("statistics.sock", "viewer", "sampler"),
];

/// The helper, where every user may run it.
fn helper() -> Result<(tempfile::TempDir, PathBuf)> {
    let directory = public_directory("helper-")?;
    let path = directory.path().join("hostile-peer");
    std::fs::copy(env!("CARGO_BIN_EXE_hostile-peer"), &path)?;
    Ok((directory, path))
}

fn attack(
    helper: &PathBuf,
    up: &Up,
    socket: &str,
    role: &str,
    uid: u32,
    gid: u32,
    attack: &str,
) -> Result<String> {
    let output = run_ok(
        Command::new(require_command("setpriv")?)
            .args([
                "--reuid",
                &uid.to_string(),
                "--regid",
                &gid.to_string(),
                "--clear-groups",
                "--",
            ])
            .arg(helper)
            .arg(up.runtime_directory().join(socket))
            .args([role, attack]),
        Duration::from_secs(20),
    )?;
    Ok(output.text().trim().to_owned())
}

fn pids(up: &Up) -> Result<BTreeMap<String, u32>> {
    Ok(up
        .processes()?
        .into_iter()
        .map(|(name, credentials)| (name, credentials.pid))
        .collect())
}

#[test]
fn every_attack_on_every_socket() -> Result<()> {
    let _machine = Machine::lock()?;
    let up = Up::start(1, &[])?;
    let (_directory, helper) = helper()?;
    let before = pids(&up)?;
    let processes = up.processes()?;
    for (socket, listener, connector) in EDGES {
        let own = processes
            .get(&format!("leadsman-{connector}"))
            .with_context(|| format!("no {connector}"))?;
        let (uid, gid) = (own.uids()?[0], own.gids()?[0]);
        // Strangers do not get as far as the protocol: one attack shows it.
        for (stranger, group) in [(65534, 65534), (12345, 12345)] {
            let outcome = attack(
                &helper,
                &up,
                socket,
                connector,
                stranger,
                group,
                "second-hello",
            )?;
            ensure!(outcome != "open", "{socket} talks to uid {stranger}");
        }
        for name in ATTACKS {
            let outcome = attack(&helper, &up, socket, connector, uid, gid, name)?;
            ensure!(
                outcome != "open",
                "{socket}: '{name}' from the user of {connector} left the link open"
            );
        }
        let now = pids(&up)?;
        ensure!(
            before == now,
            "the attacks on {listener} restarted a process: {before:?} became {now:?}"
        );
    }
    let violations = until(
        "the violations are counted",
        Duration::from_secs(10),
        || {
            let sum = up.metrics()?.sum("leadsman_link_violations_total", &[]);
            Ok(sum.filter(|sum| *sum >= ATTACKS.len() as f64))
        },
    )?;
    println!("{violations} violations counted");
    // The machine's samples still go all the way.
    let written = |up: &Up| -> Result<usize> { Ok(std::fs::read_dir(up.store())?.count()) };
    let profiles = written(&up)?;
    until("another window is stored", Duration::from_secs(15), || {
        Ok((written(&up)? > profiles).then_some(()))
    })?;
    ensure!(
        http::get(up.address, "/ready")?.status == 200,
        "no longer ready"
    );
    Ok(())
}
