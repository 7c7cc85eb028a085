//! A real nginx in front of a gRPC server: TLS, tokens, client certificates. One per value, on a port and a directory of its
//! own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::certificates::Identity;
use crate::process::{Running, until};
use crate::require_command;

/// What it asks of clients.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demands<'a> {
    /// A bearer token.
    pub token: Option<&'a str>,
    /// A certificate that this authority signed.
    pub client_authority: Option<&'a Path>,
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    pub address: SocketAddr,
    running: Running,
    directory: TempDir,
    upstream: String,
    identity: Identity,
}

impl Nginx {
    /// Starts it before `upstream` (HOST:PORT), which speaks gRPC in plaintext.
    pub fn start(upstream: &str, identity: &Identity, demands: Demands<'_>) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        // Free a moment ago, and reused: nginx opens its port itself.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let configuration = directory.path().join("nginx.conf");
        std::fs::write(
            &configuration,
            configuration_text(directory.path(), address, upstream, identity, demands),
        )?;
        let mut running = Running::start(
            Command::new(require_command("nginx")?)
                .arg("-p")
                .arg(directory.path())
                .arg("-e")
                .arg(directory.path().join("error.log"))
                .arg("-c")
                .arg(&configuration),
        )?;
        let up = until("nginx listens", Duration::from_secs(10), || {
            if !running.is_alive()? {
                return Ok(Some(false));
            }
            Ok(TcpStream::connect(address).is_ok().then_some(true))
        })?;
        if !up {
            let output = running.wait(Duration::from_secs(1))?;
            bail!("nginx ended with {}: {}", output.status, output.stderr);
        }
        Ok(Self {
            address,
            running,
            directory,
            upstream: upstream.to_owned(),
            identity: identity.clone(),
        })
    }

    /// Demands something else from now on.
    pub fn reload(&self, demands: Demands<'_>) -> Result<()> {
        std::fs::write(
            self.directory.path().join("nginx.conf"),
            configuration_text(
                self.directory.path(),
                self.address,
                &self.upstream,
                &self.identity,
                demands,
            ),
        )?;
        self.running.signal(Signal::HUP)
    }

    /// The lines of its access log: one a request.
    pub fn access_log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(
            self.directory.path().join("access.log"),
        )?)
    }
}

fn configuration_text(
    directory: &Path,
    address: SocketAddr,
    upstream: &str,
    identity: &Identity,
    demands: Demands<'_>,
) -> String {
    let directory = directory.display();
    let certificate = identity.certificate.display();
    let key = identity.key.display();
    let passes = match demands.token {
        None => "default 1;".to_owned(),
        Some(token) => format!("default 0; \"Bearer {token}\" 1;"),
    };
    let client = demands
        .client_authority
        .map_or_else(String::new, |authority| {
            format!(
                "ssl_client_certificate {}; ssl_verify_client on;",
                authority.display()
            )
        });
    format!(
        "daemon off; master_process on; worker_processes 1; user root; pid {directory}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log {directory}/access.log;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  map $http_authorization $passes {{ {passes} }}
  server {{
    listen {address} ssl http2;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    {client}
    client_max_body_size 0;
    if ($passes = 0) {{ return 401; }}
    location / {{ grpc_pass grpc://{upstream}; grpc_read_timeout 300s; grpc_send_timeout 300s; }}
  }}
}}
"
    )
}
