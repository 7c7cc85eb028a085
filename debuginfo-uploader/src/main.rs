//! Leadsman's debuginfo-uploader: makes what the symbolizer offers small enough to send, and sends it to the store. Opens no
//! process's file. This file only wires.
#![forbid(unsafe_code)]

mod arguments;
mod chunks;
mod engine;
mod event_loop;
mod metrics;
mod offered_file;
mod outcome;
mod outcome_log;
mod signed_url;
mod started;
mod tally;
mod temporary;
mod upload;
mod uploads;

use std::process::ExitCode;
use std::sync::Arc;

use ipc_endpoint::inherited::Inherited;
use ipc_endpoint::lockdown::{self, Plan};
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_proto::hello::Role;
use remote_store::RemoteStore;
use remote_store::settings::TOKEN_VARIABLE;
use traces::Prepared;

use crate::arguments::Arguments;
use crate::engine::{Engine, Rules};
use crate::event_loop::EventLoop;
use crate::temporary::Temporary;
use crate::upload::Context;
use crate::uploads::Uploads;

const ROLE: Role = Role::DebuginfoUploader;

fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let arguments = match Arguments::parse(arguments, std::env::var_os(TOKEN_VARIABLE)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("leadsman-debuginfo-uploader: {error}");
            return ExitCode::from(2);
        }
    };
    arguments.common.begin(ROLE);
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
    let listener = Inherited::from_environment()?.listener("debuginfo.sock")?;
    let reporter = Reporter::new(&common.runtime_directory, ROLE, &common.peers);
    let wanted = arguments.wants_uploads();
    let runtime = wanted.then(uploads::runtime).transpose()?;
    let context = runtime.as_ref().map(|runtime| context(arguments, runtime));
    let context = context.transpose()?;
    let traces = match wanted {
        true => traces::prepare(&arguments.traces, ROLE)?,
        false => None,
    };
    let mut plan = Plan::default();
    if wanted {
        plan.write.push(arguments.temporary_directory.clone());
        arguments.store.allow(&mut plan);
        arguments.traces.allow(&mut plan);
        // Signed URLs lead to whatever port the storage has.
        plan.connect_anywhere = true;
    }
    lockdown::enter(ROLE, &plan)?;
    let traces = traces.map(Prepared::start).transpose()?;
    let context = context.map(Arc::new);
    let uploads = context
        .as_ref()
        .zip(runtime)
        .map(|(context, runtime)| Uploads::start(runtime, Arc::clone(context)));
    let engine = Engine::new(Rules {
        wanted,
        max_parallel: arguments.max_parallel,
        max_jobs: arguments.queue_size,
        cache: match arguments.caching_disabled {
            true => 0,
            false => u64::try_from(arguments.cache.as_nanos()).unwrap_or(u64::MAX),
        },
    });
    EventLoop::new(
        listener,
        common.peers.clone(),
        engine,
        context.zip(uploads.transpose()?),
        reporter,
        termination,
    )
    .with_traces(traces)
    .run()?;
    Ok(())
}

/// Everything that is opened before the lockdown.
fn context(
    arguments: &Arguments,
    runtime: &tokio::runtime::Runtime,
) -> Result<Context, Box<dyn std::error::Error>> {
    let directory = &arguments.temporary_directory;
    let temporary = Temporary::open(directory).map_err(|error| {
        format!(
            "cannot make files in {}: {error}: choose another --debuginfo-temp-dir",
            directory.display()
        )
    })?;
    let store = {
        // The channel's own tasks belong to the runtime that it is made in.
        let _entered = runtime.enter();
        RemoteStore::new(&arguments.store)?
    };
    // Without it the store's signed URLs fail, should it ever name one; nothing else does.
    let https = remote_store::https(&arguments.store)
        .inspect_err(|error| log::info!("no signed URL can be used: {error}"))
        .ok()
        .map(Arc::new);
    Ok(Context::new(
        store,
        https,
        arguments.options,
        arguments.timeout,
        temporary,
    ))
}
