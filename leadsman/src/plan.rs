//! What to start: which processes, as whom, with which arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ipc_endpoint::rights::{self, Network};
use ipc_proto::hello::Role;

use crate::remote_options::RemoteArguments;
use crate::users::User;

/// Where crash reports are, each process's in a directory of its own.
pub(crate) const CRASH_DIRECTORY: &str = "/var/lib/leadsman/crashes";

/// Where a crash of `role` leaves its report.
pub(crate) fn crash_directory(role: Role) -> PathBuf {
    Path::new(CRASH_DIRECTORY).join(role.name())
}

/// One process to start.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Which.
    pub(crate) role: Role,
    /// As whom.
    pub(crate) user: User,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Whether it may reach the remote store.
    pub(crate) store: bool,
    /// The bearer token for that.
    pub(crate) token: Option<OsString>,
}

/// Everything that the processes of one run have in common, and what each is told.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where the sockets are.
    pub(crate) runtime_directory: PathBuf,
    /// Level of their logs.
    pub(crate) log_level: log::LevelFilter,
    /// Format of their logs.
    pub(crate) log_format: &'static str,
    /// Who runs as whom.
    pub(crate) users: Vec<(Role, User)>,
    /// Who listens for statistics in place of the viewer: the front command itself, which is root.
    pub(crate) front_listens: bool,
    /// The sampler's own arguments.
    pub(crate) sampler: Vec<OsString>,
    /// How often the sampler asked for a larger ring buffer.
    pub(crate) ring_growth: u32,
    /// Where the symbolizer keeps unwind tables.
    pub(crate) cache_directory: PathBuf,
    /// Where the shipper writes and the viewer reads.
    pub(crate) store_directory: PathBuf,
    /// The shipper's own arguments.
    pub(crate) shipper: Vec<OsString>,
    /// The viewer's own arguments.
    pub(crate) viewer: Vec<OsString>,
    /// What those who reach the remote store are told.
    pub(crate) remote: RemoteArguments,
}

impl Plan {
    /// The processes in the order of their start.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let process = |(role, user): &(Role, User)| {
            let store = self.remote.is_configured()
                && rights::of(*role).is_some_and(|rights| rights.network == Network::Store);
            Process {
                role: *role,
                user: *user,
                arguments: self.arguments(*role),
                store,
                token: self.remote.token.clone().filter(|_token| store),
            }
        };
        self.users.iter().map(process).collect()
    }

    fn arguments(&self, role: Role) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        option("--runtime-directory", self.runtime_directory.clone().into());
        option(
            "--log-level",
            self.log_level.as_str().to_ascii_lowercase().into(),
        );
        option("--log-format", self.log_format.into());
        // A recording's processes end with it, and what they said is seen by who recorded.
        if !self.front_listens {
            option("--crash-directory", crash_directory(role).into());
        }
        for (peer, user) in &self.users {
            option("--peer", format!("{}={}", peer.name(), user.uid).into());
        }
        if self.front_listens {
            option("--peer", format!("{}=0", Role::Viewer.name()).into());
        }
        let store = || OsString::from(&self.store_directory);
        match role {
            Role::Sampler => {
                if self.ring_growth > 0 {
                    option("--ring-growth", self.ring_growth.to_string().into());
                }
                arguments.extend(self.sampler.iter().cloned());
            }
            Role::Symbolizer => option("--cache-directory", self.cache_directory.clone().into()),
            Role::Shipper => {
                option("--store-directory", store());
                arguments.extend(self.shipper.iter().cloned());
                arguments.extend(self.remote.shared.iter().cloned());
                arguments.extend(self.remote.shipper.iter().cloned());
            }
            Role::Viewer => {
                option("--store-directory", store());
                arguments.extend(self.viewer.iter().cloned());
            }
            Role::Opener | Role::DebuginfoUploader | Role::Leadsman => {}
        }
        arguments
    }
}
