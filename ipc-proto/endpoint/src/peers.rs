//! Who may speak: the uid of each role.

use std::collections::BTreeMap;

use ipc_proto::hello::Role;
use rustix::process::geteuid;

/// The uid each role runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    uids: BTreeMap<Role, u32>,
}

impl Peers {
    /// States a role's uid.
    pub fn insert(&mut self, role: Role, uid: u32) {
        self.uids.insert(role, uid);
    }

    /// Whether a process of `uid` may speak as `role`. A role without a stated uid is our own uid's.
    #[must_use]
    pub fn allows(&self, role: Role, uid: u32) -> bool {
        self.uids
            .get(&role)
            .copied()
            .unwrap_or_else(|| geteuid().as_raw())
            == uid
    }

    /// Whether a process of `uid` may have made the socket that `role` listens on: the service manager made it, or
    /// the role itself.
    #[must_use]
    pub fn may_listen(&self, role: Role, uid: u32) -> bool {
        uid == 0 || self.allows(role, uid) || self.allows(Role::Leadsman, uid)
    }
}
