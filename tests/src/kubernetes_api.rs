//! A Kubernetes API server of one node's pods: lists in pages, watches with bookmarks, forgets old versions (410 Gone),
//! breaks connections when told. Speaks HTTP/1.1 without TLS.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

/// The node whose pods it has.
pub const NODE: &str = "node-1";

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// Versions up to this one are forgotten.
    compacted: u64,
    pods: BTreeMap<String, Value>,
    /// Version, kind and object of each event.
    events: Vec<(u64, &'static str, Value)>,
    /// Grows to break all watches.
    generation: u64,
    /// Answer each request with that status.
    failure: Option<u16>,
    requests: Vec<String>,
}

/// The server; it ends with the process.
#[derive(Clone, Debug)]
pub struct KubernetesApi {
    address: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl KubernetesApi {
    /// Listens on a free port of the loopback.
    ///
    /// # Errors
    /// No port or thread was to be had.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let api = Self {
            address: format!("http://{}", listener.local_addr()?),
            state: Arc::default(),
        };
        api.locked().version = 100;
        let server = api.clone();
        std::thread::Builder::new().spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                let _handler = std::thread::Builder::new().spawn(move || {
                    // The client may go at any time.
                    let _gone = server.serve(stream);
                });
            }
        })?;
        Ok(api)
    }

    /// Its URL.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.locked());
        self.state.1.notify_all();
    }

    /// Creates or changes a pod.
    pub fn apply(&self, pod: Value) {
        self.change(|state| {
            state.version += 1;
            let pod = versioned(pod, state.version);
            let uid = pod["metadata"]["uid"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let kind = match state.pods.insert(uid, pod.clone()) {
                None => "ADDED",
                Some(_) => "MODIFIED",
            };
            state.events.push((state.version, kind, pod));
        });
    }

    /// Deletes a pod.
    pub fn delete(&self, uid: &str) {
        self.change(|state| {
            if let Some(pod) = state.pods.remove(uid) {
                state.version += 1;
                let pod = versioned(pod, state.version);
                state.events.push((state.version, "DELETED", pod));
            }
        });
    }

    /// Says the newest version to all watches, as happens about once a minute.
    pub fn bookmark(&self) {
        self.change(|state| {
            state.version += 1;
            let object =
                json!({"kind": "Pod", "metadata": {"resourceVersion": state.version.to_string()}});
            state.events.push((state.version, "BOOKMARK", object));
        });
    }

    /// Forgets all versions so far, as etcd's compaction does; also the newest, so that a watch
    /// that has seen everything is told so as well.
    pub fn compact(&self) {
        self.change(|state| {
            state.version += 1;
            state.compacted = state.version;
            state.events.clear();
        });
    }

    /// Breaks all watches off in the middle of a line.
    pub fn disconnect(&self) {
        self.change(|state| state.generation += 1);
    }

    /// Answers each request with that status; `None`: as it should.
    pub fn fail(&self, status: Option<u16>) {
        self.change(|state| state.failure = status);
    }

    /// Paths and queries of all requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.locked().requests.clone()
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut header = String::from("x");
            while !header.trim().is_empty() {
                header.clear();
                reader.read_line(&mut header)?;
            }
            self.change(|state| state.requests.push(target.clone()));
            self.answer(&stream, &target)?;
        }
    }

    fn answer(&self, stream: &TcpStream, target: &str) -> io::Result<()> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parameter = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_default()
        };
        let selector = parameter("fieldSelector");
        let failure = self.locked().failure;
        if let Some(status) = failure {
            return document(stream, status, &json!({"kind": "Status", "code": status}));
        }
        let is_watch = parameter("watch") == "1";
        match path {
            "/api/v1/pods" if selector == format!("spec.nodeName%3D{NODE}") => {
                if is_watch {
                    return self.watch(stream, parameter("resourceVersion").parse().unwrap_or(0));
                }
                let limit = parameter("limit").parse().unwrap_or(usize::MAX);
                let start = parameter("continue").parse().unwrap_or(0);
                let list = self.page(start, limit);
                document(stream, 200, &list)
            }
            "/api/v1/nodes" if selector == format!("metadata.name%3D{NODE}") => {
                if is_watch {
                    return self.watch(stream, u64::MAX);
                }
                let node = json!({"metadata": {"name": NODE, "uid": "n", "resourceVersion": "7",
                    "labels": {"topology.kubernetes.io/zone": "eu-1"}}});
                let list = json!({"kind": "NodeList", "metadata": {"resourceVersion": "7"}, "items": [node]});
                document(stream, 200, &list)
            }
            _ => document(stream, 403, &json!({"kind": "Status", "code": 403})),
        }
    }

    fn page(&self, start: usize, limit: usize) -> Value {
        let state = self.locked();
        let items: Vec<&Value> = state.pods.values().skip(start).take(limit).collect();
        let end = start + items.len();
        let mut metadata = json!({"resourceVersion": state.version.to_string()});
        if end < state.pods.len() {
            metadata["continue"] = json!(end.to_string());
        }
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})
    }

    /// Sends what happened after `version`, and what happens, until the watch is broken.
    fn watch(&self, mut stream: &TcpStream, mut version: u64) -> io::Result<()> {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let generation = self.locked().generation;
        loop {
            let (lines, is_over) = {
                let mut state = self.locked();
                loop {
                    let is_broken = state.generation != generation;
                    if version < state.compacted {
                        let gone = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}});
                        break (vec![gone.to_string()], true);
                    }
                    let new: Vec<String> = state
                        .events
                        .iter()
                        .filter(|(at, ..)| *at > version)
                        .map(|(_, kind, object)| {
                            json!({"type": kind, "object": object}).to_string()
                        })
                        .collect();
                    if is_broken || !new.is_empty() {
                        version = version.max(state.version);
                        break (new, is_broken);
                    }
                    let waited = self.state.1.wait_timeout(state, Duration::from_secs(60));
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            };
            for line in lines {
                write!(stream, "{:x}\r\n{line}\n\r\n", line.len() + 1)?;
            }
            if is_over {
                // Half of a line, as a proxy leaves it.
                write!(stream, "9\r\n{{\"type\":\"")?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

/// A pod with one container, as the API server shows it.
#[must_use]
pub fn pod(uid: &str, name: &str, container_id: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "shop", "uid": uid,
            "labels": {"app.kubernetes.io/name": "web"}, "annotations": {"note": "n"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d", "uid": "r", "controller": true}],
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}}]},
        "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "registry.example/web:1", "resources": {}}]},
        "status": {"phase": "Running", "podIP": "10.0.0.7", "hostIP": "192.0.2.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "main", "image": "registry.example/web:1", "ready": true,
                "containerID": format!("containerd://{container_id}"), "state": {"running": {}}, "lastState": {}}]}
    })
}

fn versioned(mut pod: Value, version: u64) -> Value {
    pod["metadata"]["resourceVersion"] = json!(version.to_string());
    pod
}

fn document(mut stream: &TcpStream, status: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
