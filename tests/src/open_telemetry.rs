//! A real OpenTelemetry Collector, built from its Go modules (`tests/collector`): takes OTLP by gRPC and HTTP, and writes
//! each batch that it understood as a line of OTLP JSON.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::process::{Running, run_ok, until};
use crate::{binaries, require_command};

/// Its modules are many; the first build takes minutes.
const BUILD: Duration = Duration::from_secs(1200);

/// The collector, stopped with the value.
#[derive(Debug)]
pub struct OpenTelemetry {
    _running: Running,
    directory: tempfile::TempDir,
    /// Where it takes OTLP by gRPC.
    pub grpc: SocketAddr,
    /// Where it takes OTLP by HTTP.
    pub http: SocketAddr,
}

impl OpenTelemetry {
    /// Starts it, and waits until it takes connections. `None`, and a line that says why, where the only Go is older than
    /// the collector's modules want, as Debian 12's is.
    pub fn start() -> Result<Option<Self>> {
        let (wanted, found) = (wanted()?, found()?);
        if found < wanted {
            println!(
                "did not run: the collector wants Go {}.{}, and this machine's is {}.{}: put a newer one into PATH or /usr/local/go",
                wanted.0, wanted.1, found.0, found.1
            );
            return Ok(None);
        }
        let program = program()?;
        let directory = tempfile::tempdir()?;
        let (grpc, http) = (free_address()?, free_address()?);
        let otlp = json!({"protocols": {
            "grpc": {"endpoint": grpc.to_string()},
            "http": {"endpoint": http.to_string()},
        }});
        let pipeline = json!({"receivers": ["otlp"], "exporters": ["lines"]});
        let configuration = json!({
            "receivers": {"otlp": otlp},
            "exporters": {"lines": {"path": lines_below(directory.path())}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": pipeline, "profiles": pipeline},
            },
        });
        // JSON is YAML.
        let file = directory.path().join("collector.yaml");
        std::fs::write(&file, configuration.to_string())?;
        let running = Running::start(
            Command::new(program)
                .arg(format!("--config=file:{}", file.display()))
                .arg("--feature-gates=service.profilesSupport"),
        )?;
        until("the collector listens", Duration::from_secs(60), || {
            let listens = |address: &SocketAddr| TcpStream::connect(address).is_ok();
            Ok([grpc, http].iter().all(listens).then_some(()))
        })?;
        Ok(Some(Self {
            _running: running,
            directory,
            grpc,
            http,
        }))
    }

    /// The batches so far that have `signal`: `resourceSpans`, `resourceProfiles`.
    pub fn batches(&self, signal: &str) -> Result<Vec<Value>> {
        let text = match std::fs::read_to_string(lines_below(self.directory.path())) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        // The last line may be under way.
        let whole = text
            .rsplit_once('\n')
            .map(|(whole, _)| whole)
            .unwrap_or_default();
        let mut found = Vec::new();
        for line in whole.lines() {
            let batch: Value = serde_json::from_str(line).context("a line of OTLP JSON")?;
            if batch.get(signal).is_some() {
                found.push(batch);
            }
        }
        Ok(found)
    }
}

fn lines_below(directory: &Path) -> PathBuf {
    directory.join("lines.jsonl")
}

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

/// The oldest Go that its modules build with.
fn wanted() -> Result<(u32, u32)> {
    let module = include_str!("../collector/go.mod");
    let line = module.lines().find_map(|line| line.strip_prefix("go "));
    version(line.context("go.mod names no Go")?)
}

fn found() -> Result<(u32, u32)> {
    let mut go = Command::new(require_command("go")?);
    go.arg("version").env("GOTOOLCHAIN", "local");
    let output = run_ok(&mut go, Duration::from_secs(60))?;
    let text = output.text();
    let name = text.split_whitespace().nth(2).unwrap_or_default();
    version(name.trim_start_matches("go"))
}

/// Major and minor of `1.26.0`.
fn version(text: &str) -> Result<(u32, u32)> {
    let numbers = text.split(|character: char| !character.is_ascii_digit());
    let numbers: Vec<u32> = numbers.map_while(|number| number.parse().ok()).collect();
    match numbers.as_slice() {
        [major, minor, ..] => Ok((*major, *minor)),
        _ => bail!("{text:?} is no version of Go"),
    }
}

/// Builds the collector once; Go knows what is built already.
fn program() -> Result<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = PROGRAM.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    match built {
        Ok(path) => Ok(path),
        Err(text) => Err(anyhow!(text.clone())),
    }
}

fn build() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("collector");
    let place = binaries::target_directory()?.join("workloads");
    let program = place.join("collector");
    run_ok(
        Command::new(require_command("go")?)
            .current_dir(&source)
            .args(["build", "-ldflags=-s -w", "-o"])
            .arg(&program)
            .arg(".")
            .env("GOCACHE", place.join("go-collector"))
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=readonly")
            .env("CGO_ENABLED", "0"),
        BUILD,
    )
    .context("cannot build the collector of tests/collector")?;
    Ok(program)
}
