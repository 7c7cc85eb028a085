//! The processes as the front command starts them: their binaries, sockets and the order in which they stop.

use ipc_proto::hello::Role;

/// All processes, in the order in which they start.
pub(crate) const ALL: [Role; 6] = [
    Role::Viewer,
    Role::Shipper,
    Role::DebuginfoUploader,
    Role::Symbolizer,
    Role::Opener,
    Role::Sampler,
];

/// Those of a recording: nobody looks at a page, nothing is uploaded.
pub(crate) const RECORDING: [Role; 4] =
    [Role::Shipper, Role::Symbolizer, Role::Opener, Role::Sampler];

/// The order in which processes are asked to end, so that what one has made reaches the next: all of a row together.
pub(crate) const STOP_ORDER: [&[Role]; 4] = [
    &[Role::Sampler],
    &[Role::Symbolizer],
    &[Role::Shipper],
    &[Role::Viewer, Role::DebuginfoUploader, Role::Opener],
];

/// A socket between processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    /// Its file's name, under which its listener inherits it too.
    pub(crate) socket: &'static str,
    /// Who listens.
    pub(crate) listener: Role,
    /// Who may connect; none named: all.
    pub(crate) connectors: &'static [Role],
}

/// Every socket.
pub(crate) const EDGES: [Edge; 6] = [
    Edge {
        socket: "samples.sock",
        listener: Role::Symbolizer,
        connectors: &[Role::Sampler],
    },
    Edge {
        socket: "opener.sock",
        listener: Role::Opener,
        connectors: &[Role::Sampler, Role::Symbolizer],
    },
    Edge {
        socket: "symbolized.sock",
        listener: Role::Shipper,
        connectors: &[Role::Symbolizer],
    },
    Edge {
        socket: "debuginfo.sock",
        listener: Role::DebuginfoUploader,
        connectors: &[Role::Symbolizer],
    },
    Edge {
        socket: "settings.sock",
        listener: Role::Shipper,
        connectors: &[],
    },
    Edge {
        socket: "statistics.sock",
        listener: Role::Viewer,
        connectors: &[],
    },
];

/// Permissions of a socket: connect(2) asks for write access, so only connectors get it.
pub(crate) fn socket_mode(edge: &Edge) -> u32 {
    match edge.connectors {
        [] => 0o666,
        [_] => 0o600,
        _ => 0o660,
    }
}

/// The file name of a role's binary.
pub(crate) fn binary(role: Role) -> String {
    format!("leadsman-{}", role.name())
}
