//! What `systemd/` must hold: units rendered from the description of rights and the table of sockets, so that neither can
//! change without them. Runs in tests only; `LEADSMAN_RENDER=1 cargo test -p leadsman units` writes the files.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ipc_endpoint::rights::{self, Capability, Files, Network, Rights, When, capability_names};
use ipc_proto::hello::Role;
use rustix::process::Resource;
use rustix::thread::CapabilitySet;

use crate::launch::{FRUGAL, SAMPLER_NICENESS};
use crate::plan::{CRASH_DIRECTORY, crash_directory};
use crate::roles::{self, EDGES, Edge, STOP_ORDER};

mod checks;

/// Where the package's binaries lie.
const BINARIES: &str = "/usr/lib/leadsman";
/// A process that says nothing for so long stands still. Each speaks once a second.
const WATCHDOG_SECONDS: u32 = 30;
const FIRST_LINE: &str =
    "# Rendered from the description of rights (leadsman/src/units.rs); a test compares it.\n";

/// What a process calls between its start and its lockdown, which its own, narrower filter then forbids: the loader, the
/// runtime's start, reading the configuration, the lockdown itself.
const START: &str = "access arch_prctl capget clone clone3 close_range dup dup2 epoll_create1 execve faccessat faccessat2 \
    fchdir getcwd getdents64 getegid geteuid getgid getppid getuid landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self lstat open openat openat2 pipe2 prctl prlimit64 readlink readlinkat rseq sched_getaffinity seccomp \
    set_robust_list set_tid_address socketpair stat statfs statx sysinfo umask uname";

/// What of a role no right says.
struct Manners {
    description: &'static str,
    /// Bytes it may grow to before it is killed: several times what it takes on a large machine.
    memory: &'static str,
    tasks: u32,
    /// Killed late where memory runs out, or early.
    oom_score: i32,
    /// Whether it looks at other users' `/proc/PID` without the right to trace them, which shows the opener all.
    sees_processes: bool,
    /// Further lines of `[Service]`.
    more: &'static str,
}

fn manners(role: Role) -> Manners {
    let (description, memory, tasks, oom_score, sees_processes, more) = match role {
        Role::Sampler => (
            "holds the BPF programs, counts stacks",
            "256M",
            4,
            -500,
            true,
            // Who opens it decides whether it shows addresses: the service manager does, before it drops anything.
            "StandardInput=file:/proc/kallsyms\n",
        ),
        Role::Opener => ("opens files of profiled processes", "64M", 16, 0, false, ""),
        Role::Symbolizer => (
            "parses executables, has no rights",
            "1G",
            8,
            500,
            false,
            "CacheDirectory=leadsman\nCacheDirectoryMode=0700\n",
        ),
        Role::DebuginfoUploader => (
            "sends debug information to the store",
            "256M",
            16,
            500,
            false,
            "",
        ),
        Role::Shipper => (
            "writes and sends profiles",
            "512M",
            16,
            500,
            true,
            "StateDirectory=leadsman/profiles leadsman/spool\nStateDirectoryMode=0755\n",
        ),
        Role::Viewer => ("serves the page and the metrics", "256M", 8, 500, false, ""),
        Role::Leadsman => ("starts the others", "64M", 4, 0, true, ""),
    };
    Manners {
        description,
        memory,
        tasks,
        oom_score,
        sees_processes,
        more,
    }
}

fn service(role: Role) -> String {
    format!("{}.service", roles::binary(role))
}

/// `samples.sock` is made by `leadsman-samples.socket`.
fn socket_unit(name: &str) -> String {
    format!("leadsman-{}.socket", name.trim_end_matches(".sock"))
}

/// The sockets that a role listens on, by name.
fn sockets(role: Role) -> Vec<&'static str> {
    let own = EDGES.iter().filter(|edge| edge.listener == role);
    let page = (role == Role::Viewer).then_some("http");
    own.map(|edge| edge.socket).chain(page).collect()
}

/// A role's service unit.
fn service_unit(rights: &Rights) -> String {
    let role = rights.role;
    let Manners {
        description,
        memory,
        tasks,
        oom_score,
        sees_processes,
        more,
    } = manners(role);
    let sockets: Vec<String> = sockets(role).into_iter().map(socket_unit).collect();
    let sockets = sockets.join(" ");
    let mut text = format!(
        "{FIRST_LINE}[Unit]\nDescription=Leadsman {}: {description}\nPartOf=leadsman.target\n",
        role.name()
    );
    // They stop in the opposite order, so that what one has made still reaches the next.
    let after: Vec<String> = later_rows(role).map(service).collect();
    let after = [after.join(" "), sockets.clone()].join(" ");
    let _infallible = writeln!(text, "After={}", after.trim());
    if !sockets.is_empty() {
        let _infallible = writeln!(text, "Requires={sockets}");
    }
    text += "StartLimitIntervalSec=60\nStartLimitBurst=20\n";
    let _infallible = write!(
        text,
        "\n[Service]\nType=notify\nExecStart={BINARIES}/leadsman run {}\n",
        role.name()
    );
    if !sockets.is_empty() {
        let _infallible = writeln!(text, "Sockets={sockets}\nNonBlocking=yes");
    }
    let user = rights.user;
    let _infallible = write!(
        text,
        "Restart=always\nRestartSec=200ms\nRestartPreventExitStatus=2\nWatchdogSec={WATCHDOG_SECONDS}\nTimeoutStopSec=5\nUser={user}\nGroup={user}\n\
         UMask=0077\nMemoryMax={memory}\nTasksMax={tasks}\nOOMScoreAdjust={oom_score}\n{more}"
    );
    if role == Role::Sampler {
        let _infallible = writeln!(text, "Nice={SAMPLER_NICENESS}");
    }
    for (name, value) in FRUGAL {
        let _infallible = writeln!(text, "Environment={name}={value}");
    }
    text += "\n# Rights\n";
    let capabilities = capabilities(rights.capabilities, |when| when == When::Always);
    let _infallible = write!(
        text,
        "CapabilityBoundingSet={capabilities}\nAmbientCapabilities={capabilities}\nNoNewPrivileges=yes\n"
    );
    for (resource, limit) in rights.limits {
        let value = limit.map_or_else(|| "infinity".to_owned(), |limit| limit.to_string());
        let _infallible = writeln!(text, "Limit{}={value}", limit_name(*resource));
    }
    text += network(rights.network);
    text += files(rights.files);
    let _infallible = writeln!(text, "ReadWritePaths={}", crash_directory(role).display());
    text += ISOLATION;
    if sees_processes {
        text += "ProtectProc=default\nProcSubset=all\n";
    } else {
        text += "ProtectProc=invisible\nProcSubset=pid\n";
    }
    text += "SystemCallArchitectures=native\nSystemCallErrorNumber=EPERM\n";
    for line in wrapped(&system_calls(rights)) {
        let _infallible = writeln!(text, "SystemCallFilter={line}");
    }
    text += "\n[Install]\nWantedBy=leadsman.target\n";
    text
}

/// Roles that stop after `role` did.
fn later_rows(role: Role) -> impl Iterator<Item = Role> {
    let own = STOP_ORDER.iter().position(|row| row.contains(&role));
    let later = STOP_ORDER
        .get(own.map_or(STOP_ORDER.len(), |row| row + 1)..)
        .unwrap_or_default();
    later.iter().copied().flatten().copied()
}

fn capabilities(all: &[Capability], needed: impl Fn(When) -> bool) -> String {
    let chosen = all
        .iter()
        .filter(|one| one.at_start.iter().any(|when| needed(*when)))
        .fold(CapabilitySet::empty(), |all, one| all | one.set);
    if chosen.is_empty() {
        String::new()
    } else {
        capability_names(chosen)
    }
}

fn limit_name(resource: Resource) -> &'static str {
    match resource {
        Resource::Core => "CORE",
        Resource::Nofile => "NOFILE",
        Resource::Memlock => "MEMLOCK",
        other => panic!("{other:?}: name the unit's setting for it here"),
    }
}

/// Without a store there is no network for anybody; [`STORE`] opens it.
fn network(network: Network) -> &'static str {
    match network {
        Network::None | Network::Inherited | Network::Store => {
            "PrivateNetwork=yes\nIPAddressDeny=any\nRestrictAddressFamilies=AF_UNIX\nSocketBindDeny=any\n"
        }
    }
}

/// For the processes that reach the remote store, where one is configured: the system calls are those of
/// `rights::syscalls::STORE`.
const STORE: &str = "\
# For: a remote store, or a collector of traces (--otlp-address). Copy it to /etc/systemd/system/leadsman-shipper.service.d/ and
# /etc/systemd/system/leadsman-debuginfo-uploader.service.d/, then `systemctl daemon-reload`.
[Service]
PrivateNetwork=no
IPAddressDeny=
RestrictAddressFamilies=AF_INET AF_INET6
SystemCallFilter=bind sendmmsg
";

/// For a shipper that asks a container runtime.
const CONTAINER_RUNTIME: &str = "\
# For: --metadata-container-runtime-socket-path. Name the socket's group here (`stat -c %G /run/docker.sock`; containerd's is
# root's), copy it to /etc/systemd/system/leadsman-shipper.service.d/, then `systemctl daemon-reload`.
[Service]
SupplementaryGroups=docker
";

/// The file system is read-only for all; what a process writes to stands in its own directories (`manners`).
fn files(files: Files) -> &'static str {
    match files {
        Files::None
        | Files::ReadAnything
        | Files::ReadDirectory
        | Files::WriteDirectory
        | Files::WriteDirectoryReadMachine => {
            "ProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\nNoExecPaths=/\nExecPaths=/usr/lib -/usr/lib64 /lib -/lib64\n"
        }
    }
}

const ISOLATION: &str = "\
PrivateDevices=yes
DevicePolicy=closed
PrivateIPC=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RemoveIPC=yes
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
Delegate=no
";

/// The role's groups, and the start's.
fn system_calls(rights: &Rights) -> BTreeSet<&'static str> {
    let own = rights.groups.iter().flat_map(|group| group.calls);
    let mut names: BTreeSet<&str> = own.map(|call| call.name()).collect();
    names.extend(START.split_ascii_whitespace());
    if !rights.capabilities.is_empty() {
        names.insert("capset");
    }
    if rights.role == Role::Sampler {
        names.extend(["bpf", "perf_event_open"]);
    }
    names
}

fn wrapped(words: &BTreeSet<&str>) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words {
        let line = lines.last_mut().expect("there is one");
        if line.len() + word.len() > 100 {
            lines.push((*word).to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// The unit of a socket between processes: those may write to it that may connect.
fn edge_unit(edge: &Edge) -> String {
    let user = |role: &Role| rights::of(*role).map_or("root", |rights| rights.user);
    let owner = edge.connectors.first().map_or("root", user);
    let group = edge.connectors.get(1).map_or("root", user);
    let mode = roles::socket_mode(edge);
    format!(
        "{FIRST_LINE}[Unit]\nDescription=Leadsman's socket {socket}\nPartOf=leadsman.target\n\n[Socket]\n\
         ListenSequentialPacket=/run/leadsman/{socket}\nFileDescriptorName={socket}\nService={service}\n\
         SocketUser={owner}\nSocketGroup={group}\nSocketMode={mode:04o}\nDirectoryMode=0711\nBacklog=16\n\
         RemoveOnStop=yes\n\n[Install]\nWantedBy=leadsman.target\n",
        socket = edge.socket,
        service = service(edge.listener),
    )
}

fn http_unit() -> String {
    let (address, service) = (crate::cli::HTTP_ADDRESS, service(Role::Viewer));
    format!(
        "{FIRST_LINE}# Another address: `systemctl edit leadsman-http.socket`, with an empty ListenStream= before the new one.\n\
         [Unit]\nDescription=Leadsman's page and metrics\nPartOf=leadsman.target\n\n[Socket]\nListenStream={address}\n\
         FileDescriptorName=http\nService={service}\n\n[Install]\nWantedBy=leadsman.target\n"
    )
}

fn target() -> String {
    let units = |names: Vec<String>| names.join(" ");
    let services = units(rights::ALL.iter().map(|one| service(one.role)).collect());
    let sockets = units(
        EDGES
            .iter()
            .map(|edge| socket_unit(edge.socket))
            .chain([socket_unit("http")])
            .collect(),
    );
    format!(
        "{FIRST_LINE}[Unit]\nDescription=Leadsman, an always-on CPU profiler\nDocumentation=file:/usr/share/doc/leadsman/README.md\n\
         Wants={services}\nWants={sockets}\n\n[Install]\nWantedBy=multi-user.target\n"
    )
}

/// Each process's user (sysusers.d(5)).
fn sysusers() -> String {
    let mut text = FIRST_LINE.to_owned();
    for rights in &rights::ALL {
        let (user, role) = (rights.user, rights.role.name());
        let _infallible = writeln!(text, "u {user} - \"Leadsman {role}\" / /usr/sbin/nologin");
    }
    text
}

/// Directories that are there before any process (tmpfiles.d(5)): the viewer reads what the shipper writes.
fn tmpfiles() -> String {
    let user = |role| rights::of(role).map_or("root", |rights| rights.user);
    let shipper = user(Role::Shipper);
    let symbolizer = user(Role::Symbolizer);
    let mut text = format!(
        "{FIRST_LINE}d /run/leadsman 0711 root root -\nd /var/lib/leadsman 0755 root root -\n\
         d /var/lib/leadsman/profiles 0755 {shipper} {shipper} -\nd /var/lib/leadsman/spool 0700 {shipper} {shipper} -\n\
         d /var/cache/leadsman 0700 {symbolizer} {symbolizer} -\nd {CRASH_DIRECTORY} 0755 root root -\n"
    );
    for rights in &rights::ALL {
        let (path, user) = (crash_directory(rights.role), rights.user);
        let _infallible = writeln!(text, "d {} 0700 {user} {user} -", path.display());
    }
    text
}

/// Drop-ins for machines that take more capabilities than usual.
fn drop_ins() -> Vec<(PathBuf, String)> {
    let needing = rights::ALL.iter().filter_map(|rights| {
        let more = capabilities(rights.capabilities, |when| {
            !matches!(when, When::Always | When::Never)
        });
        (!more.is_empty()).then_some((rights, more))
    });
    needing
        .map(|(rights, more)| {
            let when: Vec<String> = rights
                .capabilities
                .iter()
                .flat_map(|one| one.at_start)
                .filter(|when| **when != When::Always)
                .map(|when| rights::condition(*when))
                .collect();
            let text = format!(
                "{FIRST_LINE}# For: {}. Installed where that holds.\n[Service]\nCapabilityBoundingSet={more}\nAmbientCapabilities={more}\n",
                when.join(", "),
            );
            let path = Path::new("drop-in").join(format!("{}.conf", roles::binary(rights.role)));
            (path, text)
        })
        .collect()
}

/// All files by their path below `systemd/`.
fn all() -> Vec<(PathBuf, String)> {
    let mut files = vec![
        ("leadsman.target".into(), target()),
        ("leadsman.sysusers".into(), sysusers()),
        ("leadsman.tmpfiles".into(), tmpfiles()),
        (socket_unit("http").into(), http_unit()),
    ];
    files.extend(
        rights::ALL
            .iter()
            .map(|one| (service(one.role).into(), service_unit(one))),
    );
    files.extend(
        EDGES
            .iter()
            .map(|edge| (socket_unit(edge.socket).into(), edge_unit(edge))),
    );
    files.extend(drop_ins());
    for (name, text) in [
        ("remote-store", STORE),
        ("container-runtime", CONTAINER_RUNTIME),
    ] {
        let path = format!("drop-in/{name}.conf");
        files.push((path.into(), format!("{FIRST_LINE}{text}")));
    }
    files
}
