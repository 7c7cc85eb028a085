//! Pods of this node, as the Kubernetes API's watch tells them: one watch of pods limited to this node, one of the node
//! itself. What was deleted is kept for some windows, so a pod that is born and dies between two looks is known.

mod client;
mod object;
mod pods;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use client::{Access, AccessError};
pub(super) use pods::PodContainer;

use pods::Store;
use watch::Watch;

/// What the watches know, shared with who asks.
#[derive(Debug, Default)]
pub struct Pods {
    store: Mutex<Store>,
}

impl Pods {
    /// Starts following the API. Nothing is opened before this returns.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn follow(access: Access) -> std::io::Result<Arc<Self>> {
        let pods = Arc::new(Self::default());
        let access = Arc::new(access);
        for (name, watch) in [
            ("kubernetes-pods", Watch::pods(&access.node)),
            ("kubernetes-node", Watch::node(&access.node)),
        ] {
            let (pods, access) = (Arc::clone(&pods), Arc::clone(&access));
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || watch::run(&watch, &access, &pods))?;
        }
        Ok(pods)
    }

    fn locked(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod of that UID or with that container.
    pub(super) fn find(&self, uid: Option<&str>, container: Option<&str>) -> Option<PodContainer> {
        if uid.is_none() && container.is_none() {
            return None;
        }
        self.locked().find(uid, container)
    }

    /// The node's labels.
    pub(super) fn node(&self) -> Option<Arc<Vec<(String, String)>>> {
        self.locked().node.clone()
    }

    /// Whether all pods were listed once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.locked().is_synced()
    }

    /// Pods known, deleted ones that are kept included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.locked().len()
    }

    /// Whether no pod is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lists and watches that failed.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.locked().errors
    }
}
