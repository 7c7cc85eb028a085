//! Leadsman's shipper: turns symbolized windows into pprof profiles and keeps them in the local store.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ipc_endpoint::inherited::Inherited;
use ipc_endpoint::lockdown::{self, Plan};
use ipc_endpoint::settings::{Publisher, SOCKET};
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_proto::hello::Role;
use leadsman_shipper::arguments::Arguments;
use leadsman_shipper::engine::Engine;
use leadsman_shipper::event_loop::EventLoop;
use leadsman_shipper::labels::cgroups::Tree;
use leadsman_shipper::labels::kubernetes::{Access, Pods};
use leadsman_shipper::labels::runtime::Containers;
use leadsman_shipper::labels::{self, Labeller, Settings, Sources};
use leadsman_shipper::reload::{Reload, host_name};
use leadsman_shipper::remote::runtime::Remote;
use leadsman_shipper::store::LocalStore;
use traces::Prepared;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Not a part of what runs: prints the labels of a live process.
    let pid = (arguments.first().is_some_and(|first| first == "labels")).then(|| {
        arguments.remove(0);
        // The shipper's own arguments say where to store; nothing is stored.
        arguments.push("--local-store-directory=/nonexistent".into());
        labels::command::pid_of(&mut arguments)
    });
    let parsed = Arguments::parse(arguments).and_then(|mut arguments| {
        let token = std::env::var_os(remote_store::settings::TOKEN_VARIABLE);
        arguments.remote.settings.take_token(token)?;
        Ok(arguments)
    });
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("leadsman-shipper: {error}");
            return ExitCode::from(2);
        }
    };
    if let Some(pid) = pid {
        return print_labels(pid, &arguments);
    }
    arguments.common.begin(Role::Shipper);
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print_labels(pid: Result<u32, String>, arguments: &Arguments) -> ExitCode {
    let pid = match pid {
        Ok(pid) => pid,
        Err(error) => {
            eprintln!("leadsman-shipper: {error}");
            return ExitCode::from(2);
        }
    };
    let tree = tree();
    let printed = sources(arguments, tree)
        .map_err(Into::into)
        .and_then(|sources| labels::command::run(pid, settings(arguments), sources));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leadsman-shipper: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The name of this node: as told, or the host's.
fn node(arguments: &Arguments) -> String {
    arguments.node.clone().unwrap_or_else(host_name)
}

fn settings(arguments: &Arguments) -> Settings {
    Settings {
        node: node(arguments),
        external: arguments.labels.clone(),
        command_line: arguments.command_line,
    }
}

fn tree() -> Option<Tree> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let tree = Tree::of_mounts(&mounts);
    if tree.is_none() {
        log::info!(
            "no cgroup2 tree is mounted: containers and units are known of living processes only"
        );
    }
    tree
}

/// Those who know more. Starts their threads.
fn sources(arguments: &Arguments, tree: Option<Tree>) -> std::io::Result<Sources> {
    let pods = match &arguments.kubernetes_server {
        Some(server) => Some(Pods::follow(Access {
            server: server.clone(),
            authority: arguments.kubernetes_authority.clone(),
            token: arguments.kubernetes_token.clone(),
            node: node(arguments),
        })?),
        None => None,
    };
    let containers = match &arguments.runtime_socket {
        Some(socket) => Some(Containers::follow(socket.clone())?),
        None => None,
    };
    Ok(Sources {
        tree,
        pods,
        containers,
    })
}

/// What is read by path after the lockdown.
fn readable(arguments: &Arguments, tree: Option<&Tree>) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/proc")];
    paths.extend(tree.map(|tree| tree.directory.clone()));
    // The kubelet renews a token by another file behind a symbolic link beside it.
    let files = [&arguments.kubernetes_authority, &arguments.kubernetes_token];
    let directories = files
        .into_iter()
        .flatten()
        .filter_map(|file| file.parent().map(Path::to_owned));
    for directory in directories {
        if !paths.contains(&directory) {
            paths.push(directory);
        }
    }
    paths
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let common = &arguments.common;
    let termination = Termination::watch()?;
    let mut inherited = Inherited::from_environment()?;
    let listener = inherited.listener("symbolized.sock")?;
    let reload = Reload::start(arguments)?;
    // Who starts the shipper by hand need not pass it.
    let publisher = inherited.listener(SOCKET).ok();
    let publisher =
        publisher.map(|listener| Publisher::new(listener, &common.peers, reload.published()));
    let reporter = Reporter::new(&common.runtime_directory, Role::Shipper, &common.peers);
    // Who may enter the directory may read the profiles, and nobody else may write them.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let store = LocalStore::open(&arguments.store_directory, arguments.retention)?;
    let tree = tree();
    let prepared = arguments.remote.prepare()?;
    let traces = traces::prepare(&arguments.traces, Role::Shipper)?;
    let mut engine = Engine::default();
    let mut plan = Plan {
        read: readable(arguments, tree.as_ref()),
        write: vec![arguments.store_directory.clone()],
        ..Plan::default()
    };
    plan.read.extend(reload.directories());
    if prepared.is_some() {
        engine = engine.with_remote_store();
        plan.write.extend(arguments.remote.spool_directory.clone());
        arguments.remote.settings.allow(&mut plan);
    }
    arguments.traces.allow(&mut plan);
    // The API's port, where Kubernetes is asked; a pod is told its address as numbers, so no name server is.
    let api = arguments.kubernetes_server.as_deref();
    plan.connect.extend(api.and_then(Access::port));
    lockdown::enter(Role::Shipper, &plan)?;
    // Threads that ran before it would keep their rights.
    let labeller = Labeller::new(settings(arguments), sources(arguments, tree)?);
    let traces = traces.map(Prepared::start).transpose()?;
    let remote = prepared.map(Remote::start).transpose()?;
    EventLoop::new(
        listener,
        common.peers.clone(),
        labeller,
        engine,
        store,
        reporter,
        termination,
    )
    .with_remote(remote)
    .with_traces(traces)
    .with_settings(reload, publisher)
    .run()?;
    Ok(())
}
