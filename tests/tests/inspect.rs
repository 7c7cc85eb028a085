//! The two inspection commands against binutils: `unwind-table` row by row with `readelf`, `symbolize` with `nm` and
//! `addr2line`. They need no privilege, so neither does this.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leadsman_tests::binaries;
use leadsman_tests::process::{run, run_ok};
use leadsman_tests::require_command;
use leadsman_tests::workloads::programs;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(60);

struct Row {
    start: u64,
    cfa: String,
    rbp: String,
    ra: String,
}

fn our_rows(file: &Path) -> Result<Vec<Row>> {
    let output = run_ok(
        Command::new(binaries::leadsman()?)
            .arg("unwind-table")
            .arg(file)
            .args(["--format", "json"]),
        DEADLINE,
    )?;
    let mut rows: Vec<Row> = Vec::new();
    for line in output.text().lines() {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        let text = |key: &str| {
            value[key]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("no {key} in {line}"))
        };
        let row = Row {
            start: value["start"]
                .as_u64()
                .with_context(|| format!("no start in {line}"))?,
            cfa: text("cfa")?,
            rbp: text("rbp")?,
            ra: text("ra")?,
        };
        ensure!(value["signal"].is_boolean(), "no signal in {line}");
        ensure!(
            rows.last().is_none_or(|last| last.start < row.start),
            "not in address order: {line}"
        );
        rows.push(row);
    }
    Ok(rows)
}

/// One row of `readelf --debug-dump=frames-interp`.
#[derive(Clone)]
struct ReferenceRow {
    start: u64,
    cfa: String,
    rbp: Option<String>,
    ra: Option<String>,
}

fn hexadecimal(text: &str) -> Result<u64> {
    u64::from_str_radix(text, 16)
        .with_context(|| format!("readelf prints '{text}' where an address should be"))
}

/// Rows of all entries. An entry that changes nothing is printed without rows: its common entry's row holds then.
fn reference_rows(file: &Path) -> Result<Vec<ReferenceRow>> {
    let output = run_ok(
        Command::new(require_command("readelf")?)
            .args(["--debug-dump=no-follow-links,frames-interp", "--wide"])
            .arg(file),
        DEADLINE,
    )?;
    let mut rows: Vec<ReferenceRow> = Vec::new();
    let mut common: HashMap<String, ReferenceRow> = HashMap::new();
    for block in output.text().split("\n\n") {
        let mut lines = block.lines().skip_while(|line| line.trim().is_empty());
        let Some(head) = lines.next() else { continue };
        let head: Vec<&str> = head.split_whitespace().collect();
        let columns: Vec<&str> = lines.next().unwrap_or("").split_whitespace().collect();
        let mut own: Vec<ReferenceRow> = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            if columns.first() != Some(&"LOC") || words.len() != columns.len() {
                continue;
            }
            let column = |name: &str| {
                columns
                    .iter()
                    .position(|column| *column == name)
                    .map(|at| words[at].to_owned())
            };
            let row = ReferenceRow {
                start: hexadecimal(words[0])?,
                cfa: words[1].to_owned(),
                rbp: column("rbp"),
                ra: column("ra"),
            };
            // Two rows at one address: the first one holds nowhere.
            own.pop_if(|last| last.start == row.start);
            own.push(row);
        }
        if head.get(3) == Some(&"CIE") {
            // One whose program is empty has no row to hand on.
            if let Some(row) = own.first() {
                common.insert(head[0].to_owned(), row.clone());
            }
        } else if let (Some(&"FDE"), Some(cie), Some(range)) =
            (head.get(3), head.get(4), head.get(5))
        {
            if own.is_empty() {
                let (start, _) = range
                    .trim_start_matches("pc=")
                    .split_once("..")
                    .context("an entry without a range")?;
                if let Some(row) = common.get(cie.trim_start_matches("cie=")) {
                    own.push(ReferenceRow {
                        start: hexadecimal(start)?,
                        ..row.clone()
                    });
                }
            }
            rows.extend(own);
        }
    }
    Ok(rows)
}

fn compare_tables(file: &Path) -> Result<()> {
    let ours = our_rows(file)?;
    let reference = reference_rows(file)?;
    ensure!(
        reference.len() > 20,
        "readelf shows only {} rows of {}",
        reference.len(),
        file.display()
    );
    let mut wrong = Vec::new();
    for row in &reference {
        let at = ours.partition_point(|own| own.start <= row.start);
        let Some(own) = at.checked_sub(1).and_then(|at| ours.get(at)) else {
            wrong.push(format!(
                "{:#x}: no row, readelf says {}",
                row.start, row.cfa
            ));
            continue;
        };
        let cfa = match row.cfa.as_str() {
            "exp" => own.cfa == "expr" || own.cfa == "plt",
            other => own.cfa == other,
        };
        // 'u' stands for a register without a rule: its value is unchanged by the calling convention.
        let rbp = match row.rbp.as_deref() {
            None | Some("u" | "s") => own.rbp == "same" || own.rbp == "undef",
            Some("exp" | "vexp") => own.rbp != "same",
            Some(saved) => own.rbp == saved.replacen('c', "cfa", 1),
        };
        let ra = match row.ra.as_deref() {
            Some("u") => own.ra == "undef",
            Some("exp" | "vexp") | None => true,
            Some(saved) => own.ra == saved.replacen('c', "cfa", 1),
        };
        if !(cfa && rbp && ra) {
            wrong.push(format!(
                "{:#x}: ours cfa {} rbp {} ra {}, readelf's {} {:?} {:?}",
                row.start, own.cfa, own.rbp, own.ra, row.cfa, row.rbp, row.ra
            ));
        }
    }
    wrong.truncate(10);
    ensure!(
        wrong.is_empty(),
        "{}:\n{}",
        file.display(),
        wrong.join("\n")
    );
    Ok(())
}

#[test]
fn unwind_tables_agree_with_readelf() -> Result<()> {
    for program in [
        "chains-O2",
        "chains-fp",
        "chains-static",
        "chains-cpp",
        "chains-rs",
    ] {
        compare_tables(&programs()?.path(program))?;
    }
    let libc = Path::new("/lib/x86_64-linux-gnu/libc.so.6");
    if libc.exists() {
        compare_tables(libc)?;
    }
    Ok(())
}

/// `nm`'s defined functions: address and name.
fn functions(file: &Path) -> Result<Vec<(u64, String)>> {
    let output = run_ok(
        Command::new(require_command("nm")?)
            .arg("--defined-only")
            .arg(file),
        DEADLINE,
    )?;
    Ok(output
        .text()
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
            (kind.eq_ignore_ascii_case("t"))
                .then_some((u64::from_str_radix(address, 16).ok()?, name.to_owned()))
        })
        .collect())
}

fn symbolized(file: &Path, addresses: &[u64]) -> Result<Vec<Value>> {
    let output = run_ok(
        Command::new(binaries::leadsman()?)
            .arg("symbolize")
            .arg("--exe")
            .arg(file)
            .args(addresses.iter().map(|address| format!("{address:#x}"))),
        DEADLINE,
    )?;
    output
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
        .collect()
}

#[test]
fn addresses_get_their_functions_names() -> Result<()> {
    let file = programs()?.path("chains-O2");
    let wanted: Vec<(u64, String)> = functions(&file)?
        .into_iter()
        .filter(|(_, name)| name.starts_with("w_"))
        .collect();
    ensure!(
        wanted.len() > 40,
        "nm shows only {} workload functions",
        wanted.len()
    );
    // Backwards: the answers come in the order asked, whatever it is.
    let addresses: Vec<u64> = wanted
        .iter()
        .rev()
        .map(|(address, _)| address + 1)
        .collect();
    let answers = symbolized(&file, &addresses)?;
    ensure!(
        answers.len() == wanted.len(),
        "{} answers to {} questions",
        answers.len(),
        wanted.len()
    );
    for (answer, (address, name)) in answers.iter().zip(wanted.iter().rev()) {
        ensure!(
            answer["address"].as_u64() == Some(address + 1),
            "out of order: {answer}"
        );
        ensure!(
            answer["frames"][0]["function"] == name.as_str(),
            "{name} became {answer}"
        );
        ensure!(
            answer["reason"].is_null(),
            "a named address has a reason: {answer}"
        );
    }
    let bare = run_ok(
        Command::new(binaries::leadsman()?)
            .arg("symbolize")
            .arg("--exe")
            .arg(&file)
            .arg(format!("{:x}", addresses[0])),
        DEADLINE,
    )?;
    ensure!(
        bare.text().lines().count() == 1,
        "an address without 0x is an address too"
    );
    let nowhere = symbolized(&file, &[0x7fff_0000_0000])?;
    ensure!(
        nowhere[0]["frames"].as_array().is_some_and(Vec::is_empty),
        "{}",
        nowhere[0]
    );
    ensure!(
        nowhere[0]["reason"].is_string(),
        "an address outside has no reason: {}",
        nowhere[0]
    );
    Ok(())
}

/// Inlined frames, files and lines as `addr2line -i` sees them.
#[test]
fn inlined_frames_and_lines_agree_with_addr2line() -> Result<()> {
    let file = programs()?.path("chains-debug");
    let (start, _) = functions(&file)?
        .into_iter()
        .find(|(_, name)| name == "w_handler_burn")
        .context("no w_handler_burn")?;
    let addresses: Vec<u64> = (start..start + 40).collect();
    let answers = symbolized(&file, &addresses)?;
    let mut inlined = 0;
    for (address, answer) in addresses.iter().zip(&answers) {
        let output = run_ok(
            Command::new(require_command("addr2line")?)
                .args(["-i", "-f", "-C", "-e"])
                .arg(&file)
                .arg(format!("{address:#x}")),
            DEADLINE,
        )?;
        let text = output.text();
        let lines: Vec<&str> = text.lines().collect();
        let expected: Vec<(&str, Option<u64>)> = lines
            .chunks_exact(2)
            .map(|pair| {
                let line = pair[1].rsplit_once(':').map_or("", |(_, line)| line);
                (
                    pair[0],
                    line.split(' ')
                        .next()
                        .and_then(|line| line.parse().ok())
                        .filter(|line| *line > 0),
                )
            })
            .collect();
        let frames = answer["frames"].as_array().context("no frames")?;
        let ours: Vec<(&str, Option<u64>)> = frames
            .iter()
            .map(|frame| {
                (
                    frame["function"].as_str().unwrap_or("?"),
                    frame["line"].as_u64().filter(|line| *line > 0),
                )
            })
            .collect();
        ensure!(
            ours == expected,
            "{address:#x}: ours {ours:?}, addr2line's {expected:?}"
        );
        ensure!(
            frames.iter().all(|frame| frame["file"]
                .as_str()
                .is_some_and(|file| file.ends_with("chains.c"))),
            "a file is missing: {answer}"
        );
        inlined += frames
            .iter()
            .filter(|frame| frame["inlined"] == Value::Bool(true))
            .count();
        ensure!(
            frames
                .last()
                .is_some_and(|frame| frame["inlined"] == Value::Bool(false)),
            "the outermost frame is nobody's inlined one: {answer}"
        );
    }
    ensure!(inlined > 0, "burn_turns is inlined here, no answer says so");
    Ok(())
}

#[test]
fn anybody_may_ask() -> Result<()> {
    let directory = binaries::copied_for_everybody()?;
    let file = directory.path().join("chains-O2");
    std::fs::copy(programs()?.path("chains-O2"), &file)?;
    let program = directory.path().join("leadsman");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    for arguments in [
        [
            text(&program),
            "unwind-table".into(),
            text(&file),
            "--format=json".into(),
        ],
        [
            text(&program),
            "symbolize".into(),
            format!("--exe={}", text(&file)),
            "0x1100".into(),
        ],
    ] {
        let output = run(
            Command::new(require_command("setpriv")?)
                .args([
                    "--reuid",
                    "65534",
                    "--regid",
                    "65534",
                    "--clear-groups",
                    "--",
                ])
                .args(&arguments),
            DEADLINE,
        )?;
        ensure!(
            output.code() == Some(0),
            "{arguments:?} as nobody: {output:?}"
        );
    }
    Ok(())
}
