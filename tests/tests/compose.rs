//! The dev stack by a real `docker compose up`, until the page shows samples of the workloads' containers. Images that a registry
//! would serve are made of local trees: Debian's for ours and the workloads', Debian's Prometheus, and stand-ins that only
//! listen for the Parca server and Grafana.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::compose::{Compose, cached};
use leadsman_tests::process::{run_ok, until};
use leadsman_tests::{Machine, binaries, http, require_command};

const PAGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7071);
const PROMETHEUS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("no parent")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// What stands behind the names in the stack's image lines.
fn images(docker: &Compose, directory: &Path) -> Result<()> {
    docker.import(&cached("debian-root")?, "test-base", "CMD [\"sh\"]")?;
    let ours = directory.join("binaries");
    let bin = binaries::leadsman()?;
    let bin = bin.parent().context("no directory")?;
    for entry in fs::read_dir(bin)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("leadsman") && !name.contains('.') && entry.file_type()?.is_file() {
            copy(&entry.path(), &ours.join("usr/lib/leadsman").join(name))?;
        }
    }
    docker.import(&ours, "test-binaries", "CMD [\"none\"]")?;

    let c = directory.join("c");
    fs::create_dir_all(c.join("usr/bin"))?;
    let mut gcc = Command::new(require_command("gcc")?);
    gcc.args(["-O2", "-g", "-fomit-frame-pointer", "-static", "-o"])
        .arg(c.join("usr/bin/busy-c"))
        .arg(repository().join("compose/workloads/busy.c"));
    run_ok(&mut gcc, Duration::from_secs(60))?;
    docker.import(&c, "leadsman-workload-c:dev", "CMD [\"/usr/bin/busy-c\"]")?;

    let go = directory.join("go");
    let mut build = Command::new(require_command("go")?);
    build
        .env("CGO_ENABLED", "0")
        .args(["build", "-o"])
        .arg(go.join("usr/bin/busy-go"))
        .arg(repository().join("compose/workloads/busy.go"));
    run_ok(&mut build, Duration::from_secs(240))?;
    docker.import(
        &go,
        "leadsman-workload-go:dev",
        "CMD [\"/usr/bin/busy-go\"]",
    )?;

    // On top of Debian's tree: what each needs beside it.
    let layers = directory.join("layers");
    copy(
        &fs::canonicalize(require_command("node")?)?,
        &layers.join("node/usr/bin/node"),
    )?;
    copy(
        &fs::canonicalize("/usr/lib/x86_64-linux-gnu/libstdc++.so.6")?,
        &layers.join("node/usr/lib/x86_64-linux-gnu/libstdc++.so.6"),
    )?;
    copy(
        &require_command("prometheus")?,
        &layers.join("prometheus/usr/bin/prometheus"),
    )?;
    for (name, port) in [("parca", 7070), ("grafana", 3000)] {
        let script = layers.join(name).join(name);
        fs::create_dir_all(layers.join(name))?;
        let text = format!(
            "#!/bin/sh\nexec python3 -c 'import socket; s = socket.create_server((\"\", {port}))\nwhile True: s.accept()[0].close()'\n"
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    }
    for (layer, tag, command) in [
        ("node", "test-node", "[\"sh\"]"),
        (
            "prometheus",
            "prom/prometheus:v3.5.0",
            "[\"prometheus\", \"--config.file=/etc/prometheus/prometheus.yml\", \"--storage.tsdb.path=/tmp/prometheus\"]",
        ),
        ("parca", "ghcr.io/parca-dev/parca:v0.28.0", "[\"/parca\"]"),
        ("grafana", "grafana/grafana:12.1.1", "[\"/grafana\"]"),
    ] {
        let context = layers.join(layer);
        let file = directory.join(format!("{layer}.Dockerfile"));
        fs::write(&file, format!("FROM test-base\nCOPY . /\nCMD {command}\n"))?;
        let (file, context) = (file.to_string_lossy(), context.to_string_lossy());
        docker.run(&["build", "-q", "-f", &file, "-t", tag, &context])?;
    }
    let file = repository().join("compose/Dockerfile");
    let (file, context) = (file.to_string_lossy(), repository());
    let context = context.to_string_lossy();
    for target in ["leadsman", "workload-python", "workload-node"] {
        let tag = match target {
            "leadsman" => "leadsman:dev".to_owned(),
            workload => format!("leadsman-{workload}:dev"),
        };
        docker.run(&[
            "build",
            "-q",
            "-f",
            &file,
            "--target",
            target,
            "-t",
            &tag,
            "--build-arg",
            "BASE_IMAGE=test-base",
            "--build-arg",
            "BINARIES=test-binaries",
            "--build-arg",
            "PYTHON_IMAGE=test-base",
            "--build-arg",
            "NODE_IMAGE=test-node",
            &context,
        ])?;
    }
    Ok(())
}

#[test]
fn the_stack_shows_its_workloads() -> Result<()> {
    let _machine = Machine::lock()?;
    let directory = tempfile::tempdir()?;
    let mut docker = Compose::start()?;
    images(&docker, directory.path())?;
    let file = repository().join("compose/compose.yml");
    docker.compose_up(&file)?;
    let logs = || {
        let file = file.to_string_lossy().into_owned();
        docker
            .run(&["compose", "-f", &file, "logs", "--no-color", "--tail", "20"])
            .map(|output| output.text())
            .unwrap_or_default()
    };
    let ready = until("the stack's page is ready", Duration::from_secs(60), || {
        let answer = http::get(PAGE, "/ready");
        Ok(answer
            .is_ok_and(|answer| answer.status == 200)
            .then_some(()))
    });
    ready.with_context(logs)?;
    for (comm, of) in [
        ("busy-c", "leaf_of_c"),
        ("busy-go", "main.leafOfGo"),
        ("python3", ""),
        ("node", ""),
    ] {
        let query = format!("{{comm=\"{comm}\"}}");
        let target = format!("/query?query={}&debug=1", http::percent_encoded(&query));
        let text = until(
            &format!("samples of {comm}"),
            Duration::from_secs(60),
            || {
                let answer = http::get(PAGE, &target)?;
                Ok((answer.status == 200 && answer.text().contains(of)).then(|| answer.text()))
            },
        )
        .with_context(logs)?;
        ensure!(text.contains(comm), "{comm}: {text}");
    }
    // A real Prometheus scrapes the page by its address in the stack, with the format that it prefers.
    until(
        "Prometheus has Leadsman's metrics",
        Duration::from_secs(60),
        || {
            let query = http::percent_encoded("leadsman_check_ok{id=\"samples_flow\"}");
            let answer = http::get(PROMETHEUS, &format!("/api/v1/query?query={query}"));
            Ok(answer
                .is_ok_and(|answer| answer.text().contains("172.29.71.10:7071"))
                .then_some(()))
        },
    )
    .with_context(logs)
}
