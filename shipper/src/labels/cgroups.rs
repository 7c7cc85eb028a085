//! From a cgroup's number to its path and what that says. Paths come from the kernel's records of new cgroups, which the
//! sampler hands on, and for older cgroups from a walk of the cgroup2 tree, which anybody may read. Bounded in number,
//! and each walk in directories.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cgroup_path::{self, Place};

/// Cgroups remembered; beyond it those that no sample was of for longest are forgotten.
const MAX_KNOWN: usize = 16 * 1024;
/// Directories of one walk.
const MAX_WALKED: usize = 64 * 1024;
/// Levels of the tree that are walked.
const MAX_DEPTH: usize = 32;
/// Time between two walks, nanoseconds: what was not found in one is not looked for again before.
const WALK_INTERVAL: u64 = 1_000_000_000;

/// One cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// From the tree's root.
    pub(crate) path: String,
    /// What it says.
    pub(crate) place: Place,
}

impl Cgroup {
    pub(crate) fn new(path: String) -> Self {
        let place = cgroup_path::parse(&path);
        Self { path, place }
    }
}

/// All cgroups known.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    tree: Option<Tree>,
    known: HashMap<u64, (Arc<Cgroup>, u64)>,
    clock: u64,
    last_walk: Option<u64>,
    /// Walks so far.
    pub(crate) walks: u64,
}

/// Where the cgroup2 tree is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The directory.
    pub directory: PathBuf,
    /// Which cgroup that is.
    pub root: String,
}

impl Tree {
    /// The first mount of cgroup2, from the text of `/proc/self/mountinfo`.
    #[must_use]
    pub fn of_mounts(mountinfo: &str) -> Option<Self> {
        mountinfo.lines().find_map(|line| {
            // number, parent, device, root, mount point, options, optional fields, "-", type, ...
            let (fields, kind) = line.split_once(" - ")?;
            if kind.split(' ').next() != Some("cgroup2") {
                return None;
            }
            let mut fields = fields.split(' ').skip(3);
            let root = fields.next()?.trim_end_matches('/').to_owned();
            let directory = PathBuf::from(fields.next()?);
            Some(Self { directory, root })
        })
    }
}

impl Cgroups {
    /// Knows none yet; without a tree only those that are told.
    pub(crate) fn new(tree: Option<Tree>) -> Self {
        Self {
            tree,
            ..Self::default()
        }
    }

    /// A path that the kernel told when the cgroup was made.
    pub(crate) fn learn(&mut self, id: u64, path: &str) {
        self.insert(id, path.to_owned());
        self.shrink();
    }

    fn insert(&mut self, id: u64, path: String) {
        self.clock += 1;
        let clock = self.clock;
        let known = self.known.entry(id);
        let (_, used) = known.or_insert_with(|| (Arc::new(Cgroup::new(path)), clock));
        *used = clock;
    }

    /// The cgroup of that number; `now`: CLOCK_MONOTONIC nanoseconds.
    pub(crate) fn find(&mut self, id: u64, now: u64) -> Option<Arc<Cgroup>> {
        if id == 0 {
            return None;
        }
        if !self.known.contains_key(&id) {
            let due = self
                .last_walk
                .is_none_or(|last| now.saturating_sub(last) >= WALK_INTERVAL);
            if due {
                self.last_walk = Some(now);
                self.walk();
            }
        }
        self.clock += 1;
        let (cgroup, used) = self.known.get_mut(&id)?;
        *used = self.clock;
        Some(Arc::clone(cgroup))
    }

    /// Looks at all cgroups that are there now.
    fn walk(&mut self) {
        let Some(Tree { directory, root }) = self.tree.clone() else {
            return;
        };
        self.walks += 1;
        if let Ok(status) = fs::metadata(&directory) {
            let own = if root.is_empty() { "/" } else { &root };
            let id = std::os::unix::fs::MetadataExt::ino(&status);
            self.insert(id, own.to_owned());
        }
        let mut left = MAX_WALKED;
        let mut found = Vec::new();
        list(&directory, &root, MAX_DEPTH, &mut left, &mut found);
        for (id, path) in found {
            self.insert(id, path);
        }
        self.shrink();
    }

    /// Forgets an eighth at once: finding the oldest takes a look at all.
    fn shrink(&mut self) {
        if self.known.len() <= MAX_KNOWN {
            return;
        }
        let mut by_age: Vec<(u64, u64)> = self
            .known
            .iter()
            .map(|(id, (_, used))| (*used, *id))
            .collect();
        by_age.sort_unstable();
        let surplus = self.known.len() - MAX_KNOWN / 8 * 7;
        for (_, id) in by_age.into_iter().take(surplus) {
            self.known.remove(&id);
        }
    }

    /// Number of cgroups known.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

/// Appends the cgroups below a directory.
fn list(
    directory: &Path,
    path: &str,
    depth: usize,
    left: &mut usize,
    found: &mut Vec<(u64, String)>,
) {
    // A cgroup that goes meanwhile is not listed.
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if *left == 0 {
            return;
        }
        *left -= 1;
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        if depth > 0 {
            list(&entry.path(), &path, depth - 1, left, found);
        }
        found.push((entry.ino(), path));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_mount_is_found_in_pure_and_hybrid_layouts() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
            31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n\
            32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let tree = Tree::of_mounts(hybrid).unwrap();
        assert_eq!(tree.directory, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(tree.root, "");
        let part = "35 30 0:29 /kubepods/x /sys/fs/cgroup rw shared:9 - cgroup2 cgroup rw\n";
        assert_eq!(Tree::of_mounts(part).unwrap().root, "/kubepods/x");
        assert_eq!(
            Tree::of_mounts("32 30 0:28 / /c rw - cgroup cgroup rw,cpu\n"),
            None
        );
    }

    #[test]
    fn cgroups_are_found_by_number_told_or_walked() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("system.slice/a.service");
        fs::create_dir_all(&deep).unwrap();
        let mut cgroups = Cgroups::new(Some(Tree {
            directory: directory.path().to_owned(),
            root: String::new(),
        }));
        let number = |path: &Path| fs::metadata(path).unwrap().ino();
        cgroups.learn(1 << 50, "/gone/b.service");
        assert_eq!(cgroups.find(1 << 50, 0).unwrap().path, "/gone/b.service");
        assert_eq!(cgroups.walks, 0);
        let found = cgroups.find(number(&deep), 0).unwrap();
        assert_eq!(found.path, "/system.slice/a.service");
        assert_eq!(found.place.unit.as_deref(), Some("a.service"));
        assert_eq!(cgroups.find(number(directory.path()), 0).unwrap().path, "/");
        // Made since the last walk: found with the next one, which is not due at once.
        let young = directory.path().join("young.scope");
        fs::create_dir(&young).unwrap();
        assert!(cgroups.find(number(&young), WALK_INTERVAL / 2).is_none());
        assert!(cgroups.find(number(&young), WALK_INTERVAL * 2).is_some());
        // Gone since: remembered.
        fs::remove_dir(&young).unwrap();
        assert!(cgroups.find(1 << 51, WALK_INTERVAL * 4).is_none());
        assert_eq!(cgroups.walks, 3);
        assert!(
            cgroups
                .known
                .values()
                .any(|(cgroup, _)| cgroup.path == "/young.scope")
        );
    }

    #[test]
    fn those_without_samples_for_longest_are_forgotten() {
        let mut cgroups = Cgroups::new(None);
        for id in 1..=MAX_KNOWN as u64 * 2 {
            cgroups.learn(id, "/x");
            assert!(cgroups.find(1, 0).is_some(), "used all the time");
        }
        assert!(cgroups.len() <= MAX_KNOWN);
        assert!(cgroups.find(2, 0).is_none());
    }
}
