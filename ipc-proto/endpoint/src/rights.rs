//! What each process may do: the one description that the launcher, the processes themselves, `leadsman security` and
//! docs/THREAT-MODEL.md follow. States rights; enforces none (that is [`crate::confine`] and [`crate::lockdown`]).

pub mod machine;
mod render;
pub mod syscalls;

use ipc_proto::hello::Role;
use rustix::process::Resource;
use rustix::thread::CapabilitySet;

pub use machine::Machine;
pub use render::{capability_names, condition, line, markdown};

use syscalls::Group;

/// On which machines a capability is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// On all.
    Always,
    /// Where the kernel is older than that release.
    Before(u32, u32),
    /// Where `kernel.perf_event_paranoid` is at least so much.
    Paranoid(i32),
    /// Nowhere.
    Never,
}

/// One capability of a process.
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    /// Which.
    pub set: CapabilitySet,
    /// Where the process starts with it: any of these.
    pub at_start: &'static [When],
    /// Where it keeps it after its lockdown.
    pub kept: When,
    /// What for.
    pub why: &'static str,
}

/// What a process may reach of the network. But for the store, its network namespace is its own and empty, and its filter
/// knows no socket but AF_UNIX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nothing.
    None,
    /// One inherited socket that listens for the page's readers.
    Inherited,
    /// Where a remote store is configured: the machine's network, for connections to the store's port and the name
    /// server's, by Landlock. Without a store: nothing.
    Store,
}

/// What a process may open by path after its lockdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Nothing: no system call that opens a path is allowed.
    None,
    /// What its capabilities reach, for reading. No Landlock: that would deny `/proc/PID` of others.
    ReadAnything,
    /// One directory for reading, by Landlock.
    ReadDirectory,
    /// One directory for reading and writing, by Landlock.
    WriteDirectory,
    /// The same, and for reading `/proc`, as far as anybody may read it, the cgroup tree and configured files.
    WriteDirectoryReadMachine,
}

/// A resource and the most a process may have of it; `None`: it needs all that there is.
pub type Limit = (Resource, Option<u64>);

/// A process's rights.
#[derive(Clone, Copy, Debug)]
pub struct Rights {
    /// Whose.
    pub role: Role,
    /// Name of its user and group, where the system has them.
    pub user: &'static str,
    /// Its capabilities.
    pub capabilities: &'static [Capability],
    /// Its network.
    pub network: Network,
    /// Its files.
    pub files: Files,
    /// Its limits.
    pub limits: &'static [Limit],
    /// System calls it may make after its lockdown; all others fail with EPERM.
    pub groups: &'static [&'static Group],
}

impl Rights {
    /// Capabilities it starts with.
    #[must_use]
    pub fn at_start(&self, machine: &Machine) -> CapabilitySet {
        let needed = self
            .capabilities
            .iter()
            .filter(|capability| capability.at_start.iter().any(|when| machine.is(*when)));
        needed.fold(CapabilitySet::empty(), |all, one| all | one.set)
    }

    /// Capabilities it has after its lockdown.
    #[must_use]
    pub fn after_lockdown(&self, machine: &Machine) -> CapabilitySet {
        let kept = self
            .capabilities
            .iter()
            .filter(|capability| machine.is(capability.kept));
        kept.fold(CapabilitySet::empty(), |all, one| all | one.set) & self.at_start(machine)
    }
}

/// The rights of a role; the front command has none of its own.
#[must_use]
pub fn of(role: Role) -> Option<&'static Rights> {
    ALL.iter().find(|rights| rights.role == role)
}

// A core dump would hold what was read of other processes.
const NO_CORE: Limit = (Resource::Core, Some(0));
const FEW_DESCRIPTORS: &[Limit] = &[NO_CORE, (Resource::Nofile, Some(1024))];
const MANY_DESCRIPTORS: &[Limit] = &[NO_CORE, (Resource::Nofile, Some(16 * 1024))];
const SAMPLER_LIMITS: &[Limit] = &[
    NO_CORE,
    (Resource::Nofile, Some(64 * 1024)),
    // Kernels before 5.11 charge BPF maps to it, and all of them the rings of mapping records.
    (Resource::Memlock, None),
];

/// All processes with rights of their own.
pub static ALL: [Rights; 6] = [
    Rights {
        role: Role::Sampler,
        user: "leadsman-sampler",
        capabilities: &[
            Capability {
                set: CapabilitySet::BPF,
                at_start: &[When::Always],
                // Older kernels ask for it at each map update (kernel/bpf/syscall.c).
                kept: When::Before(5, 19),
                why: "create BPF maps and load the programs",
            },
            Capability {
                set: CapabilitySet::PERFMON,
                at_start: &[When::Always],
                kept: When::Never,
                why: "open a sampling event and a ring of mapping records on each CPU",
            },
            Capability {
                set: CapabilitySet::SYS_ADMIN,
                at_start: &[When::Paranoid(3), When::Before(5, 8)],
                kept: When::Never,
                why: "the same where the kernel does not accept CAP_PERFMON",
            },
        ],
        network: Network::None,
        files: Files::None,
        limits: SAMPLER_LIMITS,
        groups: &[
            &syscalls::MEMORY,
            &syscalls::RUNTIME,
            &syscalls::DESCRIPTORS,
            &syscalls::LINKS,
            &syscalls::BPF_MAPS,
            &syscalls::PERF_EVENTS,
        ],
    },
    Rights {
        role: Role::Opener,
        user: "leadsman-opener",
        capabilities: &[
            Capability {
                set: CapabilitySet::SYS_PTRACE,
                at_start: &[When::Always],
                kept: When::Always,
                why: "look into /proc/PID of other users' processes",
            },
            Capability {
                set: CapabilitySet::DAC_READ_SEARCH,
                at_start: &[When::Always],
                kept: When::Always,
                why: "open executables that only their owner may read",
            },
            Capability {
                set: CapabilitySet::CHECKPOINT_RESTORE,
                at_start: &[When::Always],
                kept: When::Always,
                why: "open a mapped file itself, also a deleted one, through /proc/PID/map_files",
            },
            Capability {
                set: CapabilitySet::SYS_ADMIN,
                at_start: &[When::Before(5, 9)],
                kept: When::Before(5, 9),
                why: "the same where CAP_CHECKPOINT_RESTORE does not exist",
            },
        ],
        network: Network::None,
        files: Files::ReadAnything,
        limits: MANY_DESCRIPTORS,
        groups: &[
            &syscalls::MEMORY,
            &syscalls::RUNTIME,
            &syscalls::THREADS,
            &syscalls::DESCRIPTORS,
            &syscalls::LINKS,
            &syscalls::READ_FILES,
        ],
    },
    Rights {
        role: Role::Symbolizer,
        user: "leadsman-symbolizer",
        capabilities: &[],
        network: Network::None,
        files: Files::WriteDirectory,
        limits: MANY_DESCRIPTORS,
        groups: &[
            &syscalls::MEMORY,
            &syscalls::RUNTIME,
            &syscalls::THREADS,
            &syscalls::DESCRIPTORS,
            &syscalls::LINKS,
            &syscalls::READ_FILES,
            &syscalls::WRITE_FILES,
        ],
    },
    Rights {
        role: Role::DebuginfoUploader,
        user: "leadsman-uploader",
        capabilities: &[],
        network: Network::Store,
        files: Files::WriteDirectory,
        limits: FEW_DESCRIPTORS,
        groups: &[
            &syscalls::MEMORY,
            &syscalls::RUNTIME,
            &syscalls::THREADS,
            &syscalls::DESCRIPTORS,
            &syscalls::LINKS,
            &syscalls::READ_FILES,
            &syscalls::WRITE_FILES,
        ],
    },
    Rights {
        role: Role::Shipper,
        user: "leadsman-shipper",
        capabilities: &[],
        network: Network::Store,
        files: Files::WriteDirectoryReadMachine,
        limits: FEW_DESCRIPTORS,
        groups: &[
            &syscalls::MEMORY,
            &syscalls::RUNTIME,
            &syscalls::THREADS,
            &syscalls::DESCRIPTORS,
            &syscalls::LINKS,
            &syscalls::READ_FILES,
            &syscalls::WRITE_FILES,
        ],
    },
    Rights {
        role: Role::Viewer,
        user: "leadsman-viewer",
        capabilities: &[],
        network: Network::Inherited,
        files: Files::ReadDirectory,
        limits: FEW_DESCRIPTORS,
        groups: &[
            &syscalls::MEMORY,
            &syscalls::RUNTIME,
            &syscalls::THREADS,
            &syscalls::DESCRIPTORS,
            &syscalls::LINKS,
            &syscalls::READ_FILES,
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    const MODERN: Machine = Machine {
        kernel: (6, 1),
        perf_event_paranoid: 2,
    };

    #[test]
    fn capabilities_follow_the_machine() {
        let sampler = of(Role::Sampler).expect("described");
        let usual = CapabilitySet::BPF | CapabilitySet::PERFMON;
        assert_eq!(sampler.at_start(&MODERN), usual);
        assert_eq!(sampler.after_lockdown(&MODERN), CapabilitySet::empty());
        let debian = Machine {
            perf_event_paranoid: 3,
            ..MODERN
        };
        let more = usual | CapabilitySet::SYS_ADMIN;
        assert_eq!(sampler.at_start(&debian), more);
        assert_eq!(sampler.after_lockdown(&debian), CapabilitySet::empty());
        let old = Machine {
            kernel: (5, 10),
            ..MODERN
        };
        assert_eq!(sampler.after_lockdown(&old), CapabilitySet::BPF);
    }

    #[test]
    fn only_sampler_and_opener_have_capabilities() {
        for rights in &ALL {
            let privileged = matches!(rights.role, Role::Sampler | Role::Opener);
            let start = rights.at_start(&MODERN);
            assert_eq!(start.is_empty(), !privileged, "{}", rights.user);
            assert!(start.contains(rights.after_lockdown(&MODERN)));
        }
    }

    #[test]
    fn who_opens_no_path_has_no_system_call_for_it() {
        for rights in ALL.iter().filter(|rights| rights.files == Files::None) {
            let calls = rights.groups.iter().flat_map(|group| group.calls);
            let opening: Vec<_> = calls.filter(|call| call.name() == "openat").collect();
            assert!(opening.is_empty(), "{}", rights.user);
        }
    }
}
