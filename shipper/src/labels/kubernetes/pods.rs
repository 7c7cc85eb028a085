//! The pods known: by UID and by container. Bounded in number and bytes; deleted pods stay for some windows and go first
//! when there is no room.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::object::{ContainerInfo, Pod};

/// How long a deleted pod is remembered: its last samples come with the window after, or later when a process hangs.
const AFTERLIFE: Duration = Duration::from_secs(300);
/// Pods known. A node has 110 by default and some hundred at most; deleted ones come on top.
const MAX_PODS: usize = 8192;
/// Bytes of all pods' texts.
const MAX_BYTES: usize = 32 << 20;

/// A pod and, where it is known, which of its containers.
#[derive(Clone, Debug)]
pub(in crate::labels) struct PodContainer {
    pub(in crate::labels) pod: Arc<Pod>,
    pub(in crate::labels) container: Option<ContainerInfo>,
}

/// The pods.
#[derive(Debug, Default)]
pub(super) struct Store {
    pods: HashMap<String, Arc<Pod>>,
    /// UIDs by container ID and by configuration hash.
    aliases: HashMap<String, String>,
    deleted: VecDeque<(Instant, String)>,
    gone: HashSet<String>,
    bytes: usize,
    is_synced: bool,
    /// The node's labels.
    pub(super) node: Option<Arc<Vec<(String, String)>>>,
    /// Lists and watches that failed.
    pub(super) errors: u64,
}

fn bytes(pod: &Pod) -> usize {
    let labels = pod
        .labels
        .iter()
        .map(|(name, value)| name.len() + value.len() + 64);
    let containers = pod
        .containers
        .iter()
        .map(|one| 128 + one.name.len() + one.image.len() + one.ids.len() * 160);
    512 + labels.sum::<usize>() + containers.sum::<usize>()
}

impl Store {
    /// A pod is there, or changed.
    pub(super) fn apply(&mut self, mut pod: Pod, now: Instant) {
        if pod.uid.is_empty() {
            return;
        }
        // Runs of its containers that the status names no more.
        if let Some(old) = self.pods.get(&pod.uid) {
            for container in &mut pod.containers {
                let before = old.containers.iter().find(|old| old.name == container.name);
                for id in before.iter().flat_map(|before| &before.ids).take(4) {
                    if !container.ids.contains(id) {
                        container.ids.push(id.clone());
                    }
                }
            }
        }
        self.remove(&pod.uid);
        self.bytes += bytes(&pod);
        let ids = pod.containers.iter().flat_map(|container| &container.ids);
        for alias in ids.chain(&pod.config_hash) {
            self.aliases.insert(alias.clone(), pod.uid.clone());
        }
        self.pods.insert(pod.uid.clone(), Arc::new(pod));
        self.shrink(now);
    }

    /// A pod was deleted.
    pub(super) fn delete(&mut self, uid: &str, now: Instant) {
        if self.pods.contains_key(uid) && self.gone.insert(uid.to_owned()) {
            self.deleted.push_back((now, uid.to_owned()));
        }
        self.shrink(now);
    }

    /// All pods were listed: those not among `listed` were deleted meanwhile.
    pub(super) fn listed(&mut self, listed: &HashSet<String>, now: Instant) {
        let missing: Vec<String> = self
            .pods
            .keys()
            .filter(|uid| !listed.contains(*uid))
            .cloned()
            .collect();
        for uid in missing {
            self.delete(&uid, now);
        }
        self.is_synced = true;
    }

    fn remove(&mut self, uid: &str) {
        self.gone.remove(uid);
        let Some(pod) = self.pods.remove(uid) else {
            return;
        };
        self.bytes -= bytes(&pod);
        let ids = pod.containers.iter().flat_map(|container| &container.ids);
        for alias in ids.chain(&pod.config_hash) {
            if self.aliases.get(alias).is_some_and(|owner| owner == uid) {
                self.aliases.remove(alias);
            }
        }
    }

    fn shrink(&mut self, now: Instant) {
        while let Some((since, uid)) = self.deleted.front() {
            let is_full = self.pods.len() > MAX_PODS || self.bytes > MAX_BYTES;
            // A pod that came back is deleted no more.
            if self.gone.contains(uid) {
                if !is_full && now.duration_since(*since) < AFTERLIFE {
                    return;
                }
                let uid = uid.clone();
                self.remove(&uid);
            }
            self.deleted.pop_front();
        }
        while self.pods.len() > MAX_PODS || self.bytes > MAX_BYTES {
            let Some(uid) = self.pods.keys().next().cloned() else {
                return;
            };
            self.remove(&uid);
            self.errors += 1;
        }
    }

    /// The pod of a cgroup.
    pub(super) fn find(&self, uid: Option<&str>, container: Option<&str>) -> Option<PodContainer> {
        let by_alias = |alias: &str| self.pods.get(self.aliases.get(alias)?);
        let pod = uid
            .and_then(|uid| {
                self.pods
                    .get(uid)
                    // Cgroups have a static pod's hash without dashes, and so has the annotation.
                    .or_else(|| by_alias(uid))
            })
            .or_else(|| container.and_then(by_alias))?;
        let found = container.and_then(|id| {
            let mut containers = pod.containers.iter();
            containers.find(|one| one.ids.iter().any(|known| known == id))
        });
        let found = found.or_else(|| only_container(pod)).cloned();
        Some(PodContainer {
            pod: Arc::clone(pod),
            container: found.filter(|_| container.is_some()),
        })
    }

    /// Whether all pods were listed once.
    pub(super) fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Number of pods.
    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }
}

/// The one container of a pod whose status names no container's ID yet.
fn only_container(pod: &Pod) -> Option<&ContainerInfo> {
    match &pod.containers[..] {
        [only] if only.ids.is_empty() => Some(only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, ids: &[&str]) -> Pod {
        Pod {
            uid: uid.to_owned(),
            name: format!("pod-{uid}"),
            containers: vec![ContainerInfo {
                name: "main".to_owned(),
                image: "i".to_owned(),
                init: false,
                ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            }],
            ..Pod::default()
        }
    }

    fn name(store: &Store, uid: Option<&str>, container: Option<&str>) -> Option<(String, bool)> {
        let found = store.find(uid, container)?;
        Some((found.pod.name.clone(), found.container.is_some()))
    }

    #[test]
    fn a_deleted_pod_is_known_for_some_windows() {
        let mut store = Store::default();
        let start = Instant::now();
        store.apply(pod("a", &["1"]), start);
        store.delete("a", start);
        store.apply(pod("b", &[]), start + AFTERLIFE / 2);
        assert_eq!(
            name(&store, Some("a"), Some("1")),
            Some(("pod-a".to_owned(), true))
        );
        store.apply(pod("b", &[]), start + AFTERLIFE);
        assert_eq!(name(&store, Some("a"), Some("1")), None);
        assert!(store.aliases.is_empty() && store.deleted.is_empty());
        // Listed again after it was held to be gone.
        store.apply(pod("c", &["2"]), start);
        store.delete("c", start);
        store.apply(pod("c", &["2"]), start);
        store.apply(pod("b", &[]), start + AFTERLIFE * 2);
        assert!(name(&store, Some("c"), None).is_some());
    }

    #[test]
    fn containers_are_found_by_id_also_those_of_former_runs() {
        let mut store = Store::default();
        let now = Instant::now();
        store.apply(pod("a", &[]), now);
        // The kubelet has not said an ID yet: there is only one it can be.
        assert_eq!(
            name(&store, Some("a"), Some("1")),
            Some(("pod-a".to_owned(), true))
        );
        store.apply(pod("a", &["1"]), now);
        store.apply(pod("a", &["2"]), now);
        for id in ["1", "2"] {
            assert_eq!(
                name(&store, None, Some(id)),
                Some(("pod-a".to_owned(), true)),
                "{id}"
            );
        }
        // The pause container has an ID that is nowhere told.
        assert_eq!(
            name(&store, Some("a"), Some("3")),
            Some(("pod-a".to_owned(), false))
        );
        assert_eq!(
            name(&store, Some("a"), None),
            Some(("pod-a".to_owned(), false))
        );
        assert_eq!(name(&store, None, Some("3")), None);
    }

    #[test]
    fn a_static_pod_is_found_by_its_configuration() {
        let mut store = Store::default();
        let mut mirror = pod("mirror-uid", &["1"]);
        mirror.config_hash = Some("0123456789abcdef0123456789abcdef".to_owned());
        store.apply(mirror, Instant::now());
        let found = name(&store, Some("0123456789abcdef0123456789abcdef"), Some("1"));
        assert_eq!(found, Some(("pod-mirror-uid".to_owned(), true)));
    }

    #[test]
    fn a_list_tells_who_is_gone() {
        let mut store = Store::default();
        let now = Instant::now();
        for uid in ["a", "b"] {
            store.apply(pod(uid, &[]), now);
        }
        store.listed(&HashSet::from(["b".to_owned()]), now);
        assert!(store.is_synced());
        assert_eq!(store.len(), 2, "kept for its last samples");
        store.apply(pod("b", &[]), now + AFTERLIFE);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_deleted_pods_go_first() {
        let mut store = Store::default();
        let now = Instant::now();
        for index in 0..MAX_PODS {
            store.apply(pod(&format!("live-{index}"), &["x"]), now);
        }
        for index in 0..100 {
            let uid = format!("dead-{index}");
            store.apply(pod(&uid, &[]), now);
            store.delete(&uid, now);
        }
        assert!(store.len() <= MAX_PODS);
        let mut large = pod("large", &[]);
        large.labels = vec![("a".to_owned(), "x".repeat(MAX_BYTES / 2)); 3];
        store.apply(large, now);
        assert!(store.bytes <= MAX_BYTES);
    }
}
