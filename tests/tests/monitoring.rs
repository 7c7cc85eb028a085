//! Metrics, alerts and dashboard, judged by promtool; each name that an alert or a panel asks for is really there.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::metrics::Metrics;
use leadsman_tests::process::{run_ok, until};
use leadsman_tests::up::Up;
use leadsman_tests::{Machine, http, require_command};

/// Names that stand in the exposition only when there is something to tell.
const SOMETIMES: [&str; 5] = [
    "leadsman_bpf_run_seconds_total",
    "leadsman_config_last_reload_successful",
    "leadsman_link_violations_total",
    "leadsman_unnamed_frames_total",
    "leadsman_stacks_total",
];

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../monitoring"))
}

fn promtool(arguments: &[&str]) -> Result<()> {
    let mut promtool = Command::new(require_command("promtool")?);
    promtool.args(arguments).current_dir(directory());
    run_ok(&mut promtool, Duration::from_secs(60)).map(|_output| ())
}

/// Lets promtool judge a text that it reads from standard input.
fn check_metrics(text: &str) -> Result<()> {
    let mut child = Command::new(require_command("promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("a pipe")?
        .write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.trim().is_empty(),
        "promtool: {said}"
    );
    Ok(())
}

/// The expressions of the dashboard's panels.
fn expressions() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(directory().join("leadsman.dashboard.json"))?;
    let dashboard: serde_json::Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    Ok(targets
        .filter_map(|target| Some(target["expr"].as_str()?.to_owned()))
        .collect())
}

/// Words that begin with `leadsman_`, without a histogram's endings.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| word.starts_with("leadsman_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

#[test]
fn the_rules_do_what_they_say() -> Result<()> {
    promtool(&["check", "rules", "leadsman.rules.yml"])?;
    promtool(&["test", "rules", "leadsman.rules.test.yml"])
}

#[test]
fn the_dashboards_expressions_are_promql() -> Result<()> {
    let expressions = expressions()?;
    ensure!(expressions.len() > 15, "{expressions:?}");
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (number, expression) in expressions.iter().enumerate() {
        let expression = expression
            .replace("$__rate_interval", "1m")
            .replace("$instance", ".*");
        rules += &format!(
            "  - record: panel:{number}\n    expr: {}\n",
            serde_json::to_string(&expression)?
        );
    }
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), rules)?;
    promtool(&["check", "rules", &file.path().to_string_lossy()])
}

#[test]
fn a_running_leadsman_says_all_that_is_asked_for() -> Result<()> {
    let _machine = Machine::lock()?;
    let up = Up::start(1, &[])?;
    let text = until("a window is stored", Duration::from_secs(20), || {
        let text = http::get(up.address, "/metrics")?.text();
        let stored = Metrics::parse(&text)?.sum("leadsman_store_write_seconds_count", &[]);
        Ok((stored >= Some(1.0)).then_some(text))
    })?;
    check_metrics(&text)?;
    // What each process must say of itself.
    let metrics = Metrics::parse(&text)?;
    for role in [
        "sampler",
        "opener",
        "symbolizer",
        "debuginfo-uploader",
        "shipper",
        "viewer",
    ] {
        for name in [
            "leadsman_process_cpu_seconds_total",
            "leadsman_process_pss_bytes",
            "leadsman_process_resident_memory_bytes",
            "leadsman_crashes_total",
        ] {
            metrics.must(name, &[("process", role)])?;
        }
    }
    ensure!(metrics.must("leadsman_check_ok", &[("id", "samples_flow")])? == 1.0);
    let cpus = std::thread::available_parallelism()?.get() as f64;
    ensure!(metrics.must("parca_agent_num_cpu", &[])? == cpus);
    ensure!(
        metrics.must(
            "parca_agent_profiler_attempts_total",
            &[("status", "success")]
        )? >= 1.0
    );

    let wanted = std::fs::read_to_string(directory().join("leadsman.rules.yml"))?
        + &expressions()?.join("\n");
    let there = names(&text);
    let missing: Vec<_> = names(&wanted)
        .into_iter()
        .filter(|name| !there.contains(name) && !SOMETIMES.contains(&name.as_str()))
        .collect();
    ensure!(
        missing.is_empty(),
        "asked for by an alert or a panel, and not there: {missing:?}"
    );
    Ok(())
}
