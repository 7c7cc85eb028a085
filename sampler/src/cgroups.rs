//! Cgroups that were made while the sampler runs, so that a sample's cgroup has a path although both may be gone when
//! somebody asks. Bounded in number and bytes: the oldest go first. Older cgroups are for others to look up.

use std::collections::{BTreeSet, HashMap, VecDeque};

use ipc_proto::codec::Bytes;
use ipc_proto::limits::{MAX_CGROUPS, MAX_PATH};
use ipc_proto::sample::CgroupPath;

/// Cgroups remembered.
const MAX_KNOWN: usize = 16 * 1024;
/// Bytes of their paths.
const MAX_BYTES: usize = 1 << 20;

/// The cgroups known, and those that the current window's samples are of.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    /// Whether records and samples number cgroups of the same tree.
    in_one_tree: bool,
    paths: HashMap<u64, Vec<u8>>,
    /// In the order they were made.
    order: VecDeque<u64>,
    bytes: usize,
    sampled: BTreeSet<u64>,
}

impl Cgroups {
    /// Knows none. Records tell of the tree that the `perf_event` controller is in, samples of cgroup2: where a cgroup1
    /// tree holds the controller (`in_one_tree` is false), equal numbers mean different cgroups and nothing is learned.
    pub(crate) fn new(in_one_tree: bool) -> Self {
        Self {
            in_one_tree,
            ..Self::default()
        }
    }

    /// A cgroup was made.
    pub(crate) fn learn(&mut self, id: u64, path: Vec<u8>) {
        if !self.in_one_tree || path.len() > MAX_PATH {
            return;
        }
        self.bytes += path.len();
        match self.paths.insert(id, path) {
            Some(old) => self.bytes -= old.len(),
            None => self.order.push_back(id),
        }
        while self.paths.len() > MAX_KNOWN || self.bytes > MAX_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(path) = self.paths.remove(&oldest) {
                self.bytes -= path.len();
            }
        }
    }

    /// A sample of the current window is of that cgroup.
    pub(crate) fn note(&mut self, id: u64) {
        if self.paths.contains_key(&id) && self.sampled.len() < MAX_CGROUPS {
            self.sampled.insert(id);
        }
    }

    /// The known ones of the window that ends.
    pub(crate) fn take_sampled(&mut self) -> Vec<CgroupPath> {
        let sampled = std::mem::take(&mut self.sampled).into_iter();
        sampled
            .filter_map(|id| {
                let path = Bytes(self.paths.get(&id)?.clone());
                Some(CgroupPath { id, path })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(cgroups: &mut Cgroups) -> Vec<(u64, Vec<u8>)> {
        let taken = cgroups.take_sampled().into_iter();
        taken.map(|cgroup| (cgroup.id, cgroup.path.0)).collect()
    }

    #[test]
    fn each_window_names_the_cgroups_of_its_own_samples() {
        let mut cgroups = Cgroups::new(true);
        cgroups.learn(7, b"/a".to_vec());
        cgroups.learn(8, b"/b".to_vec());
        for id in [7, 7, 9] {
            cgroups.note(id);
        }
        assert_eq!(taken(&mut cgroups), [(7, b"/a".to_vec())]);
        assert_eq!(taken(&mut cgroups), []);
        cgroups.note(8);
        assert_eq!(taken(&mut cgroups), [(8, b"/b".to_vec())]);
    }

    #[test]
    fn numbers_of_another_tree_teach_nothing() {
        let mut cgroups = Cgroups::new(false);
        cgroups.learn(7, b"/a".to_vec());
        cgroups.note(7);
        assert_eq!(taken(&mut cgroups), []);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut cgroups = Cgroups::new(true);
        for id in 0..1_000_000 {
            cgroups.learn(id, vec![b'x'; 100]);
            assert!(cgroups.bytes <= MAX_BYTES && cgroups.paths.len() <= MAX_KNOWN);
        }
        assert_eq!(cgroups.order.len(), cgroups.paths.len());
        for id in [0, 999_999] {
            cgroups.note(id);
        }
        let ids: Vec<u64> = taken(&mut cgroups).iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [999_999]);
        cgroups.learn(5, vec![b'x'; MAX_PATH + 1]);
        assert!(!cgroups.paths.contains_key(&5));
    }
}
