//! Containers as a container runtime names them, asked over its socket, only where the operator configured one. The
//! runtime's events tell of containers that end before anybody could ask.

mod containerd;
mod docker;
mod generated;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

use self::containerd::ContainerdError;
use self::docker::DockerError;
use super::cgroup_path::Engine;
use super::meta::sanitized;

/// Containers remembered; beyond it those told of first are forgotten.
const MAX_KNOWN: usize = 8192;
/// Bytes of a label's value.
const MAX_VALUE: usize = 4096;
/// Labels of one container.
const MAX_LABELS: usize = 128;
/// First and longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a list may take, and how long no event may come before all containers are listed again.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(300);

/// Why a runtime named nothing.
#[derive(Debug, Error)]
enum RuntimeError {
    #[error("{0}")]
    Docker(#[from] DockerError),
    #[error("{0}")]
    Containerd(#[from] ContainerdError),
}

/// What a runtime itself says of a container, beside its labels.
#[derive(Debug, Default)]
struct Named {
    id: String,
    name: String,
    image: String,
    /// containerd's; empty for Docker.
    namespace: String,
}

/// A container as its runtime names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeContainer {
    /// Whose it is: Docker's API or containerd's.
    engine: Engine,
    /// Its ID.
    id: String,
    /// containerd's namespace, in which the ID is unique; empty for Docker.
    namespace: String,
    /// Its name.
    pub(super) name: String,
    /// What it was made of.
    image: String,
    /// The runtime's labels.
    labels: Vec<(String, String)>,
    /// Its pod's name; empty outside of Kubernetes.
    pub(super) pod_name: String,
    /// Its pod's namespace.
    pub(super) pod_namespace: String,
}

impl RuntimeContainer {
    /// The kubelet's labels name container and pod, nerdctl's the container.
    fn new(engine: Engine, named: Named, labels: impl Iterator<Item = (String, String)>) -> Self {
        let mut labels: Vec<(String, String)> = labels
            .filter(|(_, value)| value.len() <= MAX_VALUE)
            .take(MAX_LABELS)
            .collect();
        labels.sort();
        let label = |name: &str| {
            let found = labels.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let own = named.name.trim_start_matches('/').to_owned();
        let names = [
            label("io.kubernetes.container.name"),
            label("nerdctl/name"),
            own,
        ];
        Self {
            engine,
            id: named.id,
            namespace: named.namespace,
            name: names
                .into_iter()
                .find(|name| !name.is_empty())
                .unwrap_or_default(),
            image: named.image,
            pod_name: label("io.kubernetes.pod.name"),
            pod_namespace: label("io.kubernetes.pod.namespace"),
            labels,
        }
    }

    /// Its labels for relabelling.
    pub(super) fn labels(&self) -> Vec<(String, String)> {
        let engine = self.engine.name();
        let own = |name: &str| format!("__meta_{engine}_{name}");
        let mut labels = vec![
            (own("container_name"), self.name.clone()),
            (own("container_image"), self.image.clone()),
        ];
        if self.engine == Engine::Containerd {
            labels.push((own("namespace"), self.namespace.clone()));
            labels.push((own("pod_name"), self.pod_name.clone()));
        }
        labels.extend(self.labels.iter().map(|(name, value)| {
            let name = format!("container_label_{}", sanitized(name));
            (own(&name), value.clone())
        }));
        labels
    }
}

#[derive(Debug, Default)]
struct Store {
    known: HashMap<String, Arc<RuntimeContainer>>,
    order: VecDeque<String>,
    errors: u64,
}

/// The containers, shared with who asks.
#[derive(Debug, Default)]
pub struct Containers {
    store: Mutex<Store>,
}

impl Containers {
    /// Starts following the runtime behind a socket.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn follow(socket: PathBuf) -> std::io::Result<Arc<Self>> {
        let containers = Arc::new(Self::default());
        let shared = Arc::clone(&containers);
        std::thread::Builder::new()
            .name("container-runtime".to_owned())
            .spawn(move || run(&socket, &shared))?;
        Ok(containers)
    }

    fn locked(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, container: RuntimeContainer) {
        if container.id.is_empty() {
            return;
        }
        let mut store = self.locked();
        let id = container.id.clone();
        if store
            .known
            .insert(id.clone(), Arc::new(container))
            .is_none()
        {
            store.order.push_back(id);
        }
        while store.known.len() > MAX_KNOWN
            && let Some(oldest) = store.order.pop_front()
        {
            store.known.remove(&oldest);
        }
    }

    /// The container of that ID, in the namespace that its cgroup names, if it does.
    pub(super) fn find(&self, id: &str, namespace: Option<&str>) -> Option<Arc<RuntimeContainer>> {
        let found = self.locked().known.get(id).cloned()?;
        let is_elsewhere = namespace
            .is_some_and(|name| found.engine == Engine::Containerd && found.namespace != name);
        (!is_elsewhere).then_some(found)
    }

    /// Containers known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.locked().known.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections and requests that failed.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.locked().errors
    }
}

/// Follows the runtime until the process ends.
fn run(socket: &Path, containers: &Containers) {
    let mut pause = FIRST_PAUSE;
    let mut is_failing = false;
    loop {
        let result = follow_once(socket, containers, &mut || {
            pause = FIRST_PAUSE;
            if std::mem::take(&mut is_failing) {
                log::info!("{} names its containers again", socket.display());
            }
        });
        if let Err(error) = result {
            containers.locked().errors += 1;
            if !std::mem::replace(&mut is_failing, true) {
                log::warn!(
                    "the container runtime at {} names no containers: {error}; asked again until it does",
                    socket.display()
                );
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Follows the runtime over one connection, by Docker's API or, where nobody speaks that, by containerd's.
fn follow_once(
    socket: &Path,
    containers: &Containers,
    named: &mut dyn FnMut(),
) -> Result<(), RuntimeError> {
    match docker::follow(socket, containers, named) {
        Err(error) if error.is_other_language() => {
            Ok(containerd::follow(socket, containers, named)?)
        }
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_names_pods_by_labels() {
        let labels = [
            ("io.kubernetes.container.name", "web"),
            ("io.kubernetes.pod.name", "web-1"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("long", &*"x".repeat(MAX_VALUE + 1)),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let named = |name: &str| Named {
            id: "a".to_owned(),
            name: name.to_owned(),
            ..Named::default()
        };
        let found = RuntimeContainer::new(
            Engine::Docker,
            named("/k8s_web_web-1_shop"),
            labels.clone().into_iter(),
        );
        assert_eq!(
            (found.name.as_str(), found.pod_name.as_str()),
            ("web", "web-1")
        );
        assert!(found.labels().iter().all(
            |(name, _)| name.starts_with("__meta_docker_container_") && !name.ends_with("long")
        ));
        let plain = RuntimeContainer::new(Engine::Docker, named("/db"), std::iter::empty());
        assert_eq!(plain.name, "db");
        let found = RuntimeContainer::new(Engine::Containerd, named(""), labels.into_iter());
        let pod = ("__meta_containerd_pod_name".to_owned(), "web-1".to_owned());
        assert!(found.labels().contains(&pod));
    }

    #[test]
    fn nerdctl_names_by_a_label_and_ids_are_of_a_namespace() {
        let containers = Containers::default();
        let label = ("nerdctl/name".to_owned(), "cache".to_owned());
        containers.insert(RuntimeContainer::new(
            Engine::Containerd,
            Named {
                id: "a".to_owned(),
                namespace: "default".to_owned(),
                ..Named::default()
            },
            [label].into_iter(),
        ));
        for namespace in [None, Some("default")] {
            let found = containers.find("a", namespace).unwrap();
            assert_eq!(found.name, "cache");
        }
        assert!(containers.find("a", Some("other")).is_none());
    }

    #[test]
    fn the_first_told_make_room() {
        let containers = Containers::default();
        for index in 0..MAX_KNOWN * 2 {
            let named = Named {
                id: index.to_string(),
                ..Named::default()
            };
            containers.insert(RuntimeContainer::new(
                Engine::Docker,
                named,
                std::iter::empty(),
            ));
        }
        assert_eq!(containers.len(), MAX_KNOWN);
        assert!(containers.find("0", None).is_none());
    }
}
