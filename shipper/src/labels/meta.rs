//! The labels' names and how their values are made. One place for all `__meta_*`; docs/labels.md has the same as a table.

use std::sync::Arc;

use super::cgroup_path::{Container, Engine, Place};
use super::cgroups::Cgroup;
use super::kubernetes::PodContainer;
use super::runtime::RuntimeContainer;
use super::{Labels, Sources};

/// Characters of a container's ID that people read.
const SHORT_ID: usize = 12;

/// What is known of a process, from whomever.
#[derive(Debug, Default)]
pub(super) struct About {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) executable: Executable,
    /// Empty when it runs none that is known.
    pub(super) runtime: String,
    pub(super) runtime_version: String,
    /// Most telling first.
    pub(super) cgroups: Vec<Cgroup>,
    pub(super) user: Option<u32>,
    pub(super) command_line: Option<String>,
}

/// What is known of its executable; empty texts are unknown.
#[derive(Debug, Default)]
pub(super) struct Executable {
    pub(super) path: String,
    pub(super) build_id: String,
    pub(super) file_id: String,
    pub(super) compiler: String,
    pub(super) is_static: Option<bool>,
    pub(super) is_stripped: Option<bool>,
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A label's name made of any text, as Prometheus' service discovery makes it.
pub(crate) fn sanitized(text: &str) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || character == '_';
    text.chars()
        .map(|character| if allowed(character) { character } else { '_' })
        .collect()
}

/// Of the machine and this build.
pub(super) fn system() -> Vec<(String, String)> {
    let name = rustix::system::uname();
    let revision = option_env!("LEADSMAN_REVISION").unwrap_or(env!("CARGO_PKG_VERSION"));
    [
        (
            "__meta_system_kernel_release",
            name.release().to_string_lossy(),
        ),
        (
            "__meta_system_kernel_machine",
            name.machine().to_string_lossy(),
        ),
        ("__meta_agent_revision", revision.into()),
    ]
    .map(|(name, value)| (name.to_owned(), value.into_owned()))
    .into()
}

fn push(labels: &mut Vec<(String, String)>, name: &str, value: impl Into<String>) {
    let value = value.into();
    if !value.is_empty() {
        labels.push((name.to_owned(), value));
    }
}

impl About {
    /// The first cgroup that says something of the kind.
    fn place<T>(&self, mut of: impl FnMut(&Place) -> Option<T>) -> Option<T> {
        self.cgroups.iter().find_map(|cgroup| of(&cgroup.place))
    }

    /// The container of an engine, innermost first.
    fn container_of(&self, engine: Engine) -> Option<Container> {
        self.place(|place| {
            let mut containers = place.containers.iter().rev();
            containers
                .find(|container| container.engine == Some(engine))
                .cloned()
        })
    }

    /// The innermost container.
    pub(super) fn container(&self) -> Option<Container> {
        self.place(|place| place.containers.last().cloned())
    }

    /// The pod's container, and the pod.
    pub(super) fn pod(&self) -> (Option<String>, Option<String>) {
        let found = self.place(|place| {
            let uid = place.pod_uid.clone()?;
            let container = place
                .pod_container
                .and_then(|index| place.containers.get(index));
            Some((Some(uid), container.map(|container| container.id.clone())))
        });
        found.unwrap_or_default()
    }

    /// Appends what the process, its executable and its cgroup are.
    pub(super) fn push_labels(&self, labels: &mut Vec<(String, String)>) {
        push(labels, "__meta_process_pid", self.pid.to_string());
        if self.parent != 0 {
            push(labels, "__meta_process_ppid", self.parent.to_string());
        }
        if let Some(line) = &self.command_line {
            push(labels, "__meta_process_cmdline", line);
        }
        if let Some(cgroup) = self.cgroups.first() {
            push(labels, "__meta_process_cgroup", &cgroup.path);
        }
        if let Some(user) = self.user {
            push(labels, "__meta_user_id", user.to_string());
        }
        let executable = &self.executable;
        let name = executable.path.rsplit('/').next().unwrap_or_default();
        push(labels, "__meta_process_executable_path", &executable.path);
        push(labels, "__meta_process_executable_name", name);
        push(
            labels,
            "__meta_process_executable_file_id",
            &executable.file_id,
        );
        push(
            labels,
            "__meta_process_executable_build_id",
            &executable.build_id,
        );
        push(
            labels,
            "__meta_process_executable_compiler",
            &executable.compiler,
        );
        for (name, fact) in [
            ("__meta_process_executable_static", executable.is_static),
            ("__meta_process_executable_stripped", executable.is_stripped),
        ] {
            if let Some(fact) = fact {
                push(labels, name, fact.to_string());
            }
        }
        push(labels, "__meta_process_runtime_name", &self.runtime);
        push(
            labels,
            "__meta_process_runtime_version",
            &self.runtime_version,
        );
        for (name, value) in [
            (
                "__meta_systemd_unit",
                self.place(|place| place.unit.clone()),
            ),
            (
                "__meta_systemd_slice",
                self.place(|place| place.slice.clone()),
            ),
            (
                "__meta_systemd_user_unit",
                self.place(|place| place.user_unit.clone()),
            ),
        ] {
            if let Some(value) = value {
                push(labels, name, value);
            }
        }
        self.push_containers(labels);
    }

    fn push_containers(&self, labels: &mut Vec<(String, String)>) {
        for (engine, name) in [
            (Engine::Docker, "__meta_docker_container_id"),
            (Engine::Buildkit, "__meta_docker_build_kit_container_id"),
            (Engine::Containerd, "__meta_containerd_container_id"),
            (Engine::Lxc, "__meta_lxc_container_id"),
        ] {
            if let Some(container) = self.container_of(engine) {
                push(labels, name, container.id);
            }
        }
        if let Some(container) = self.container() {
            push(labels, "__meta_container_id", &container.id);
            if let Some(engine) = container.engine {
                push(labels, "__meta_container_engine", engine.name());
            }
        }
    }
}

/// What the sources outside of the machine's own files know.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) pod: Option<PodContainer>,
    node: Option<Arc<Vec<(String, String)>>>,
    runtime: Option<Arc<RuntimeContainer>>,
}

impl Found {
    /// Asks them; none of them waits.
    pub(super) fn of(about: &About, sources: &Sources) -> Self {
        let (uid, container) = about.pod();
        let pod = sources
            .pods
            .as_ref()
            .and_then(|pods| pods.find(uid.as_deref(), container.as_deref()));
        let runtime = sources.containers.as_ref().and_then(|containers| {
            let inner = about.container();
            let namespace = inner.as_ref().and_then(|inner| inner.namespace.clone());
            let id = container.or_else(|| inner.map(|inner| inner.id))?;
            containers.find(&id, namespace.as_deref())
        });
        Self {
            node: sources.pods.as_ref().and_then(|pods| pods.node()),
            pod,
            runtime,
        }
    }

    /// Appends their labels.
    pub(super) fn push_labels(&self, about: &About, labels: &mut Vec<(String, String)>) {
        if let Some(node) = &self.node {
            labels.extend(node.iter().cloned());
        }
        let (uid, container) = about.pod();
        match &self.pod {
            Some(found) => {
                labels.extend(found.pod.labels.iter().cloned());
                if let Some(container) = &found.container {
                    push(
                        labels,
                        "__meta_kubernetes_pod_container_name",
                        &container.name,
                    );
                    push(
                        labels,
                        "__meta_kubernetes_pod_container_image",
                        &container.image,
                    );
                    push(
                        labels,
                        "__meta_kubernetes_pod_container_init",
                        container.init.to_string(),
                    );
                }
            }
            // The cgroup's path alone says that much.
            None => push(labels, "__meta_kubernetes_pod_uid", uid.unwrap_or_default()),
        }
        push(
            labels,
            "__meta_kubernetes_pod_container_id",
            container.unwrap_or_default(),
        );
        if let Some(found) = &self.runtime {
            labels.extend(
                found
                    .labels()
                    .into_iter()
                    .filter(|(_, value)| !value.is_empty()),
            );
        } else if let Some(container) = about.container()
            && let Some(namespace) = container.namespace
        {
            push(labels, "__meta_containerd_namespace", namespace);
            // Without Kubernetes and nerdctl containerd's IDs are the names that people gave.
            push(labels, "__meta_containerd_container_name", container.id);
        }
    }

    /// The few that the local store has without any rule.
    pub(super) fn short(&self, about: &About) -> Labels {
        let mut labels = Labels::new();
        let mut add = |name: &str, value: String| {
            if !value.is_empty() {
                labels.insert(name.to_owned(), value);
            }
        };
        let runtime = self.runtime.as_deref();
        if let Some(found) = &self.pod {
            add("namespace", found.pod.namespace.clone());
            add("pod", found.pod.name.clone());
        } else if let Some(runtime) = runtime {
            add("namespace", runtime.pod_namespace.clone());
            add("pod", runtime.pod_name.clone());
        }
        let name = self
            .pod
            .as_ref()
            .and_then(|found| Some(found.container.as_ref()?.name.clone()))
            .or_else(|| runtime.map(|runtime| runtime.name.clone()))
            .filter(|name| !name.is_empty());
        let container = name.or_else(|| {
            let mut id = about.container()?.id;
            if id.len() == 64 {
                id.truncate(SHORT_ID);
            }
            Some(id)
        });
        add("container", container.unwrap_or_default());
        add(
            "systemd_unit",
            about.place(|place| place.unit.clone()).unwrap_or_default(),
        );
        labels
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_those_of_prometheus() {
        assert_eq!(
            super::sanitized("app.kubernetes.io/name-2"),
            "app_kubernetes_io_name_2"
        );
        assert_eq!(super::sanitized("\u{e9}"), "_");
        assert_eq!(super::hex(&[0xab, 1]), "ab01");
    }
}
