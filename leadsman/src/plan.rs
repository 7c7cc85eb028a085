//! What to start: which processes, as whom, with which arguments.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use config::Settings;
use ipc_endpoint::rights::{self, Network};
use ipc_proto::hello::Role;

use crate::users::User;

/// Where crash reports are, each process's in a directory of its own.
pub(crate) const CRASH_DIRECTORY: &str = "/var/lib/leadsman/crashes";

/// Where a crash of `role` leaves its report.
pub(crate) fn crash_directory(role: Role) -> PathBuf {
    Path::new(CRASH_DIRECTORY).join(role.name())
}

/// Whether a crash leaves a report.
pub(crate) fn reports_crashes(settings: &Settings) -> bool {
    settings.get("telemetry-disable-panic-reporting") != "true"
}

/// One process to start.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Which.
    pub(crate) role: Role,
    /// As whom.
    pub(crate) user: User,
    /// In which groups besides.
    pub(crate) groups: Vec<u32>,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Whether it may reach the remote store.
    pub(crate) store: bool,
    /// Whether it writes traces to standard output.
    pub(crate) prints_traces: bool,
    /// Its environment.
    pub(crate) environment: Vec<(&'static str, OsString)>,
}

/// Everything that the processes of one run have in common, and what each is told.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Who runs as whom.
    pub(crate) users: Vec<(Role, User)>,
    /// Who listens for statistics in place of the viewer: the front command itself, which is root.
    pub(crate) front_listens: bool,
    /// The settings, of which each process is told its own.
    pub(crate) settings: Settings,
    /// Where the shipper finds the configuration file, which it may not be able to reach itself.
    pub(crate) copy: Option<PathBuf>,
    /// What the sampler is told beyond them.
    pub(crate) sampler: Vec<OsString>,
    /// How often the sampler asked for a larger ring buffer.
    pub(crate) ring_growth: u32,
}

impl Plan {
    /// All processes, as `leadsman up` and the units run them.
    pub(crate) fn new(users: Vec<(Role, User)>, settings: Settings) -> Self {
        Self {
            users,
            front_listens: false,
            settings,
            copy: None,
            sampler: Vec::new(),
            ring_growth: 0,
        }
    }

    /// The processes in the order of their start.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let process = |(role, user): &(Role, User)| Process {
            role: *role,
            user: *user,
            groups: self.groups(*role),
            arguments: self.arguments(*role),
            store: self.reaches_store(*role),
            prints_traces: speaks(*role) && self.settings.get("otlp-exporter") == "stdout",
            environment: environment(&self.settings, *role),
        };
        self.users.iter().map(process).collect()
    }

    /// Where profiles are kept.
    pub(crate) fn store_directory(&self) -> &Path {
        Path::new(self.settings.get("local-store-directory"))
    }

    fn reaches_store(&self, role: Role) -> bool {
        let stated = |name| !self.settings.get(name).is_empty();
        // The debuginfo-uploader has nothing to do without a store, nor anything to trace.
        let of_shipper = stated("kubernetes-api-server") || stated("otlp-address");
        (stated("remote-store-address") || role == Role::Shipper && of_shipper)
            && rights::of(role).is_some_and(|rights| rights.network == Network::Store)
    }

    /// The group of the container runtime's socket, which is how Docker lets others than root in. Who names the socket
    /// wants it asked.
    fn groups(&self, role: Role) -> Vec<u32> {
        let socket = self.settings.get("metadata-container-runtime-socket-path");
        if role != Role::Shipper || socket.is_empty() {
            return Vec::new();
        }
        // Where it is not there yet the shipper says so; a restart of the shipper looks again.
        let group = std::fs::metadata(socket).ok().map(|found| found.gid());
        group.into_iter().collect()
    }

    /// What the shipper, which owns the file, is told of it.
    fn configuration(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let name = self.settings.get("config-path");
        if !name.is_empty() {
            let mut path = OsString::from("--config-path=");
            path.push(self.copy.as_deref().unwrap_or(Path::new(name)));
            arguments.extend([path, format!("--config-name={name}").into()]);
        }
        let stated = self.settings.stated().into_iter();
        arguments.extend(stated.map(|(name, value)| format!("--stated={name}={value}").into()));
        arguments
    }

    fn arguments(&self, role: Role) -> Vec<OsString> {
        let mut arguments = self.settings.arguments(role);
        // A recording's processes end with it, and what they said is seen by who recorded.
        if reports_crashes(&self.settings) && !self.front_listens {
            let mut option = OsString::from("--crash-directory=");
            option.push(crash_directory(role));
            arguments.push(option);
        }
        let peers = self
            .users
            .iter()
            .map(|(peer, user)| format!("--peer={}={}", peer.name(), user.uid));
        arguments.extend(peers.map(OsString::from));
        if self.front_listens {
            arguments.push(format!("--peer={}=0", Role::Viewer.name()).into());
        }
        if role == Role::Shipper {
            arguments.extend(self.configuration());
        }
        if role == Role::Sampler {
            if self.ring_growth > 0 {
                arguments.push(format!("--ring-growth={}", self.ring_growth).into());
            }
            arguments.extend(self.sampler.iter().cloned());
        }
        arguments
    }
}

/// Secrets, which must not be seen among a process's arguments: for those who speak to the store.
pub(crate) fn environment(settings: &Settings, role: Role) -> Vec<(&'static str, OsString)> {
    let token = settings.get("remote-store-bearer-token");
    if speaks(role) && !token.is_empty() {
        vec![(config::environment::TOKEN, token.into())]
    } else {
        Vec::new()
    }
}

/// Whether it speaks to the store.
fn speaks(role: Role) -> bool {
    matches!(role, Role::Shipper | Role::DebuginfoUploader)
}
