//! Leadsman's symbolizer: reads other people's bytes, without any rights: unwind tables for the sampler, names for the
//! shipper. This file only wires.
#![forbid(unsafe_code)]

mod arguments;
mod delivery;
mod engine;
mod event_loop;
mod executables;
mod finish;
mod images;
mod job;
mod metrics;
mod modules;
mod name_worker;
mod peer;
mod quarantine;
mod requests;
mod symbolize;
mod table_cache;
mod table_worker;
mod window;

use std::ffi::OsString;
use std::fs::File;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use ipc_endpoint::arguments::Common;
use ipc_endpoint::connect::Connector;
use ipc_endpoint::inherited::Inherited;
use ipc_endpoint::lockdown::{self, Plan};
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_proto::header::Message;
use ipc_proto::hello::Role;
use leadsman_symbolizer::inspect;
use rustix::io::Errno;

use crate::arguments::Arguments;
use crate::event_loop::{EventLoop, Others, Shared};
use crate::name_worker::NameWorker;
use crate::peer::Peer;
use crate::quarantine::Quarantine;
use crate::symbolize::Namer;
use crate::table_cache::TableCache;
use crate::table_worker::TableWorker;

/// Requests that may wait for the opener.
const MAX_REQUESTS: usize = 8192;
/// Offers that may wait for the uploader, each with an open file.
const MAX_OFFERS: usize = 64;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "inspect") {
        return inspect::run(arguments.drain(1..));
    }
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("leadsman-symbolizer: {error}");
            return ExitCode::from(2);
        }
    };
    arguments.common.begin(Role::Symbolizer);
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
    let mut inherited = Inherited::from_environment()?;
    let listener = inherited.listener("samples.sock")?;
    let modules = inherited.take("modules").map(File::from);
    let reporter = Reporter::new(&common.runtime_directory, Role::Symbolizer, &common.peers);
    let (cache, quarantine) = open_cache(arguments);
    let shared = Shared {
        quarantine: Arc::new(Mutex::new(quarantine)),
        ..Shared::default()
    };
    let others = Others {
        listener,
        peers: common.peers.clone(),
        opener: Peer::new(
            "opener",
            connector(common, "opener.sock", Role::Opener),
            MAX_REQUESTS,
        ),
        shipper: Peer::new(
            "shipper",
            connector(common, "symbolized.sock", Role::Shipper),
            0,
        ),
        uploader: Peer::new(
            "debuginfo-uploader",
            connector(common, "debuginfo.sock", Role::DebuginfoUploader),
            MAX_OFFERS,
        ),
    };
    let plan = Plan {
        write: cache
            .directory()
            .and(arguments.cache_directory.clone())
            .into_iter()
            .collect(),
        ..Plan::default()
    };
    lockdown::enter(Role::Symbolizer, &plan)?;
    let tables = TableWorker {
        cache,
        quarantine: Arc::clone(&shared.quarantine),
        counts: Arc::clone(&shared.table_counts),
    };
    let namer = Namer::new(Arc::clone(&shared.quarantine));
    let names = NameWorker::new(namer, modules, Arc::clone(&shared.name_bytes));
    EventLoop::start(others, reporter, termination, shared, tables, names)?.run()?;
    Ok(())
}

fn connector<Out: Message, In: Message>(
    common: &Common,
    socket: &str,
    peer: Role,
) -> Connector<Out, In> {
    let directory = &common.runtime_directory;
    Connector::new(directory, socket, Role::Symbolizer, peer, &common.peers)
}

/// The cache directory's two tenants. Without a usable directory every table is built anew and no crash is remembered.
fn open_cache(arguments: &Arguments) -> (TableCache, Quarantine) {
    let Some(path) = &arguments.cache_directory else {
        return (TableCache::none(), Quarantine::default());
    };
    let opened = TableCache::open(path).and_then(|cache| {
        let directory = cache.directory().ok_or(Errno::NOENT)?.try_clone_to_owned();
        let directory =
            directory.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs() as i64);
        Ok((cache, Quarantine::open(directory, now)?))
    });
    opened.unwrap_or_else(|error| {
        log::warn!(
            "cannot use the cache directory {}: {error}; unwind tables are built anew at each start",
            path.display()
        );
        (TableCache::none(), Quarantine::default())
    })
}
