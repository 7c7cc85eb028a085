//! `leadsman relabel test`: what the rules of a file make of label sets, one line each.

use std::io::{self, BufRead, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use config::{Document, Settings};
use ipc_proto::hello::Role;
use relabel::{LabelSet, Labels, Rule, Verdict};

use crate::cli::RelabelTest;
use crate::configuration;
use crate::error::Failure;
use crate::{launch, roles};

/// Bytes of one label set.
const MAX_LINE: u64 = 1 << 20;

/// Prints for each label set what the rules yield: a JSON object, or `null` when they drop it.
///
/// # Errors
/// An invalid file or label set: one line, exit code 2. Nothing was printed for an invalid file.
pub(crate) fn run(options: &RelabelTest) -> Result<ExitCode, Failure> {
    let path = &options.config_path;
    let document = Document::read(&configuration::read(path)?)
        .map_err(|problems| configuration::refusal(path, &problems))?;
    let given = match options.pid {
        Some(pid) => Some(of_process(pid, &document)?),
        None => options.labels.clone(),
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    match &given {
        Some(json) => {
            let labels =
                parse(json).map_err(|error| Failure::usage(format!("--labels: {error}")))?;
            written(print(&document.rules, &labels, options.explain, &mut out))?;
        }
        None => {
            let mut input = io::stdin().lock();
            let mut line = Vec::new();
            for number in 1u64.. {
                line.clear();
                let length = (&mut input)
                    .take(MAX_LINE)
                    .read_until(b'\n', &mut line)
                    .map_err(|error| Failure::failed(format!("cannot read: {error}")))?;
                if length == 0 {
                    break;
                }
                let refused = |error: String| {
                    Failure::usage(format!("standard input, line {number}: {error}"))
                };
                if length as u64 == MAX_LINE && !line.ends_with(b"\n") {
                    written(out.flush())?;
                    return Err(refused(format!("longer than {MAX_LINE} bytes")));
                }
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let text = std::str::from_utf8(&line);
                let labels = text
                    .map_err(|error| error.to_string())
                    .and_then(parse)
                    .map_err(refused);
                match labels {
                    Ok(labels) => {
                        written(print(&document.rules, &labels, options.explain, &mut out))?;
                    }
                    Err(failure) => {
                        written(out.flush())?;
                        return Err(failure);
                    }
                }
            }
        }
    }
    written(out.flush())?;
    Ok(ExitCode::SUCCESS)
}

/// The label set of a live process, as the shipper's providers see it.
fn of_process(pid: u32, document: &Document) -> Result<String, Failure> {
    let flags = config::flags::Flags::default();
    let environment = config::environment::read(std::env::vars_os()).map_err(Failure::usage)?;
    let settings = Settings::join(&flags, &environment, document).map_err(Failure::usage)?;
    let binary = launch::binary(&roles::binary(Role::Shipper))?;
    let output = Command::new(&binary)
        .arg("labels")
        .arg(format!("--pid={pid}"))
        .args(settings.arguments(Role::Shipper))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::failed(format!("cannot run {}: {error}", binary.display())))?;
    if !output.status.success() {
        return Err(Failure::failed(format!("no labels of process {pid}")));
    }
    String::from_utf8(output.stdout)
        .map_err(|error| Failure::failed(format!("no labels of process {pid}: {error}")))
}

/// A label set: a JSON object of texts.
fn parse(text: &str) -> Result<Labels, String> {
    serde_json::from_str(text.trim()).map_err(|error| {
        let error = error.to_string();
        format!("no JSON object of texts such as {{\"comm\":\"sh\"}}: {error}")
    })
}

fn print(rules: &[Rule], labels: &Labels, explain: bool, out: &mut impl Write) -> io::Result<()> {
    let mut set = LabelSet::new(labels.clone());
    let mut verdict = Verdict::Keep;
    for (index, rule) in rules.iter().enumerate() {
        verdict = rule.apply(&mut set);
        if explain {
            let line = format!("{index} {rule}");
            writeln!(out, "# {}: {}", line.escape_debug(), json(&set, verdict))?;
        }
        if verdict == Verdict::Drop {
            break;
        }
    }
    writeln!(out, "{}", json(&set, verdict))?;
    out.flush()
}

fn json(set: &LabelSet, verdict: Verdict) -> String {
    match verdict {
        Verdict::Keep => serde_json::json!(set.to_labels()).to_string(),
        Verdict::Drop => "null".to_owned(),
    }
}

/// Nobody may be reading.
fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_explained_and_a_drop_is_null() {
        let file = "relabel_configs:\n- target_label: a\n  replacement: b\n- source_labels: [a]\n  regex: b\n  action: drop\n- target_label: never\n  replacement: x\n";
        let rules = Document::read(file).unwrap().rules;
        let mut out = Vec::new();
        print(&rules, &Labels::new(), true, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("# 0 replace") && lines[0].ends_with(r#"{"a":"b"}"#));
        assert_eq!(lines[2], "null");
        assert!(parse("[1]").is_err() && parse(r#"{"a":1}"#).is_err() && parse("{}").is_ok());
    }
}
