//! How a process gives up what it does not need any more: called once, by a process with one thread, when everything is
//! open and before the first byte of somebody else is read. It never asks for a right; it refuses to go on with too many.

mod seccomp;
mod self_check;

use std::path::PathBuf;

use ipc_proto::hello::Role;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use rustix::{process, thread};
use thiserror::Error;

use crate::confine::Identity;
use crate::rights::syscalls::Group;
use crate::rights::{self, Files, Machine, Network, Rights, capability_names};
use crate::service_manager::ServiceManager;
use self_check::{State, Status};

/// What a process may still open by path; nothing else, whatever its filter permits.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Directories for reading.
    pub read: Vec<PathBuf>,
    /// Directories for reading and writing.
    pub write: Vec<PathBuf>,
    /// TCP ports to connect to: those of the remote store and its name server; none without a store.
    pub connect: Vec<u16>,
    /// To any port, once there is a store: it may name others to send to.
    pub connect_anywhere: bool,
}

/// Why the process can't be locked down: it must not go on.
#[derive(Debug, Error)]
pub enum LockdownError {
    /// It was started with more than its rights.
    #[error(
        "started with {what}, which {role} must not have: start it by `leadsman up` or its systemd unit"
    )]
    TooMuchPrivilege {
        /// Which role.
        role: &'static str,
        /// What is too much.
        what: String,
    },
    /// Threads that run already would keep their rights.
    #[error("{0} threads run before the lockdown, one is allowed")]
    Threads(u64),
    /// The plan opens more than the role's rights.
    #[error("{role} may not open {path} after its lockdown")]
    Plan {
        /// Which role.
        role: &'static str,
        /// What it wanted.
        path: PathBuf,
    },
    /// The plan reaches further than the role's rights.
    #[error("{0} may not connect to anything after its lockdown")]
    Network(&'static str),
    /// The kernel refused a step.
    #[error("cannot {step}: {error}")]
    Step {
        /// What was to be done.
        step: &'static str,
        /// The kernel's answer.
        error: Errno,
    },
    /// Landlock failed, beyond being absent.
    #[cfg(feature = "landlock")]
    #[error("Landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// A directory of the plan can't be opened.
    #[cfg(feature = "landlock")]
    #[error("{path}: {error}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: landlock::PathFdError,
    },
    /// The program was built without Landlock, but goes on opening paths.
    #[error("built without Landlock: enable the feature `landlock` of ipc-endpoint")]
    BuiltWithoutLandlock,
    /// The seccomp filter was not made or not taken.
    #[error("seccomp filter: {0}")]
    Seccomp(seccompiler::Error),
    /// The process still has what it gave up.
    #[error("after the lockdown the process still has {0}")]
    StillHas(String),
    /// `/proc/self/status` can't be read.
    #[error("cannot read /proc/self/status: {0}")]
    Status(Errno),
}

/// Gives up everything that `role` does not need any more, and checks that it is gone.
///
/// # Errors
/// The process has or keeps more than its rights; it must end.
pub fn enter(role: Role, plan: &Plan) -> Result<(), LockdownError> {
    let Some(rights) = rights::of(role) else {
        return Ok(());
    };
    find_vdso();
    let machine = Machine::read();
    // Opened now: afterwards there may be no path to it.
    let status = Status::open()?;
    let before = status.read()?;
    check_start(rights, &machine, &before)?;
    check_plan(rights, plan)?;

    let kept = rights.after_lockdown(&machine) & before.permitted;
    for (resource, limit) in rights.limits {
        if let Some(limit) = limit {
            lower(*resource, *limit)?;
        }
    }
    drop_privileges(&before, kept)?;
    match rights.files {
        // No system call reaches a path; and Landlock would deny the opener what its capabilities are for.
        Files::None | Files::ReadAnything => {}
        Files::ReadDirectory | Files::WriteDirectory | Files::WriteDirectoryReadMachine => {
            restrict_files(plan)?;
        }
    }
    let manager = ServiceManager::from_environment();
    let mut groups = rights.groups.to_vec();
    if !plan.connect.is_empty() {
        groups.push(&rights::syscalls::STORE);
    }
    let after = finish(&status, &groups, kept)?;
    log::info!(
        "locked down: uid {}, capabilities {}, seccomp on",
        after.uids.first().copied().unwrap_or_default(),
        capability_names(after.effective),
    );
    manager.ready();
    Ok(())
}

/// For commands that parse files named by their user, and print: the process can then only read what is open and what
/// lies in the plan's directories. A root process becomes nobody.
///
/// # Errors
/// The process keeps more than that; it must end.
pub fn parse_only(plan: &Plan) -> Result<(), LockdownError> {
    const NOBODY: u32 = 65_534;
    find_vdso();
    let mut groups: Vec<&Group> = vec![
        &rights::syscalls::MEMORY,
        &rights::syscalls::RUNTIME,
        &rights::syscalls::THREADS,
        &rights::syscalls::DESCRIPTORS,
    ];
    if !plan.read.is_empty() {
        groups.push(&rights::syscalls::READ_FILES);
    }
    let status = Status::open()?;
    let before = status.read()?;
    if before.threads != 1 {
        return Err(LockdownError::Threads(before.threads));
    }
    if before.uids.contains(&0) {
        crate::confine::become_user(&Identity::alone(NOBODY)).map_err(step("become nobody"))?;
    }
    drop_privileges(&before, CapabilitySet::empty())?;
    if !plan.read.is_empty() {
        restrict_files(plan)?;
    }
    finish(&status, &groups, CapabilitySet::empty()).map(|_state| ())
}

/// The last steps: the filter, and a look at what is left.
fn finish(status: &Status, groups: &[&Group], kept: CapabilitySet) -> Result<State, LockdownError> {
    seccomp::install(groups).map_err(LockdownError::Seccomp)?;
    let after = status.read()?;
    let excess = after.excess(kept);
    if excess.is_empty() {
        Ok(after)
    } else {
        Err(LockdownError::StillHas(excess.join(", ")))
    }
}

/// The first reading of a clock looks for the vDSO, by calls that are denied afterwards; every later one uses it.
fn find_vdso() {
    let _now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
}

fn check_start(rights: &Rights, machine: &Machine, before: &State) -> Result<(), LockdownError> {
    if before.threads != 1 {
        return Err(LockdownError::Threads(before.threads));
    }
    let too_much = |what| LockdownError::TooMuchPrivilege {
        role: rights.role.name(),
        what,
    };
    if before.uids.contains(&0) {
        return Err(too_much("uid 0".to_owned()));
    }
    let excess = (before.permitted | before.effective) - rights.at_start(machine);
    if excess.is_empty() {
        Ok(())
    } else {
        Err(too_much(capability_names(excess)))
    }
}

fn check_plan(rights: &Rights, plan: &Plan) -> Result<(), LockdownError> {
    if !plan.connect.is_empty() && rights.network != Network::Store {
        return Err(LockdownError::Network(rights.role.name()));
    }
    let refused = match rights.files {
        Files::None | Files::ReadAnything => plan.read.iter().chain(&plan.write).next(),
        Files::ReadDirectory => plan.write.first(),
        Files::WriteDirectory | Files::WriteDirectoryReadMachine => None,
    };
    match refused {
        Some(path) => Err(LockdownError::Plan {
            role: rights.role.name(),
            path: path.clone(),
        }),
        None => Ok(()),
    }
}

fn step(step: &'static str) -> impl Fn(Errno) -> LockdownError {
    move |error| LockdownError::Step { step, error }
}

/// Lowers a limit for good; one that is lower already stays.
fn lower(resource: Resource, limit: u64) -> Result<(), LockdownError> {
    let maximum = getrlimit(resource).maximum;
    let limit = Some(maximum.map_or(limit, |maximum| maximum.min(limit)));
    let limit = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(resource, limit).map_err(step("lower a resource limit"))
}

fn drop_privileges(before: &State, kept: CapabilitySet) -> Result<(), LockdownError> {
    thread::set_no_new_privs(true).map_err(step("set no_new_privs"))?;
    thread::clear_ambient_capability_set().map_err(step("clear the ambient capabilities"))?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    // Who has none needs no system call to change them: its unit denies it.
    if !(before.permitted | before.effective | before.inheritable).is_empty() {
        thread::set_capabilities(None, sets).map_err(step("drop capabilities"))?;
    }
    process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("forbid others to trace this process"))
}

/// Denies all paths but the plan's. A kernel without Landlock denies nothing: file modes and the filter remain.
#[cfg(feature = "landlock")]
fn restrict_files(plan: &Plan) -> Result<(), LockdownError> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
        RulesetCreatedAttr, RulesetStatus, Scope,
    };
    // Later versions also restrict connecting to sockets by path, which every process must do again after a restart
    // of its peer.
    const NEWEST: ABI = ABI::V6;
    let mut network = AccessNet::from_all(NEWEST);
    if plan.connect_anywhere {
        network.remove(AccessNet::ConnectTcp);
    }
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(network)?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let read = plan
        .read
        .iter()
        .map(|path| (path, AccessFs::from_read(NEWEST)));
    let write = plan
        .write
        .iter()
        .map(|path| (path, AccessFs::from_all(NEWEST)));
    for (path, access) in read.chain(write) {
        let directory = PathFd::new(path).map_err(|error| LockdownError::Path {
            path: path.clone(),
            error,
        })?;
        // Nothing of ours is ever executed from there.
        let access = access & !AccessFs::Execute;
        ruleset = ruleset.add_rule(PathBeneath::new(directory, access))?;
    }
    let ports = plan.connect.iter().filter(|_port| !plan.connect_anywhere);
    for port in ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    let status = ruleset.restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        log::info!("this kernel has no Landlock: file modes alone keep paths closed");
    }
    Ok(())
}

#[cfg(not(feature = "landlock"))]
fn restrict_files(_plan: &Plan) -> Result<(), LockdownError> {
    Err(LockdownError::BuiltWithoutLandlock)
}
