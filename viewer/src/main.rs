//! Leadsman's viewer: serves the page, profiles, metrics and readiness to local clients from the local store, which it only
//! reads. It parses what strangers send and what others wrote, so it has no rights at all.
#![forbid(unsafe_code)]

mod answers;
mod cache;
mod clients;
mod config;
mod counters;
mod engine;
mod event_loop;
mod http;
mod jobs;
mod metrics;
mod processes;
mod profile;
mod routes;
mod selector;
mod statistics;
mod status;
mod store;
mod stored;
mod tree;
mod windows;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use ipc_endpoint::inherited::Inherited;
use ipc_endpoint::listener::Listener;
use ipc_endpoint::lockdown::{self, Plan};
use ipc_endpoint::settings::Subscriber;
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::OwnCost;
use ipc_proto::hello::Role;
use thiserror::Error;

use crate::cache::CACHE_BYTES;
use crate::clients::Clients;
use crate::config::Config;
use crate::engine::Engine;
use crate::event_loop::EventLoop;
use crate::http::AllowedHosts;
use crate::statistics::Reporters;
use crate::store::Store;

/// The address can't be listened on.
#[derive(Debug, Error)]
#[error(
    "cannot listen on {address}: {error}; is another viewer running? Choose another --http-address"
)]
struct ListenError {
    address: SocketAddr,
    error: std::io::Error,
}

fn main() -> ExitCode {
    let config = match Config::parse(std::env::args_os().skip(1)) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("leadsman-viewer: {error}");
            return ExitCode::from(2);
        }
    };
    config.common.begin(Role::Viewer);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let termination = Termination::watch()?;
    let mut inherited = Inherited::from_environment()?;
    let listener = listen(inherited.take("http"), config.http_address)?;
    let address = listener.local_addr()?;
    let store = config
        .store_directory
        .as_deref()
        .map(Store::open)
        .transpose()?;
    let reporters = inherited
        .take("statistics.sock")
        .map(|fd| Reporters::new(Listener::from_fd(fd), config.common.peers.clone()));
    let engine = Engine::new(AllowedHosts::new(address), CACHE_BYTES);
    let clients = Clients::new(listener)?;
    let cost = OwnCost::open(Role::Viewer);
    let common = &config.common;
    let settings = Subscriber::new(&common.runtime_directory, Role::Viewer, &common.peers);
    let plan = Plan {
        read: config.store_directory.into_iter().collect(),
        ..Plan::default()
    };
    lockdown::enter(Role::Viewer, &plan)?;
    log::info!("the page is at http://{address}");
    EventLoop::new(
        engine,
        clients,
        store,
        reporters,
        cost,
        settings,
        termination,
    )
    .run()?;
    Ok(())
}

/// The listening socket: inherited, or our own.
fn listen(inherited: Option<OwnedFd>, address: SocketAddr) -> Result<TcpListener, ListenError> {
    match inherited {
        Some(fd) => Ok(TcpListener::from(fd)),
        None => TcpListener::bind(address).map_err(|error| ListenError { address, error }),
    }
}
