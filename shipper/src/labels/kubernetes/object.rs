//! The parts of Kubernetes' objects that labels are made of. Whatever else an object has is skipped while it is read.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::labels::meta::sanitized;

/// Bytes of one annotation's value: longer ones are descriptions for machines (`last-applied-configuration`).
const MAX_VALUE: usize = 4096;

type Map = BTreeMap<String, Option<String>>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
    labels: Option<Map>,
    annotations: Option<Map>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
    controller: Option<bool>,
}

/// A pod or a node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Object {
    pub(super) metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
    containers: Option<Vec<SpecContainer>>,
    init_containers: Option<Vec<SpecContainer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SpecContainer {
    name: String,
    image: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    conditions: Option<Vec<Condition>>,
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
    ephemeral_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    image: Option<String>,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    state: Option<State>,
    last_state: Option<State>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    terminated: Option<Terminated>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Terminated {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerInfo {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) init: bool,
    /// Its IDs, without what stands before `://`: of this run, and of the one before.
    pub(crate) ids: Vec<String>,
}

/// A pod as far as labels need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    /// What the kubelet calls a pod of its own files; its cgroups have this for a UID.
    pub(crate) config_hash: Option<String>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// All but those of a container.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) containers: Vec<ContainerInfo>,
}

impl Object {
    /// The pod it is.
    pub(super) fn into_pod(self) -> Pod {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
        let mut labels = Vec::new();
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                labels.push((format!("__meta_kubernetes_{name}"), value.to_owned()));
            }
        };
        add("namespace", &metadata.namespace);
        add("pod_name", &metadata.name);
        add("pod_uid", &metadata.uid);
        add("pod_ip", status.pod_ip.as_deref().unwrap_or_default());
        add("pod_host_ip", status.host_ip.as_deref().unwrap_or_default());
        add("pod_phase", status.phase.as_deref().unwrap_or_default());
        add(
            "pod_node_name",
            spec.node_name.as_deref().unwrap_or_default(),
        );
        let ready = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.kind == "Ready");
        let ready = ready.map_or("unknown".to_owned(), |ready| ready.status.to_lowercase());
        add("pod_ready", &ready);
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        if let Some(owner) = owners.iter().find(|owner| owner.controller == Some(true)) {
            add("pod_controller_kind", &owner.kind);
            add("pod_controller_name", &owner.name);
        }
        metadata.push_maps("pod", &mut labels);
        let config_hash = metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get("kubernetes.io/config.hash")?.clone());
        Pod {
            containers: containers(&spec, &status),
            uid: metadata.uid,
            config_hash,
            namespace: metadata.namespace,
            name: metadata.name,
            labels,
        }
    }

    /// The labels of the node it is.
    pub(super) fn into_node(self) -> Vec<(String, String)> {
        let name = self.metadata.name.clone();
        let mut labels = vec![("__meta_kubernetes_node_name".to_owned(), name)];
        self.metadata.push_maps("node", &mut labels);
        labels
    }
}

impl Metadata {
    /// Appends labels and annotations of a `pod` or a `node`.
    fn push_maps(&self, of: &str, labels: &mut Vec<(String, String)>) {
        for (kind, map) in [("label", &self.labels), ("annotation", &self.annotations)] {
            for (name, value) in map.iter().flatten() {
                let name = sanitized(name);
                let value = value.as_deref().unwrap_or_default();
                if !value.is_empty() && value.len() <= MAX_VALUE {
                    labels.push((
                        format!("__meta_kubernetes_{of}_{kind}_{name}"),
                        value.to_owned(),
                    ));
                }
                labels.push((
                    format!("__meta_kubernetes_{of}_{kind}present_{name}"),
                    "true".to_owned(),
                ));
            }
        }
    }
}

/// The containers by name: the specification names all of them, the status has their IDs.
fn containers(spec: &Spec, status: &Status) -> Vec<ContainerInfo> {
    let mut found: Vec<ContainerInfo> = Vec::new();
    for (containers, init) in [(&spec.init_containers, true), (&spec.containers, false)] {
        found.extend(containers.iter().flatten().map(|container| ContainerInfo {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            init,
            ids: Vec::new(),
        }));
    }
    for (statuses, init) in [
        (&status.init_container_statuses, true),
        (&status.container_statuses, false),
        (&status.ephemeral_container_statuses, false),
    ] {
        for status in statuses.iter().flatten() {
            let states = [&status.state, &status.last_state].into_iter().flatten();
            let ended = states.filter_map(|state| state.terminated.as_ref()?.container_id.as_ref());
            let ids = status.container_id.iter().chain(ended).map(|id| {
                // containerd://ID
                id.split_once("://")
                    .map_or(id.as_str(), |(_, id)| id)
                    .to_owned()
            });
            let mut ids: Vec<String> = ids.filter(|id| !id.is_empty()).collect();
            ids.dedup();
            match found.iter_mut().find(|found| found.name == status.name) {
                Some(known) => known.ids = ids,
                None => found.push(ContainerInfo {
                    name: status.name.clone(),
                    image: status.image.clone().unwrap_or_default(),
                    init,
                    ids,
                }),
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_the_labels_of_prometheus() {
        let object: Object = serde_json::from_str(
            r#"{"kind":"Pod","metadata":{"name":"web-7d4b9","namespace":"shop","uid":"u-1","resourceVersion":"12",
            "labels":{"app.kubernetes.io/name":"web","empty":""},"annotations":{"note":"n","kubernetes.io/config.hash":"h"},
            "ownerReferences":[{"kind":"Node","name":"x"},{"kind":"ReplicaSet","name":"web-7d","controller":true}],
            "managedFields":[{"unknown":[1,2,{"a":null}]}]},
            "spec":{"nodeName":"n1","initContainers":[{"name":"setup","image":"busybox:1"}],
            "containers":[{"name":"web","image":"nginx:1.27"},{"name":"side"}]},
            "status":{"phase":"Running","podIP":"10.0.0.7","hostIP":"192.0.2.1",
            "conditions":[{"type":"Ready","status":"True"}],
            "containerStatuses":[{"name":"web","image":"docker.io/nginx","containerID":"containerd://aa",
              "lastState":{"terminated":{"containerID":"containerd://bb"}}}],
            "ephemeralContainerStatuses":[{"name":"debug","image":"sh","containerID":"cc"}]}}"#,
        )
        .unwrap();
        assert_eq!(object.metadata.resource_version, "12");
        let pod = object.into_pod();
        let get = |name: &str| {
            let name = format!("__meta_kubernetes_{name}");
            let found = pod.labels.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.as_str())
        };
        for (name, value) in [
            ("namespace", Some("shop")),
            ("pod_name", Some("web-7d4b9")),
            ("pod_uid", Some("u-1")),
            ("pod_ip", Some("10.0.0.7")),
            ("pod_host_ip", Some("192.0.2.1")),
            ("pod_phase", Some("Running")),
            ("pod_ready", Some("true")),
            ("pod_node_name", Some("n1")),
            ("pod_controller_kind", Some("ReplicaSet")),
            ("pod_controller_name", Some("web-7d")),
            ("pod_label_app_kubernetes_io_name", Some("web")),
            ("pod_labelpresent_app_kubernetes_io_name", Some("true")),
            ("pod_label_empty", None),
            ("pod_labelpresent_empty", Some("true")),
            ("pod_annotation_note", Some("n")),
            ("pod_annotationpresent_note", Some("true")),
        ] {
            assert_eq!(get(name), value, "{name}");
        }
        let containers: Vec<_> = pod
            .containers
            .iter()
            .map(|one| {
                (
                    one.name.as_str(),
                    one.image.as_str(),
                    one.init,
                    one.ids.join(" "),
                )
            })
            .collect();
        assert_eq!(
            containers,
            [
                ("setup", "busybox:1", true, String::new()),
                ("web", "nginx:1.27", false, "aa bb".to_owned()),
                ("side", "", false, String::new()),
                ("debug", "sh", false, "cc".to_owned()),
            ]
        );
        assert_eq!(pod.config_hash.as_deref(), Some("h"));
    }

    #[test]
    fn what_is_missing_or_null_is_absent() {
        let object: Object = serde_json::from_str(
            r#"{"metadata":{"name":"x","labels":null},"spec":null,"status":{"conditions":null}}"#,
        )
        .unwrap();
        let pod = object.into_pod();
        assert!(pod.containers.is_empty());
        let ready = (
            "__meta_kubernetes_pod_ready".to_owned(),
            "unknown".to_owned(),
        );
        assert!(pod.labels.contains(&ready));
        let node: Object = serde_json::from_str(
            r#"{"metadata":{"name":"n1","labels":{"topology.kubernetes.io/zone":"eu-1"}}}"#,
        )
        .unwrap();
        let zone = "__meta_kubernetes_node_label_topology_kubernetes_io_zone";
        assert!(
            node.into_node()
                .contains(&(zone.to_owned(), "eu-1".to_owned()))
        );
    }
}
