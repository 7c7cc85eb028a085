//! Leadsman's debuginfo-uploader: receives offers of executables, checks and counts them. It has no store to send them to,
//! and so no network.
#![forbid(unsafe_code)]

mod engine;
mod event_loop;
mod offered_file;

use std::process::ExitCode;

use ipc_endpoint::arguments::Common;
use ipc_endpoint::inherited::Inherited;
use ipc_endpoint::lockdown::{self, Plan};
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_proto::hello::Role;

use crate::event_loop::EventLoop;

const ROLE: Role = Role::DebuginfoUploader;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let common = match Common::parse(arguments, |_name, _parser| Ok(false)) {
        Ok(common) => common,
        Err(error) => {
            eprintln!("leadsman-debuginfo-uploader: {error}");
            return ExitCode::from(2);
        }
    };
    common.begin(ROLE);
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
    let listener = Inherited::from_environment()?.listener("debuginfo.sock")?;
    let reporter = Reporter::new(&common.runtime_directory, ROLE, &common.peers);
    lockdown::enter(ROLE, &Plan::default())?;
    EventLoop::new(listener, common.peers.clone(), reporter, termination).run()?;
    Ok(())
}
