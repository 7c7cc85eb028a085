//! The page and its neighbours over HTTP, and the page as a browser shows it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::http::{get, percent_encoded, request};
use leadsman_tests::process::{run_ok, until};
use leadsman_tests::profile::Profile;
use leadsman_tests::up::Up;
use leadsman_tests::workloads::Workload;
use leadsman_tests::{Machine, binaries, require_command};

/// Waits until the page has a window to show.
fn started() -> Result<(Machine, Workload, Up)> {
    let machine = Machine::lock()?;
    let workload = Workload::start("chains-O2", &["600", "plain", "deep300"])?;
    let up = Up::start(1, &[])?;
    until("a window is stored", Duration::from_secs(15), || {
        Ok(std::fs::read_dir(up.store())?
            .flatten()
            .any(|entry| entry.path().extension() == Some("gz".as_ref()))
            .then_some(()))
    })?;
    Ok((machine, workload, up))
}

#[test]
fn what_is_served_and_what_is_refused() -> Result<()> {
    let (_machine, _workload, up) = started()?;
    let address = up.address;
    let page = get(address, "/")?;
    ensure!(
        page.status == 200
            && page
                .header("content-type")
                .is_some_and(|kind| kind.starts_with("text/html")),
        "/: {page:?}"
    );
    let policy = page
        .header("content-security-policy")
        .context("no Content-Security-Policy")?;
    ensure!(
        policy.contains("default-src 'none'") || policy.contains("default-src 'self'"),
        "{policy}"
    );
    for weak in [
        "unsafe-eval",
        "unsafe-inline",
        "http:",
        "https:",
        "*",
        "data:",
    ] {
        ensure!(
            !policy.contains(weak) || (weak == "data:" && policy.contains("img-src")),
            "the policy allows {weak}: {policy}"
        );
    }
    ensure!(
        page.header("x-content-type-options") == Some("nosniff"),
        "no nosniff"
    );
    let text = page.text();
    for outside in ["src=\"http", "href=\"http", "src=\"//", "@import"] {
        ensure!(
            !text.contains(outside),
            "the page asks for something from outside: {outside}"
        );
    }
    for (path, status) in [
        ("/ready", 200),
        ("/healthy", 200),
        ("/metrics", 200),
        ("/nothing", 404),
        ("/../etc/passwd", 404),
    ] {
        let answer = get(address, path)?;
        ensure!(
            answer.status == status || (status == 404 && answer.status == 400),
            "{path}: {}",
            answer.status
        );
    }
    ensure!(up.metrics()?.series.len() > 10, "hardly any metrics");
    for series in up.metrics()?.series {
        let known = ["leadsman_", "parca_agent_", "process_"];
        ensure!(
            known.iter().any(|prefix| series.name.starts_with(prefix)),
            "{} is no name of ours",
            series.name
        );
    }
    hosts(address)?;
    for method in ["POST", "PUT", "DELETE", "TRACE"] {
        let answer = request(address, method, "/", &address.to_string())?;
        ensure!(
            (400..500).contains(&answer.status),
            "{method}: {}",
            answer.status
        );
    }
    query(address)
}

/// A page elsewhere that resolves its own name to 127.0.0.1 must not read ours.
fn hosts(address: SocketAddr) -> Result<()> {
    let port = address.port();
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
    ] {
        ensure!(
            request(address, "GET", "/", &host)?.status == 200,
            "{host} is refused"
        );
    }
    for host in [
        format!("evil.example:{port}"),
        "evil.example".to_owned(),
        format!("127.0.0.1.evil.example:{port}"),
        String::new(),
    ] {
        for path in ["/", "/metrics", "/query?query=%7B%7D"] {
            let status = request(address, "GET", path, &host)?.status;
            ensure!(
                (400..500).contains(&status),
                "Host '{host}' gets {status} for {path}"
            );
        }
    }
    Ok(())
}

fn query(address: SocketAddr) -> Result<()> {
    let selector = percent_encoded("{comm=\"chains-O2\"}");
    let answer = get(address, &format!("/query?query={selector}"))?;
    ensure!(
        answer.status == 200,
        "/query: {} {}",
        answer.status,
        answer.text()
    );
    ensure!(
        answer.header("content-type") == Some("application/vnd.google.protobuf+gzip"),
        "{:?}",
        answer.header("content-type")
    );
    ensure!(
        answer
            .header("content-disposition")
            .is_some_and(|value| value.contains("attachment")),
        "no attachment"
    );
    let profile = Profile::parse(&answer.body)?;
    ensure!(
        profile.count(|stack| stack.comm != "chains-O2") == 0,
        "other processes came too"
    );
    ensure!(
        profile.count(|stack| stack.thread_name == "w-plain") > 0,
        "w-plain is missing"
    );
    let none = percent_encoded("{comm=\"no such process\"}");
    ensure!(
        get(address, &format!("/query?query={none}"))?.status == 404,
        "a selector that nothing matches"
    );
    let bad = percent_encoded("{comm=");
    ensure!(
        get(address, &format!("/query?query={bad}"))?.status == 400,
        "a selector that is none"
    );
    ensure!(get(address, "/query")?.status == 400, "no selector at all");
    Ok(())
}

/// A browser that runs the page's script draws the flame graph; the picture is kept beside the build for people to look at.
#[test]
fn a_browser_shows_the_flame_graph() -> Result<()> {
    let (_machine, _workload, up) = started()?;
    let browser = require_command("chromium")?;
    let profile = tempfile::tempdir()?;
    let screenshot: PathBuf = binaries::target_directory()?.join("page.png");
    if screenshot.exists() {
        std::fs::remove_file(&screenshot)?;
    }
    let chromium = |more: &[String]| {
        run_ok(
            Command::new(&browser)
                .args([
                    "--headless=new",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--hide-scrollbars",
                ])
                .args(["--window-size=1280,800", "--virtual-time-budget=4000"])
                .arg(format!("--user-data-dir={}", profile.path().display()))
                .args(more)
                .arg(format!("http://{}/", up.address)),
            Duration::from_secs(90),
        )
    };
    let document = chromium(&["--dump-dom".to_owned()])?.text();
    for word in ["w_plain_c", "chains-O2", "w_recurse"] {
        ensure!(
            document.contains(word),
            "the drawn page does not show {word}: {:.3000}",
            document
        );
    }
    chromium(&[format!("--screenshot={}", screenshot.display())])?;
    let picture = std::fs::read(&screenshot).context("no screenshot")?;
    ensure!(picture.starts_with(b"\x89PNG"), "the screenshot is no PNG");
    ensure!(
        picture.len() > 20_000,
        "the screenshot has only {} bytes: an empty page",
        picture.len()
    );
    println!("screenshot: {}", screenshot.display());
    Ok(())
}
