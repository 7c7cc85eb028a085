//! TLS, bearer tokens and client certificates as a real nginx demands them, in front of the stand-in. Whatever is refused is
//! kept and comes once the reason is gone; nothing needs a restart.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::certificates::{Authority, Identity};
use leadsman_tests::nginx::{Demands, Nginx};
use leadsman_tests::parca::{Options, StandIn};
use leadsman_tests::process::until;
use leadsman_tests::up::Up;
use leadsman_tests::workloads::Workload;
use leadsman_tests::{Machine, public_directory};
use rustix::process::Signal;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(40);

/// A stand-in, an authority and a server certificate; readable by Leadsman's processes.
struct Site {
    server: StandIn,
    authority: Authority,
    identity: Identity,
    directory: TempDir,
}

impl Site {
    fn new() -> Result<Self> {
        let directory = public_directory("site-")?;
        let authority = Authority::new(directory.path(), "authority")?;
        Ok(Self {
            server: StandIn::start(Options::default())?,
            identity: authority.identity("server", false)?,
            authority,
            directory,
        })
    }

    fn nginx(&self, demands: Demands<'_>) -> Result<Nginx> {
        Nginx::start(&self.server.address.to_string(), &self.identity, demands)
    }

    fn samples(&self) -> i64 {
        self.server.store().samples()
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is UTF-8")
}

/// Leadsman that ships to `nginx`, trusting `authority`.
fn up(nginx: &Nginx, authority: &Path, more: &[&str]) -> Result<Up> {
    let address = nginx.address.to_string();
    let mut arguments = vec!["--remote-store-ca-file", text(authority)?];
    arguments.extend_from_slice(more);
    Up::start_with_remote_store(1, &address, &arguments)
}

/// The same, with a client certificate.
fn up_showing(nginx: &Nginx, authority: &Path, identity: &Identity) -> Result<Up> {
    up(
        nginx,
        authority,
        &[
            "--remote-store-client-cert",
            text(&identity.certificate)?,
            "--remote-store-client-key",
            text(&identity.key)?,
        ],
    )
}

/// Ends Leadsman; returns what it logged.
fn log_of(up: Up) -> Result<String> {
    let (output, _directory) = up.stop(Signal::TERM)?;
    Ok(output.stderr)
}

/// Lines of the log that are about the remote store's refusal.
fn warnings<'a>(log: &'a str, about: &'a str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(about)).collect()
}

fn arrives(site: &Site, what: &str) -> Result<()> {
    let before = site.samples();
    until(what, PATIENCE, || {
        Ok((site.samples() > before).then_some(()))
    })
}

#[test]
fn a_token_file_is_read_again_when_it_changes() -> Result<()> {
    let _machine = Machine::lock()?;
    let site = Site::new()?;
    let nginx = site.nginx(Demands {
        token: Some("second"),
        ..Demands::default()
    })?;
    let token = site.directory.path().join("token");
    std::fs::write(&token, "first\n")?;
    let _workload = Workload::start("chains-O2", &["100"])?;
    let up = up(
        &nginx,
        &site.authority.certificate,
        &["--remote-store-bearer-token-file", text(&token)?],
    )?;
    until("the wrong token is refused", PATIENCE, || {
        Ok((nginx.access_log()?.matches(" 401 ").count() >= 2).then_some(()))
    })?;
    ensure!(site.samples() == 0, "a wrong token passed");
    // As a secret's rotation does it: a new file in the old one's place.
    let next = site.directory.path().join("token.next");
    std::fs::write(&next, "second\n")?;
    std::fs::rename(&next, &token)?;
    arrives(&site, "samples arrive with the rotated token")?;
    until(
        "files are uploaded with the rotated token",
        PATIENCE,
        || {
            let store = site.server.store();
            Ok(store
                .uploads
                .records()
                .values()
                .any(|record| record.finished > 0)
                .then_some(()))
        },
    )?;
    let metrics = up.metrics()?;
    let log = log_of(up)?;
    ensure!(
        !log.contains("first") && !log.contains("second"),
        "a token is in the log: {log}"
    );
    let refused = warnings(&log, "nauthenticated");
    ensure!(
        !refused.is_empty() && refused.len() <= 4,
        "{} lines about one refused token in the log:\n{log}",
        refused.len()
    );
    ensure!(
        metrics
            .sum(
                "leadsman_edge_dropped_samples_total",
                &[("process", "shipper")]
            )
            .unwrap_or(0.0)
            == 0.0
    );
    Ok(())
}

#[test]
fn a_server_is_believed_only_with_a_valid_certificate() -> Result<()> {
    let _machine = Machine::lock()?;
    let mut site = Site::new()?;
    let _workload = Workload::start("chains-O2", &["100"])?;
    // Valid, but signed by somebody else.
    let stranger = Authority::new(site.directory.path(), "stranger")?;
    let nginx = site.nginx(Demands::default())?;
    let running = up(&nginx, &stranger.certificate, &[])?;
    until("a connection is tried and given up", PATIENCE, || {
        let warned = running.metrics()?;
        Ok(spooled(&warned).filter(|samples| *samples > 0.0))
    })?;
    ensure!(site.samples() == 0, "an unknown certificate was believed");
    let log = log_of(running)?;
    ensure!(
        !warnings(&log, "certificate").is_empty(),
        "the log does not say why: {log}"
    );
    // The same with verification switched off.
    let running = up(
        &nginx,
        &stranger.certificate,
        &["--remote-store-insecure-skip-verify"],
    )?;
    arrives(&site, "samples arrive without verification")?;
    drop(running);
    drop(nginx);
    // Of the right authority, but expired.
    site.identity = site.authority.identity("expired", true)?;
    let nginx = site.nginx(Demands::default())?;
    let before = site.samples();
    let running = up(&nginx, &site.authority.certificate, &[])?;
    until("a connection is tried and given up", PATIENCE, || {
        let warned = running.metrics()?;
        Ok(spooled(&warned).filter(|samples| *samples > 0.0))
    })?;
    ensure!(
        site.samples() == before,
        "an expired certificate was believed"
    );
    let log = log_of(running)?;
    ensure!(
        !warnings(&log, "expired").is_empty(),
        "the log does not say why: {log}"
    );
    Ok(())
}

#[test]
fn a_client_shows_its_certificate() -> Result<()> {
    let _machine = Machine::lock()?;
    let site = Site::new()?;
    let nginx = site.nginx(Demands {
        client_authority: Some(&site.authority.certificate),
        ..Demands::default()
    })?;
    let _workload = Workload::start("chains-O2", &["100"])?;
    let stranger = Authority::new(site.directory.path(), "stranger")?;
    let cases = [
        ("valid", site.authority.identity("client", false)?, true),
        ("expired", site.authority.identity("late", true)?, false),
        ("unknown", stranger.identity("client", false)?, false),
    ];
    for (name, identity, passes) in cases {
        let before = site.samples();
        let requests = nginx.access_log()?.lines().count();
        let running = up_showing(&nginx, &site.authority.certificate, &identity)?;
        if passes {
            arrives(&site, "samples arrive with a client certificate")?;
        } else {
            until("nginx refuses", PATIENCE, || {
                Ok((nginx.access_log()?.lines().count() > requests).then_some(()))
            })?;
            ensure!(
                site.samples() == before,
                "a client with the certificate '{name}' passed"
            );
        }
        log_of(running)?;
    }
    // Without any.
    let before = site.samples();
    let running = up(&nginx, &site.authority.certificate, &[])?;
    until("samples are kept", PATIENCE, || {
        Ok(spooled(&running.metrics()?).filter(|samples| *samples > 0.0))
    })?;
    ensure!(
        site.samples() == before,
        "a client without a certificate passed"
    );
    Ok(())
}

#[test]
fn renewed_certificates_are_read_again() -> Result<()> {
    let _machine = Machine::lock()?;
    let site = Site::new()?;
    let nginx = site.nginx(Demands {
        client_authority: Some(&site.authority.certificate),
        ..Demands::default()
    })?;
    let _workload = Workload::start("chains-O2", &["100"])?;
    let shown = site.authority.identity("client", true)?;
    let stranger = Authority::new(site.directory.path(), "stranger")?;
    let running = up_showing(&nginx, &stranger.certificate, &shown)?;
    until("samples are kept", PATIENCE, || {
        Ok(spooled(&running.metrics()?).filter(|samples| *samples > 0.0))
    })?;
    // The server's authority is known now, the own certificate still expired.
    replace(&stranger.certificate, &site.authority.certificate)?;
    until("nginx refuses", PATIENCE, || {
        Ok((nginx.access_log()?.lines().count() > 0).then_some(()))
    })?;
    ensure!(site.samples() == 0, "an expired certificate passed");
    // A certificate whose key comes later, as two files do: the old pair stands.
    let renewed = site.authority.identity("renewed", false)?;
    replace(&shown.certificate, &renewed.certificate)?;
    std::thread::sleep(Duration::from_secs(3));
    replace(&shown.key, &renewed.key)?;
    arrives(&site, "samples arrive with the renewed certificate")?;
    log_of(running)?;
    Ok(())
}

/// Another file in a file's place, as a renewal puts it there.
fn replace(file: &Path, by: &Path) -> Result<()> {
    let next = file.with_extension("next");
    std::fs::copy(by, &next)?;
    std::fs::rename(next, file)?;
    Ok(())
}

/// Samples that wait on disk.
fn spooled(metrics: &leadsman_tests::metrics::Metrics) -> Option<f64> {
    metrics.sum("leadsman_spool_samples", &[])
}
