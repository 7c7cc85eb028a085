//! What a Parca server knows after Leadsman ran for a while beside programs whose places in code are known: profile types,
//! labels, values, merged and single profiles, and, from what the debuginfo-uploader made of their files, names of native
//! frames equal to those of the host's `addr2line`. Runs against the stand-in, or any server: `cargo xtask test --parca-address=HOST:PORT`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use leadsman_tests::Machine;
use leadsman_tests::parca::client::{Answered, Client, now_nanos};
use leadsman_tests::parca::executable::Line;
use leadsman_tests::parca::ingest::Place;
use leadsman_tests::parca::{CPU, Server};
use leadsman_tests::places::{Code, HostLine, Places, Program, base_name, host_lines};
use leadsman_tests::profile::Profile;
use leadsman_tests::up::Up;
use leadsman_tests::workloads::Workload;
use rustix::process::Signal;

const FREQUENCY: i64 = 97;
/// The programs share two CPUs or so: each gets some hundred samples.
const LOAD: Duration = Duration::from_secs(20);

/// One run, looked at by all tests.
struct Run {
    server: Server,
    places: Places,
    /// The value of the labels `node` and `run`: nobody else's.
    node: String,
    start: i64,
    end: i64,
    /// Time and samples of each window in the local store.
    windows: Vec<(i64, i64)>,
}

impl Run {
    fn query(&self, comm: &str) -> String {
        format!("{CPU}{{node=\"{}\",comm=\"{comm}\"}}", self.node)
    }

    fn merged(&self, client: &mut Client, comm: &str) -> Result<Answered> {
        client.merge(&self.query(comm), self.start, self.end)
    }
}

fn run() -> Result<&'static Run> {
    static RUN: OnceLock<std::result::Result<Run, String>> = OnceLock::new();
    RUN.get_or_init(|| record().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|text| anyhow!(text.clone()))
}

fn record() -> Result<Run> {
    let _machine = Machine::lock()?;
    let server = Server::under_test()?;
    let places = Places::build()?;
    let start = now_nanos();
    let node = format!("node-{start}");
    let address = server.address();
    let up = Up::start_with_remote_store(
        2,
        &address,
        &[
            "--profiling-cpu-sampling-frequency",
            &FREQUENCY.to_string(),
            "--remote-store-insecure",
            "--node",
            &node,
            "--metadata-external-labels",
            &format!("run={node}"),
            "--debuginfo-directories",
            places.debug_directory().to_str().unwrap_or_default(),
        ],
    )?;
    let started = Instant::now();
    let mut workloads = Vec::new();
    for program in &places.programs {
        workloads.push(Workload::start_at(&places.path(program.name), &["100"])?);
    }
    std::thread::sleep(LOAD.saturating_sub(started.elapsed()));
    drop(workloads);
    // Two windows more, so that all of the programs' are sent.
    std::thread::sleep(Duration::from_secs(5));
    let (output, directory) = up.stop(Signal::TERM)?;
    ensure!(
        output.code() == Some(0),
        "leadsman up ended with {}: {}",
        output.status,
        output.stderr
    );
    Ok(Run {
        server,
        places,
        node,
        start,
        end: now_nanos(),
        windows: windows(&directory.path().join("store"))?,
    })
}

fn places_of<'a>(answer: &'a Answered, mapped: &Path) -> impl Iterator<Item = &'a Arc<Place>> {
    answer
        .samples
        .iter()
        .flat_map(|sample| &sample.stack)
        .filter(move |place| {
            place
                .mapping
                .as_ref()
                .is_some_and(|mapping| Path::new(&mapping.file) == mapped)
        })
}

/// The local store's windows, oldest first.
fn windows(store: &Path) -> Result<Vec<(i64, i64)>> {
    let mut windows = Vec::new();
    for entry in std::fs::read_dir(store)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".pb.gz") {
            let profile = Profile::read(&path)?;
            windows.push((profile.time_nanos, profile.count(|_| true)));
        }
    }
    windows.sort_unstable();
    Ok(windows)
}

/// The samples of one instant; a server that has no such profile has none.
fn samples_at(client: &mut Client, query: &str, time: i64) -> Result<i64> {
    match client.single(query, time) {
        Ok(answer) => Ok(answer.total()),
        Err(error) if format!("{error:#}").contains("could not find profile") => Ok(0),
        Err(error) => Err(error),
    }
}

#[test]
fn types_labels_and_values_are_those_of_the_agent_it_replaces() -> Result<()> {
    let run = run()?;
    let mut client = run.server.client()?;
    let types = client.profile_types(run.start, run.end)?;
    let own: Vec<_> = types
        .iter()
        .filter(|found| found.name.starts_with("parca_agent"))
        .collect();
    ensure!(
        own.iter().any(|found| {
            let found = format!(
                "{}:{}:{}:{}:{}{}",
                found.name,
                found.sample_type,
                found.sample_unit,
                found.period_type,
                found.period_unit,
                if found.delta { ":delta" } else { "" }
            );
            found == CPU
        }),
        "{types:?}"
    );
    let labels = client.labels(run.start, run.end)?;
    for label in ["node", "comm", "run"] {
        ensure!(labels.iter().any(|name| name == label), "{labels:?}");
    }
    let nodes = client.values("node", run.start, run.end)?;
    ensure!(nodes.contains(&run.node), "{nodes:?}");
    let comms = client.values("comm", run.start, run.end)?;
    for program in &run.places.programs {
        ensure!(comms.iter().any(|comm| comm == program.name), "{comms:?}");
    }
    Ok(())
}

#[test]
fn merged_and_single_profiles_hold_the_same_samples() -> Result<()> {
    let run = run()?;
    let mut client = run.server.client()?;
    for program in &run.places.programs {
        let query = run.query(program.name);
        let merged = run.merged(&mut client, program.name)?;
        ensure!(
            merged.sample_type == ("cpu".to_owned(), "nanoseconds".to_owned()),
            "{:?}",
            merged.sample_type
        );
        let mut samples = 0;
        for (time, _) in &run.windows {
            samples += samples_at(&mut client, &query, *time)?;
        }
        ensure!(samples > 20, "{}: {samples} samples", program.name);
        let period = 1_000_000_000 / FREQUENCY;
        ensure!(
            merged.total() == samples * period,
            "{}: {} ns in the merged profile, {samples} samples in the single ones",
            program.name,
            merged.total()
        );
    }
    let nobody = run.merged(&mut client, "nobody")?;
    ensure!(nobody.samples.is_empty(), "{nobody:?}");
    ensure!(client.merge("parca_agent_cpu", run.start, run.end).is_err());
    Ok(())
}

#[test]
fn the_server_has_every_sample_that_the_local_store_has() -> Result<()> {
    let run = run()?;
    let mut client = run.server.client()?;
    let query = format!("{CPU}{{node=\"{}\"}}", run.node);
    // What came up to the end is spooled by then: the next start sends it.
    let sent = run.windows.len().saturating_sub(2);
    for (number, (time, expected)) in run.windows.iter().enumerate() {
        let found = samples_at(&mut client, &query, *time)?;
        ensure!(
            found == *expected || (found == 0 && number >= sent),
            "window {number} of {}: {found} samples on the server, {expected} in the local store",
            run.windows.len()
        );
    }
    ensure!(sent > 5, "{} windows", run.windows.len());
    Ok(())
}

#[test]
fn kernel_frames_come_with_names() -> Result<()> {
    let run = run()?;
    let mut client = run.server.client()?;
    let query = format!("{CPU}{{node=\"{}\"}}", run.node);
    let answer = client.merge(&query, run.start, run.end)?;
    let mut kernel = 0;
    for place in answer.samples.iter().flat_map(|sample| &sample.stack) {
        let is_kernel = place
            .mapping
            .as_ref()
            .is_some_and(|mapping| mapping.file.starts_with("[kernel"));
        if is_kernel {
            kernel += 1;
            ensure!(
                place.lines.iter().all(|line| !line.function.is_empty()) && !place.lines.is_empty(),
                "a kernel frame without a name: {place:?}"
            );
        }
    }
    ensure!(
        kernel > 0,
        "no kernel frame in {} samples",
        answer.samples.len()
    );
    Ok(())
}

#[test]
fn native_frames_are_named_as_addr2line_names_them() -> Result<()> {
    let run = run()?;
    let mut client = run.server.client()?;
    let mut wrong = Vec::new();
    for program in &run.places.programs {
        let answer = run.merged(&mut client, program.name)?;
        for code in &program.code {
            if let Err(error) = compare(&run.server, program, code, &answer) {
                wrong.push(format!("{}: {error:#}", program.name));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn compare(server: &Server, program: &Program, code: &Code, answer: &Answered) -> Result<()> {
    let places: BTreeSet<&Arc<Place>> = places_of(answer, &code.mapped).collect();
    let build_ids: BTreeSet<&str> = places
        .iter()
        .filter_map(|place| Some(place.mapping.as_ref()?.build_id.as_str()))
        .collect();
    ensure!(build_ids.len() == 1, "build IDs {build_ids:?}");
    let addresses = places.iter().map(|place| place.address).collect();
    let expected = host_lines(code, &addresses)?;
    let source = Source::of(&expected);
    let calling = calling(program, answer);
    let mut seen = BTreeSet::new();
    let mut compared = 0;
    for place in &places {
        let expected = expected.get(&place.address).map_or(&[][..], Vec::as_slice);
        // The start code, the C library's archive and what the linker makes have no debug information: the host's tool
        // says the object's name at most.
        let is_unknown = |line: &HostLine| match code.has_names_only {
            true => line.function.starts_with('?'),
            false => line.file.starts_with('?') || (line.line <= 0 && !line.file.contains('/')),
        };
        if expected.iter().any(is_unknown) {
            continue;
        }
        compared += 1;
        let right = same_lines(expected, &place.lines)
            || (code.has_names_only && same_names(expected, &place.lines))
            || (code.is_go && same_function(expected, &place.lines))
            || (server.stand_in().is_none()
                && as_parca_names(&source, code.is_go, expected, &place.lines));
        ensure!(
            right,
            "{:#x} is {expected:?} and the server says {:?}",
            place.address,
            place.lines
        );
        seen.extend(
            place
                .lines
                .iter()
                .map(|line| base_name(&line.function).to_owned()),
        );
        // Callers show the line of the call, not the one after it.
        for line in expected {
            for (caller, callee) in code.calls {
                if line.function == *caller && calling.contains(place) {
                    let text = source.line(&line.file, line.line)?;
                    ensure!(
                        text.contains(callee),
                        "{caller} stands at line {}: {text:?} does not call {callee}",
                        line.line
                    );
                }
            }
        }
    }
    for function in code.functions {
        ensure!(
            seen.contains(*function),
            "{function} is nowhere among {seen:?} of {compared} places"
        );
    }
    println!(
        "{}: {compared} of {} places of {} are right",
        program.name,
        places.len(),
        code.mapped.display()
    );
    Ok(())
}

/// Places whose callee is the program's own code, too.
fn calling<'a>(program: &Program, answer: &'a Answered) -> BTreeSet<&'a Arc<Place>> {
    let is_own = |place: &Place| {
        place.mapping.as_ref().is_some_and(|mapping| {
            program
                .code
                .iter()
                .any(|code| code.mapped == Path::new(&mapping.file))
        })
    };
    answer
        .samples
        .iter()
        .flat_map(|sample| sample.stack.windows(2))
        .filter(|pair| is_own(&pair[0]))
        .map(|pair| &pair[1])
        .collect()
}

fn same_lines(expected: &[HostLine], found: &[Line]) -> bool {
    expected.len() == found.len()
        && expected.iter().zip(found).all(|(expected, found)| {
            base_name(&expected.function) == base_name(&found.function)
                && expected.file == found.file
                && expected.line == found.line
        })
}

/// What can be said of functions without files.
fn same_names(expected: &[HostLine], found: &[Line]) -> bool {
    let ([expected], [found]) = (expected, found) else {
        return false;
    };
    expected.function == found.function && found.line <= 0
}

/// What can be said where the host's tool leaves out inlined calls: the function, and the line where nothing is inlined.
fn same_function(expected: &[HostLine], found: &[Line]) -> bool {
    let ([expected], [outermost, inlined @ ..]) = (expected, found) else {
        return false;
    };
    base_name(&expected.function) == base_name(&outermost.function)
        && (!inlined.is_empty()
            || (expected.file == outermost.file && expected.line == outermost.line))
}

/// Parca v0.28 gives each address the line at which its function starts, or in Go one near it; a function that the compiler
/// put before others gets none. Of calls inlined into inlined calls it changes the order.
fn as_parca_names(source: &Source, is_go: bool, expected: &[HostLine], found: &[Line]) -> bool {
    let (Some(outer), Some(outermost)) = (expected.first(), found.first()) else {
        return false;
    };
    let name = base_name(&outermost.function);
    let last_part = name.rsplit('.').next().unwrap_or(name);
    let at_start = outer.file == outermost.file
        && match source.line(&outermost.file, outermost.line) {
            Ok(text) => is_go || text.contains(last_part),
            // The standard library's sources need not be here.
            Err(_) => !source.0.contains_key(&outermost.file),
        };
    let mut host: Vec<_> = expected
        .iter()
        .map(|line| base_name(&line.function))
        .collect();
    let mut server: Vec<_> = found.iter().map(|line| base_name(&line.function)).collect();
    let same_outermost = host.first() == server.first();
    host.sort_unstable();
    server.sort_unstable();
    same_outermost && host == server && (at_start || (outermost.file == "?" && outermost.line == 0))
}

/// Source files, read once.
struct Source(BTreeMap<String, Vec<String>>);

impl Source {
    fn of(expected: &BTreeMap<u64, Vec<HostLine>>) -> Self {
        let files: BTreeSet<&String> = expected.values().flatten().map(|line| &line.file).collect();
        Self(
            files
                .into_iter()
                .filter_map(|file| {
                    let text = std::fs::read_to_string(file).ok()?;
                    Some((file.clone(), text.lines().map(str::to_owned).collect()))
                })
                .collect(),
        )
    }

    fn line(&self, file: &str, line: i64) -> Result<&str> {
        let index = usize::try_from(line)
            .ok()
            .and_then(|line| line.checked_sub(1));
        match index.and_then(|index| self.0.get(file)?.get(index)) {
            Some(text) => Ok(text),
            None => bail!("{file} has no line {line}"),
        }
    }
}

#[test]
fn the_stand_in_finds_nothing_wrong() -> Result<()> {
    let run = run()?;
    let Some(server) = run.server.stand_in() else {
        println!("another server keeps no list of what it lets pass");
        return Ok(());
    };
    let store = server.store();
    let violations = store.violations();
    ensure!(violations.is_empty(), "{}", violations.join("\n"));
    ensure!(
        store.duplicates() == 0,
        "{} profiles came twice",
        store.duplicates()
    );
    Ok(())
}
