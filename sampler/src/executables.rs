//! The executables that processes have mapped, by identity: a number for each, and what is known of its unwind table.

use std::collections::HashMap;

use ipc_proto::ids::ExecutableId;

use crate::sideband::NewMapping;

/// The vDSO's number: its table comes unasked.
pub(crate) const VDSO: ExecutableId = ExecutableId(0);

/// What makes two mappings the same executable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// The kernel's build ID.
    BuildId(Vec<u8>),
    /// Where the kernel gave none.
    Inode { device: u64, inode: u64 },
}

impl Identity {
    /// The identity of a file mapping.
    pub(crate) fn of(mapping: &NewMapping) -> Self {
        if mapping.build_id.is_empty() {
            Self::Inode {
                device: mapping.device,
                inode: mapping.inode,
            }
        } else {
            Self::BuildId(mapping.build_id.clone())
        }
    }
}

/// Where an executable's unwind table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableState {
    /// Nobody asked for it yet.
    Unknown,
    /// Asked of the symbolizer at that time, nanoseconds.
    Asked(u64),
    /// In the kernel.
    Installed,
    /// There is none; the code is walked by frame pointer. `retry`: ask again with another process.
    Absent { retry: bool },
}

/// One executable.
#[derive(Clone, Debug)]
pub(crate) struct Executable {
    pub(crate) identity: Identity,
    pub(crate) path: Vec<u8>,
    pub(crate) table: TableState,
    /// Whether the symbolizer knows it on this link.
    pub(crate) announced: bool,
}

/// All executables, by number.
#[derive(Debug, Default)]
pub(crate) struct Executables {
    by_identity: HashMap<Identity, ExecutableId>,
    all: HashMap<ExecutableId, Executable>,
    last: u32,
}

impl Executables {
    /// The number of the executable behind a file mapping.
    pub(crate) fn identify(&mut self, mapping: &NewMapping) -> ExecutableId {
        let identity = Identity::of(mapping);
        if let Some(&id) = self.by_identity.get(&identity) {
            return id;
        }
        self.last += 1;
        let id = ExecutableId(self.last);
        self.by_identity.insert(identity.clone(), id);
        let path = mapping.path.clone();
        let executable = Executable {
            identity,
            path,
            table: TableState::Unknown,
            announced: false,
        };
        self.all.insert(id, executable);
        id
    }

    /// One executable.
    pub(crate) fn get_mut(&mut self, id: ExecutableId) -> Option<&mut Executable> {
        self.all.get_mut(&id)
    }

    /// Whether the executable's code is walked by frame pointer because it has no table.
    pub(crate) fn has_no_table(&self, id: ExecutableId) -> bool {
        matches!(
            self.all.get(&id),
            Some(Executable {
                table: TableState::Absent { .. },
                ..
            })
        )
    }

    /// Learns the build ID of an executable known by inode: later mappings that carry it are the same one.
    pub(crate) fn learn_build_id(&mut self, id: ExecutableId, build_id: &[u8]) {
        if !build_id.is_empty() && self.all.contains_key(&id) {
            self.by_identity
                .entry(Identity::BuildId(build_id.to_vec()))
                .or_insert(id);
        }
    }

    /// A new symbolizer knows nothing yet, and tables asked of the last one will not come.
    pub(crate) fn forget_announcements(&mut self) {
        for executable in self.all.values_mut() {
            executable.announced = false;
            if matches!(executable.table, TableState::Asked(_)) {
                executable.table = TableState::Unknown;
            }
        }
    }

    /// Number of executables known.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Forgets executables that no image in `used` maps, that have no table, and that are not the newest `keep`.
    pub(crate) fn shrink(&mut self, keep: usize, used: &std::collections::HashSet<ExecutableId>) {
        if self.all.len() <= keep {
            return;
        }
        self.all.retain(|id, executable| {
            executable.table == TableState::Installed || used.contains(id)
        });
        let all = &self.all;
        self.by_identity.retain(|_, id| all.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(build_id: &[u8], inode: u64) -> NewMapping {
        NewMapping {
            build_id: build_id.to_vec(),
            inode,
            path: b"/bin/x".to_vec(),
            ..NewMapping::default()
        }
    }

    #[test]
    fn an_executable_known_by_inode_and_by_build_id_is_one() {
        let mut executables = Executables::default();
        let by_inode = executables.identify(&file(b"", 5));
        assert_eq!(executables.identify(&file(b"", 5)), by_inode);
        executables.learn_build_id(by_inode, b"build");
        assert_eq!(executables.identify(&file(b"build", 0)), by_inode);
        assert_ne!(executables.identify(&file(b"other", 0)), by_inode);
    }
}
