//! Leadsman's shipper: turns symbolized windows into pprof profiles and keeps them in the local store.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use ipc_endpoint::inherited::Inherited;
use ipc_endpoint::lockdown::{self, Plan};
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_proto::hello::Role;
use leadsman_shipper::arguments::Arguments;
use leadsman_shipper::engine::Engine;
use leadsman_shipper::event_loop::EventLoop;
use leadsman_shipper::profile::Labels;
use leadsman_shipper::store::LocalStore;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("leadsman-shipper: {error}");
            return ExitCode::from(2);
        }
    };
    arguments.common.begin(Role::Shipper);
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let common = &arguments.common;
    let termination = Termination::watch()?;
    let listener = Inherited::from_environment()?.listener("symbolized.sock")?;
    let reporter = Reporter::new(&common.runtime_directory, Role::Shipper, &common.peers);
    // Who may enter the directory may read the profiles, and nobody else may write them.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let store = LocalStore::open(&arguments.store_directory, arguments.retention)?;
    let node = arguments.node.clone().unwrap_or_else(|| {
        let name = rustix::system::uname();
        name.nodename().to_string_lossy().into_owned()
    });
    let engine = Engine::new(Labels::new(node, arguments.labels.clone()));
    let plan = Plan {
        read: Vec::new(),
        write: vec![arguments.store_directory.clone()],
    };
    lockdown::enter(Role::Shipper, &plan)?;
    EventLoop::new(
        listener,
        common.peers.clone(),
        engine,
        store,
        reporter,
        termination,
    )
    .run()?;
    Ok(())
}
