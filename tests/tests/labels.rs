//! Labels of stored profiles: containers and units of processes that are gone, also with their cgroups, by the sample alone.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::cgroup::Cgroup;
use leadsman_tests::docker::Docker;
use leadsman_tests::process::{run_ok, until};
use leadsman_tests::profile::Profile;
use leadsman_tests::up::Up;
use leadsman_tests::{Machine, binaries};

const A: &str = "0d1f9c6e3b5a7f2418e6c0b9d8a7f6e5d4c3b2a1908f7e6d5c4b3a2918070605";
const UID: &str = "6b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";

/// The labels that samples of a process's name have, once there are some.
fn labels(up: &Up, comm: &str) -> Result<BTreeMap<String, String>> {
    until(
        &format!("samples of {comm}"),
        Duration::from_secs(30),
        || {
            for entry in std::fs::read_dir(up.store())? {
                let path = entry?.path();
                if !path.to_string_lossy().ends_with(".pb.gz") {
                    continue;
                }
                let profile = Profile::read(&path)?;
                // The shell took its name after its first instructions.
                let found = profile
                    .stacks
                    .iter()
                    .find(|stack| stack.thread_name == comm);
                if let Some(stack) = found {
                    return Ok(Some(stack.labels.clone()));
                }
            }
            Ok(None)
        },
    )
}

#[test]
fn containers_and_units_are_known_of_processes_that_are_gone() -> Result<()> {
    let _machine = Machine::lock()?;
    let up = Up::start(3, &["--profiling-cpu-sampling-frequency=97"])?;
    let short = &A[..12];
    let slice = format!("kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
    let shapes = [
        ("lm-docker", format!("/docker/{A}"), Some(short), None),
        ("lm-parent", format!("/lm-parent/{A}"), Some(short), None),
        (
            "lm-scope",
            format!("/system.slice/docker-{A}.scope"),
            Some(short),
            Some(format!("docker-{A}.scope")),
        ),
        (
            "lm-podman",
            format!("/machine.slice/libpod-{A}.scope/container"),
            Some(short),
            Some(format!("libpod-{A}.scope")),
        ),
        (
            "lm-pod",
            format!("/{slice}/cri-containerd-{A}.scope"),
            Some(short),
            Some(format!("cri-containerd-{A}.scope")),
        ),
        (
            "lm-lxc",
            "/lxc.payload.lm-box/init.scope".to_owned(),
            Some("lm-box"),
            None,
        ),
        (
            "lm-nspawn",
            "/machine.slice/systemd-nspawn@lm-tree.service/payload".to_owned(),
            Some("lm-tree"),
            Some("systemd-nspawn@lm-tree.service".to_owned()),
        ),
        (
            "lm-service",
            "/system.slice/lm-test.service".to_owned(),
            None,
            Some("lm-test.service".to_owned()),
        ),
        ("lm-none", "/lm-nothing".to_owned(), None, None),
    ];
    // Each lives for a tenth of a window, and its cgroup no longer.
    for (comm, path, ..) in &shapes {
        Cgroup::make(path)?.compute(comm, "300")?;
    }
    for (comm, path, container, unit) in &shapes {
        let labels = labels(&up, comm)?;
        let get = |name: &str| labels.get(name).map(String::as_str);
        ensure!(get("container") == *container, "{path}: {labels:?}");
        ensure!(get("systemd_unit") == unit.as_deref(), "{path}: {labels:?}");
        ensure!(get("node").is_some(), "{path}: {labels:?}");
    }
    Ok(())
}

#[test]
fn real_containers_have_their_names_also_below_another_cgroup() -> Result<()> {
    let _machine = Machine::lock()?;
    let docker = Docker::start()?;
    docker.import_busybox("lm-image")?;
    let up = Up::start(3, &["--profiling-cpu-sampling-frequency=97"])?;
    // Docker gives each a comm of its own: busybox's shell renames itself by /proc/self/comm.
    let script = |comm: &str| {
        format!(
            "printf {comm} > /proc/self/comm; i=0; while [ $i -lt 1500000 ]; do i=$((i+1)); done"
        )
    };
    for (comm, parent) in [("lm-plain", None), ("lm-nested", Some("/lm-parent/a"))] {
        let parent = parent.map(|parent| format!("--cgroup-parent={parent}"));
        let mut arguments = vec!["run", "--network=none", "--name", comm];
        arguments.extend(parent.as_deref());
        let script = script(comm);
        arguments.extend(["lm-image", "/bin/busybox", "sh", "-c", &script]);
        docker.run(&arguments)?;
        let inspected = docker.run(&["inspect", "--format", "{{.Id}}", comm])?;
        let id = inspected.text().trim().to_owned();
        let labels = labels(&up, comm)?;
        ensure!(
            labels
                .get("container")
                .is_some_and(|short| !short.is_empty() && id.starts_with(short.as_str())),
            "{comm}: {id} is labelled {labels:?}"
        );
    }
    Ok(())
}

/// Makes series labels of what only a container runtime knows.
const RUNTIME_RULES: &str = "
relabel_configs:
  - {source_labels: [__meta_docker_container_name, __meta_containerd_container_name], separator: '', target_label: container}
  - {source_labels: [__meta_docker_container_image, __meta_containerd_container_image], separator: '', target_label: image}
  - {source_labels: [__meta_docker_container_label_tier, __meta_containerd_container_label_tier], separator: '', target_label: tier}
  - {source_labels: [__meta_containerd_pod_name], target_label: pod}
  - {source_labels: [__meta_containerd_namespace], target_label: namespace}
";

#[test]
fn a_configured_runtime_names_its_containers_and_no_other_is_asked() -> Result<()> {
    let _machine = Machine::lock()?;
    let docker = Docker::start()?;
    docker.import_busybox("lm-image")?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("leadsman.yaml");
    std::fs::write(&file, RUNTIME_RULES)?;
    let config = format!("--config-path={}", file.display());
    let burn = |comm: &str| {
        format!(
            "printf {comm} > /proc/self/comm; i=0; while [ $i -lt 1500000 ]; do i=$((i+1)); done"
        )
    };
    let expect = |found: &BTreeMap<String, String>, expected: &[(&str, &str)]| -> Result<()> {
        for (name, value) in expected {
            ensure!(
                found.get(*name).map(String::as_str) == Some(value),
                "{name} is not {value:?} in {found:?}"
            );
        }
        Ok(())
    };
    let start = |socket: &std::path::Path| {
        let socket = format!(
            "--metadata-container-runtime-socket-path={}",
            socket.display()
        );
        let rate = "--profiling-cpu-sampling-frequency=97";
        Up::start(3, &[rate, config.as_str(), socket.as_str()])
    };

    let up = start(&docker.socket())?;
    let script = burn("lm-tiered");
    docker.run(&[
        "run",
        "--network=none",
        "--name=lm-web",
        "--label=tier=front",
        "lm-image",
        "/bin/busybox",
        "sh",
        "-c",
        &script,
    ])?;
    expect(
        &labels(&up, "lm-tiered")?,
        &[
            ("container", "lm-web"),
            ("image", "lm-image"),
            ("tier", "front"),
        ],
    )?;
    drop(up);

    let up = start(&docker.containerd()?)?;
    docker.run_in_containerd("lm-ctr", &["tier=back"], &burn("lm-alone"))?;
    expect(
        &labels(&up, "lm-alone")?,
        &[
            ("container", "lm-ctr"),
            ("namespace", "default"),
            ("tier", "back"),
        ],
    )?;
    let kubelet = [
        "io.kubernetes.container.name=web",
        "io.kubernetes.pod.name=web-1",
    ];
    docker.run_in_containerd("lm-pod", &kubelet, &burn("lm-podded"))?;
    expect(
        &labels(&up, "lm-podded")?,
        &[("container", "web"), ("pod", "web-1")],
    )
}

#[test]
fn a_live_process_shows_its_labels() -> Result<()> {
    let binary = binaries::directory()?.join("leadsman-shipper");
    let output = run_ok(
        Command::new(&binary).args([
            "labels",
            "--node=n1",
            "--pid",
            &std::process::id().to_string(),
        ]),
        Duration::from_secs(20),
    )?;
    let labels: BTreeMap<String, String> =
        serde_json::from_str(output.text().trim()).context("one JSON object")?;
    ensure!(
        labels.get("node").is_some_and(|node| node == "n1"),
        "{labels:?}"
    );
    ensure!(
        labels.get("__meta_process_pid") == Some(&std::process::id().to_string()),
        "{labels:?}"
    );
    let missing = Command::new(&binary)
        .args(["labels", "--pid=4194305"])
        .output()?;
    ensure!(missing.status.code() == Some(1), "{missing:?}");
    let nonsense = Command::new(&binary).args(["labels", "--pid=x"]).output()?;
    ensure!(nonsense.status.code() == Some(2), "{nonsense:?}");
    Ok(())
}
