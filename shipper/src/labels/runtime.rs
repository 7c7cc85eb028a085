//! Containers as a container runtime names them, asked over its socket, only where the operator configured one. The
//! runtime's events tell of containers that end before anybody could ask.

mod docker;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

/// A container as its runtime names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeContainer {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it was made of.
    pub image: String,
    /// The runtime's labels.
    pub labels: Vec<(String, String)>,
    /// Its pod's name; empty outside of Kubernetes.
    pub pod_name: String,
    /// Its pod's namespace.
    pub pod_namespace: String,
}

impl RuntimeContainer {
    /// A container with Docker's labels, of which the kubelet's name the pod.
    fn docker(
        id: String,
        name: &str,
        image: String,
        labels: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let labels: Vec<(String, String)> = labels
            .filter(|(_, value)| value.len() <= MAX_VALUE)
            .take(MAX_LABELS)
            .collect();
        let kubernetes = |name: &str| {
            let name = format!("io.kubernetes.{name}");
            let found = labels.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let container_name = kubernetes("container.name");
        Self {
            id,
            name: match container_name.as_str() {
                "" => name.trim_start_matches('/').to_owned(),
                _ => container_name.clone(),
            },
            image,
            pod_name: kubernetes("pod.name"),
            pod_namespace: kubernetes("pod.namespace"),
            labels,
        }
    }

    /// Its labels for relabelling.
    pub(super) fn labels(&self) -> Vec<(String, String)> {
        let mut labels = vec![
            ("__meta_docker_container_name".to_owned(), self.name.clone()),
            (
                "__meta_docker_container_image".to_owned(),
                self.image.clone(),
            ),
        ];
        labels.extend(self.labels.iter().map(|(name, value)| {
            let name = format!("__meta_docker_container_label_{}", sanitized(name));
            (name, value.clone())
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

    /// The container of that ID.
    pub(super) fn find(&self, id: &str) -> Option<Arc<RuntimeContainer>> {
        self.locked().known.get(id).cloned()
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
        let listed = docker::list(socket, containers);
        let result = listed.and_then(|()| {
            pause = FIRST_PAUSE;
            if std::mem::take(&mut is_failing) {
                log::info!("{} names its containers again", socket.display());
            }
            docker::follow(socket, containers)
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
        let found = RuntimeContainer::docker(
            "a".to_owned(),
            "/k8s_web_web-1_shop",
            "i".to_owned(),
            labels.into_iter(),
        );
        assert_eq!(
            (found.name.as_str(), found.pod_name.as_str()),
            ("web", "web-1")
        );
        assert!(
            found
                .labels()
                .iter()
                .all(|(name, _)| !name.ends_with("long"))
        );
        let plain =
            RuntimeContainer::docker("a".to_owned(), "/db", "i".to_owned(), std::iter::empty());
        assert_eq!(plain.name, "db");
    }

    #[test]
    fn the_first_told_make_room() {
        let containers = Containers::default();
        for index in 0..MAX_KNOWN * 2 {
            containers.insert(RuntimeContainer {
                id: index.to_string(),
                ..RuntimeContainer::default()
            });
        }
        assert_eq!(containers.len(), MAX_KNOWN);
        assert!(containers.find("0").is_none());
    }
}
