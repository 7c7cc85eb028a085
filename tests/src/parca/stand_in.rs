//! Runs the stand-in on 127.0.0.1: starts, stops as abruptly as a killed server, starts again on the same port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::gate::Gate;
use super::services::Shared;
use super::signed::SignedUrls;
use super::store::Store;
use crate::generated::debuginfo::debuginfo_service_server::DebuginfoServiceServer;
use crate::generated::profilestore::profile_store_service_server::ProfileStoreServiceServer;
use crate::generated::query::query_service_server::QueryServiceServer;

/// The largest message that the real server takes.
const MAX_MESSAGE: usize = 64 << 20;

/// How the server is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether it understands no compressed messages.
    pub without_gzip: bool,
    /// Whether files go to signed URLs.
    pub signed_urls: bool,
}

/// A server that runs, or is stopped for now.
#[derive(Debug)]
pub struct StandIn {
    pub address: SocketAddr,
    options: Options,
    shared: Shared,
    runtime: Option<Runtime>,
}

impl StandIn {
    /// Starts on a free port.
    pub fn start(options: Options) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut server = Self {
            address: listener.local_addr()?,
            options,
            shared: Shared::default(),
            runtime: None,
        };
        if options.signed_urls {
            // Kept for restarts; its port stays the same as well.
            let storage = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            server.shared.signed = Some(SignedUrls::new(storage.local_addr()?));
            drop(storage);
        }
        server.run(listener)?;
        Ok(server)
    }

    /// The store, locked: for short looks.
    pub fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.shared.store()
    }

    /// Tokens, demands and counts.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// The object storage, when there is one.
    #[must_use]
    pub fn storage(&self) -> Option<&SignedUrls> {
        self.shared.signed.as_ref()
    }

    /// Closes the port and all connections at once. What was stored stays.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Starts again after [`StandIn::stop`].
    pub fn start_again(&mut self) -> Result<()> {
        self.stop();
        let address = self.address;
        let listener = crate::process::until(
            "the port is free again",
            std::time::Duration::from_secs(5),
            || Ok(TcpListener::bind(address).ok()),
        )?;
        self.run(listener)
    }

    /// Forgets everything, as a server without persistence does at a restart.
    pub fn forget(&self) {
        *self.store() = Store::default();
    }

    fn run(&mut self, listener: TcpListener) -> Result<()> {
        listener.set_nonblocking(true)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("no runtime")?;
        let shared = self.shared.clone();
        let mut profiles =
            ProfileStoreServiceServer::new(shared.clone()).max_decoding_message_size(MAX_MESSAGE);
        let mut debuginfo =
            DebuginfoServiceServer::new(shared.clone()).max_decoding_message_size(MAX_MESSAGE);
        let queries =
            QueryServiceServer::new(shared.clone()).max_encoding_message_size(MAX_MESSAGE);
        if !self.options.without_gzip {
            profiles = profiles
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip);
            debuginfo = debuginfo
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip);
        }
        if let Some(storage) = &shared.signed {
            let listener = TcpListener::bind(storage.address())?;
            listener.set_nonblocking(true)?;
            runtime.spawn(storage.clone().serve(listener, shared.clone()));
        }
        let router = Server::builder()
            .layer(shared.gate.clone())
            .add_service(profiles)
            .add_service(debuginfo)
            .add_service(queries);
        let incoming = {
            let _inside = runtime.enter();
            TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?)
        };
        runtime.spawn(router.serve_with_incoming(incoming));
        self.runtime = Some(runtime);
        Ok(())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop();
    }
}
