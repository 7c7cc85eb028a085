//! Leadsman's opener: opens, never reads, the files of profiled processes, and hands out read-only descriptors.
#![forbid(unsafe_code)]

mod arguments;
mod debug_directories;
mod engine;
mod event_loop;
mod files;
mod permits;
mod process_directory;
mod request;
mod workers;

use std::process::ExitCode;

use ipc_endpoint::inherited::Inherited;
use ipc_endpoint::lockdown::{self, Plan};
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_proto::hello::Role;

use crate::arguments::Arguments;
use crate::event_loop::EventLoop;
use crate::workers::Workers;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("leadsman-opener: {error}");
            return ExitCode::from(2);
        }
    };
    arguments.common.begin(Role::Opener);
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let common = arguments.common;
    let termination = Termination::watch()?;
    let listener = Inherited::from_environment()?.listener("opener.sock")?;
    let reporter = Reporter::new(&common.runtime_directory, Role::Opener, &common.peers);
    let directories = arguments.debug_directories;
    let open = Box::new(move |request: &_, ways| request::open(request, ways, &directories));
    let workers = Workers::new(open)?;
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
