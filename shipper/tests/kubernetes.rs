//! The watch of pods against an API server that forgets, breaks off, fails, and has very many.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../tests/src/kubernetes_api.rs"]
#[allow(
    unreachable_pub,
    reason = "the black-box tests' helper is public there"
)]
mod kubernetes_api;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc_proto::codec::{Bytes, List};
use ipc_proto::ids::Pid;
use ipc_proto::sample::CgroupPath;
use ipc_proto::symbolized::{NONE, SymbolizedBatch, SymbolizedProcess, SymbolizedSample};
use kubernetes_api::{KubernetesApi, NODE, pod};
use leadsman_shipper::labels::kubernetes::{Access, Pods};
use leadsman_shipper::labels::{Labeller, Labels, Settings, Sources};

const DEADLINE: Duration = Duration::from_secs(60);

fn follow(api: &KubernetesApi) -> Arc<Pods> {
    Pods::follow(Access {
        server: api.address().to_owned(),
        authority: None,
        token: None,
        node: NODE.to_owned(),
    })
    .unwrap()
}

fn uid(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

fn container(number: usize) -> String {
    format!("{number:064x}")
}

/// The labels of a process in the pod's container.
fn labels(pods: &Arc<Pods>, number: usize) -> Labels {
    let path = format!(
        "/kubepods/burstable/pod{}/{}",
        uid(number),
        container(number)
    );
    let batch = SymbolizedBatch {
        strings: List(vec![Bytes::default()]),
        cgroups: List(vec![CgroupPath {
            id: 5,
            path: Bytes(path.into_bytes()),
        }]),
        processes: List(vec![SymbolizedProcess {
            pid: Pid(u32::MAX),
            executable: NONE,
            ..SymbolizedProcess::default()
        }]),
        samples: List(vec![SymbolizedSample {
            cgroup: 5,
            count: 1,
            ..SymbolizedSample::default()
        }]),
        ..SymbolizedBatch::default()
    };
    let sources = Sources {
        pods: Some(Arc::clone(pods)),
        ..Sources::default()
    };
    Labeller::new(Settings::default(), sources)
        .full_set(&batch, 0)
        .unwrap()
}

fn name(pods: &Arc<Pods>, number: usize) -> Option<String> {
    labels(pods, number)
        .get("__meta_kubernetes_pod_name")
        .cloned()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_pod_gets_every_label_and_keeps_them_when_it_is_gone() {
    let api = KubernetesApi::start().unwrap();
    let pods = follow(&api);
    until("the first list", || pods.is_synced());
    api.apply(pod(&uid(1), "web-1", &container(1)));
    api.delete(&uid(1));
    until("the pod", || name(&pods, 1).is_some());
    let labels = labels(&pods, 1);
    for (label, value) in [
        ("namespace", "shop"),
        ("pod_name", "web-1"),
        ("pod_uid", &*uid(1)),
        ("pod_label_app_kubernetes_io_name", "web"),
        ("pod_labelpresent_app_kubernetes_io_name", "true"),
        ("pod_annotation_note", "n"),
        ("pod_annotationpresent_note", "true"),
        ("pod_ip", "10.0.0.7"),
        ("pod_host_ip", "192.0.2.1"),
        ("pod_phase", "Running"),
        ("pod_ready", "true"),
        ("pod_controller_kind", "ReplicaSet"),
        ("pod_controller_name", "web-7d"),
        ("pod_container_name", "main"),
        ("pod_container_id", &*container(1)),
        ("pod_container_image", "registry.example/web:1"),
        ("pod_container_init", "false"),
        ("node_name", NODE),
        ("node_label_topology_kubernetes_io_zone", "eu-1"),
        ("node_labelpresent_topology_kubernetes_io_zone", "true"),
    ] {
        let found = labels.get(&format!("__meta_kubernetes_{label}"));
        assert_eq!(found.map(String::as_str), Some(value), "{label}");
    }
}

#[test]
fn five_thousand_pods_come_in_pages_and_changes_by_the_watch() {
    let api = KubernetesApi::start().unwrap();
    for number in 0..5000 {
        api.apply(pod(
            &uid(number),
            &format!("pod-{number}"),
            &container(number),
        ));
    }
    let pods = follow(&api);
    until("all pods", || pods.is_synced());
    assert_eq!(pods.len(), 5000);
    let lists = |api: &KubernetesApi| {
        let requests = api.requests();
        let pods = requests
            .iter()
            .filter(|request| request.starts_with("/api/v1/pods"));
        pods.filter(|request| !request.contains("watch=1")).count()
    };
    assert_eq!(lists(&api), 10);
    assert_eq!(name(&pods, 4999).as_deref(), Some("pod-4999"));
    api.apply(pod(&uid(5000), "young", &container(5000)));
    until("the new pod", || name(&pods, 5000).is_some());
    assert_eq!(lists(&api), 10, "what changes is told, not listed");
    // Never more than this node's, and the watch asks for bookmarks.
    for request in api.requests() {
        assert!(request.contains(NODE), "{request}");
        assert!(!request.contains("watch=1") || request.contains("allowWatchBookmarks=true"));
    }
}

#[test]
fn a_broken_watch_goes_on_where_it_was_and_an_old_one_begins_anew() {
    let api = KubernetesApi::start().unwrap();
    api.apply(pod(&uid(1), "old", &container(1)));
    let pods = follow(&api);
    until("the first list", || pods.is_synced());
    let pod_requests = |of: &str| {
        let requests = api.requests();
        let pods = requests
            .iter()
            .filter(|request| request.starts_with("/api/v1/pods"));
        pods.filter(|request| request.contains(of)).count()
    };
    // Broken: the next watch begins with what happened meanwhile, without a list.
    api.disconnect();
    api.apply(pod(&uid(2), "meanwhile", &container(2)));
    until("the pod of the pause", || name(&pods, 2).is_some());
    assert_eq!(pod_requests("limit="), 1);
    // A bookmark moves the version on, so that compaction up to it costs nothing.
    let before = pod_requests("watch=1");
    api.bookmark();
    std::thread::sleep(Duration::from_millis(300));
    api.disconnect();
    until("another watch", || pod_requests("watch=1") > before);
    assert_eq!(pod_requests("limit="), 1);
    // Forgotten versions: a new list, which says that a pod is gone and another is there.
    api.delete(&uid(2));
    api.compact();
    api.disconnect();
    api.apply(pod(&uid(3), "after", &container(3)));
    until("the pod after 410 Gone", || name(&pods, 3).is_some());
    assert_eq!(pod_requests("limit="), 2);
    assert_eq!(
        name(&pods, 2).as_deref(),
        Some("meanwhile"),
        "kept for its last samples"
    );
    assert_eq!(name(&pods, 1).as_deref(), Some("old"));
}

#[test]
fn a_server_that_refuses_is_counted_and_asked_again() {
    let api = KubernetesApi::start().unwrap();
    api.fail(Some(403));
    let pods = follow(&api);
    until("an error", || pods.errors() > 0);
    assert!(!pods.is_synced());
    // The path alone says the pod's UID and the container's ID.
    let labels = labels(&pods, 1);
    assert_eq!(labels.get("__meta_kubernetes_pod_uid"), Some(&uid(1)));
    assert_eq!(
        labels.get("__meta_kubernetes_pod_container_id"),
        Some(&container(1))
    );
    api.fail(None);
    api.apply(pod(&uid(1), "late", &container(1)));
    until("the pod", || name(&pods, 1).is_some());
}
