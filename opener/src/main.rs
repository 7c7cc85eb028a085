//! Leadsman's opener: opens, never reads, the files of profiled processes, and hands out read-only descriptors.
#![forbid(unsafe_code)]

mod engine;
mod event_loop;
mod files;
mod permits;
mod process_directory;
mod request;
mod workers;

use std::process::ExitCode;

use ipc_endpoint::arguments::Common;
use ipc_endpoint::inherited::Inherited;
use ipc_endpoint::lockdown::{self, Plan};
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_proto::hello::Role;

use crate::event_loop::EventLoop;
use crate::workers::Workers;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let common = match Common::parse(arguments, |_name, _parser| Ok(false)) {
        Ok(common) => common,
        Err(error) => {
            eprintln!("leadsman-opener: {error}");
            return ExitCode::from(2);
        }
    };
    common.begin(Role::Opener);
    match run(&common) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(common: &Common) -> Result<(), Box<dyn std::error::Error>> {
    let termination = Termination::watch()?;
    let listener = Inherited::from_environment()?.listener("opener.sock")?;
    let reporter = Reporter::new(&common.runtime_directory, Role::Opener, &common.peers);
    let workers = Workers::new(request::open)?;
    lockdown::enter(Role::Opener, &Plan::default())?;
    EventLoop::new(
        listener,
        common.peers.clone(),
        workers,
        reporter,
        termination,
    )
    .run()?;
    Ok(())
}
