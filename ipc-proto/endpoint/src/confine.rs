//! How the launcher confines a process before it becomes that process: user, capabilities, namespaces, limits. Called by
//! a root process with one thread, which then executes the program and nothing else.

use rustix::io::Errno;
use rustix::process::{
    Gid, Resource, Rlimit, Signal, Uid, getrlimit, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    self, CapabilitySet, CapabilitySets, UnshareFlags, capability_is_in_bounding_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set,
};
use thiserror::Error;

use crate::rights::{Machine, Network, Rights, capability_names};

/// A part of the confinement that this machine did not allow; the process starts without it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Shortfall {
    /// A container's or service manager's bounding set holds these capabilities back.
    #[error(
        "{} not to be had here (not in the bounding set): what needs it will fail",
        capability_names(*.0)
    )]
    Capabilities(CapabilitySet),
    /// No namespaces of its own.
    #[error(
        "no network namespace of its own ({0}); the seccomp filter still denies all sockets but AF_UNIX"
    )]
    Namespaces(Errno),
    /// A limit stays lower than wanted.
    #[error("resource limit {0:?} stays at {1}: CAP_SYS_RESOURCE is missing")]
    Limit(Resource, u64),
}

/// Why the confinement failed: the program must not be started.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// The kernel refused a step.
    #[error("cannot {step}: {error}; start as root")]
    Step {
        /// What was to be done.
        step: &'static str,
        /// The kernel's answer.
        error: Errno,
    },
}

/// As whom a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}

impl Identity {
    /// A user, and the group of the same number.
    #[must_use]
    pub fn alone(uid: u32) -> Self {
        Self {
            uid,
            gid: uid,
            groups: Vec::new(),
        }
    }
}

fn step(step: &'static str) -> impl Fn(Errno) -> ConfineError {
    move |error| ConfineError::Step { step, error }
}

/// Turns the calling root process into one with exactly the rights that `rights` state for the start, as
/// `identity`. `store`: a remote store is configured; whoever may reach it stays in the machine's network. When the
/// parent ends, the process is asked to end too.
///
/// Open the program's file before: afterwards its directory may be out of reach. It can then be executed as
/// `/proc/self/fd/N`.
///
/// # Errors
/// The process must not go on.
pub fn enter(
    rights: &Rights,
    machine: &Machine,
    identity: &Identity,
    store: bool,
) -> Result<Vec<Shortfall>, ConfineError> {
    let mut shortfalls = Vec::new();
    for (resource, limit) in rights.limits {
        shortfalls.extend(limit_to(*resource, *limit, machine)?);
    }
    let network = store && rights.network == Network::Store;
    shortfalls.extend(leave_namespaces(network).err().map(Shortfall::Namespaces));

    let wanted = rights.at_start(machine);
    let (mut reachable, mut others) = (CapabilitySet::empty(), CapabilitySet::empty());
    for capability in CapabilitySet::all().iter() {
        // EINVAL: newer than the kernel.
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            if wanted.contains(capability) {
                reachable |= capability;
            } else {
                others |= capability;
            }
        }
    }
    if reachable != wanted {
        shortfalls.push(Shortfall::Capabilities(wanted - reachable));
    }
    for capability in others.iter() {
        remove_capability_from_bounding_set(capability)
            .map_err(step("shrink the capability bounding set"))?;
    }
    thread::set_keep_capabilities(true).map_err(step("keep capabilities across the uid change"))?;
    become_user(identity).map_err(step("change to the process's own user"))?;
    let sets = CapabilitySets {
        effective: reachable,
        permitted: reachable,
        inheritable: reachable,
    };
    thread::set_capabilities(None, sets).map_err(step("set capabilities"))?;
    for capability in reachable.iter() {
        configure_capability_in_ambient_set(capability, true)
            .map_err(step("hand capabilities on to the program"))?;
    }
    thread::set_no_new_privs(true).map_err(step("set no_new_privs"))?;
    // The kernel forgets this at a change of the uid, so it comes late.
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(step("tie the process to its parent"))?;
    Ok(shortfalls)
}

/// Changes all of the calling thread's user and group ids, the supplementary groups included.
pub(crate) fn become_user(identity: &Identity) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    thread::set_thread_groups(&groups)?;
    thread::set_thread_res_gid(gid, gid, gid)?;
    thread::set_thread_res_uid(uid, uid, uid)
}

/// Sets a limit: a number is the most the process may have, `None` what it needs.
fn limit_to(
    resource: Resource,
    limit: Option<u64>,
    machine: &Machine,
) -> Result<Option<Shortfall>, ConfineError> {
    let maximum = getrlimit(resource).maximum;
    let reachable = match (limit, maximum) {
        (Some(limit), Some(maximum)) => Some(limit.min(maximum)),
        (limit, _) => limit,
    };
    let set = |limit| {
        let limit = Rlimit {
            current: limit,
            maximum: limit,
        };
        setrlimit(resource, limit)
    };
    match (set(reachable), maximum) {
        (Ok(()), _) => Ok(None),
        // Raising needs CAP_SYS_RESOURCE, which containers lack: the most that there is then. Since Linux 5.11 BPF
        // maps no longer count.
        (Err(Errno::PERM), Some(most)) => {
            set(maximum).map_err(step("set a resource limit"))?;
            let matters = machine.kernel < (5, 11);
            Ok(matters.then_some(Shortfall::Limit(resource, most)))
        }
        (Err(error), _) => Err(step("set a resource limit")(error)),
    }
}

/// Own System V IPC, host name and network (without even a loopback device), unless `network` is to stay.
fn leave_namespaces(network: bool) -> Result<(), Errno> {
    let mut flags = UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if !network {
        flags |= UnshareFlags::NEWNET;
    }
    #[expect(
        deprecated,
        reason = "deprecated for UnshareFlags::FILES alone, which could take descriptors away from threads"
    )]
    thread::unshare(flags)
}
