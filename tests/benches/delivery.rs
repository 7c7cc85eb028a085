//! What delivery to a Parca server costs on the wire, and how long a program's names take to be there: the real processes with
//! their default intervals, as root, beside the stand-in server of the tests. Prints; nothing here is a bar.
//!
//! `cargo bench -p leadsman-tests --bench delivery`, three minutes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use leadsman_tests::Machine;
use leadsman_tests::mixed_load::MixedLoad;
use leadsman_tests::parca::CPU;
use leadsman_tests::parca::client::{Client, now_nanos};
use leadsman_tests::parca::stand_in::{Options, StandIn};
use leadsman_tests::up::Up;
use leadsman_tests::workloads::Workload;

/// `--profiling-duration`'s default, seconds.
const WINDOW: u32 = 10;
/// How long the load is watched; the first window has tables and names to make.
const WATCHED: Duration = Duration::from_secs(90);
/// Programs started for their names: one with a symbol table, one with DWARF, one in Rust.
const PROGRAMS: [&str; 3] = ["chains-O2", "chains-debug", "chains-rs"];
/// Names that take longer are given up.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let _machine = Machine::lock()?;
    bytes_on_the_wire()?;
    seconds_to_names()
}

/// Leadsman with its default settings before a server.
fn start(server: &StandIn, more: &[&str]) -> Result<Up> {
    let more = [&["--remote-store-insecure"], more].concat();
    Up::start_shipping(WINDOW, &server.address.to_string(), &more)
}

fn bytes_on_the_wire() -> Result<()> {
    let load = MixedLoad::start()?;
    let server = StandIn::start(Options::default())?;
    let up = start(&server, &["--debuginfo-upload-disable"])?;
    std::thread::sleep(WATCHED);
    // What waits to be sent arrives.
    let mut last = 0;
    let settled = Instant::now();
    while settled.elapsed() < Duration::from_secs(30) {
        let samples = server.store().samples();
        if samples > 0 && samples == last {
            break;
        }
        last = samples;
        std::thread::sleep(Duration::from_secs(4));
    }
    let (sent, wire) = (server.store().samples(), server.gate().bytes());
    let (mut samples, mut plain, mut packed) = (0, 0, 0);
    for window in up.stored()? {
        let bytes = std::fs::read(window)?;
        let profile = pprof::read(&bytes)?;
        samples += profile.sample.iter().map(|one| one.value[0]).sum::<i64>();
        plain += prost::Message::encoded_len(&profile);
        packed += bytes.len();
    }
    drop((up, load));
    ensure!(sent > 0 && samples > 0, "no samples: {sent}, {samples}");
    let per_thousand = |bytes: f64, samples: i64| bytes / (samples as f64 / 1000.0);
    println!(
        "mixed load, {WINDOW} s windows at the default rate: {sent} samples on the server, {samples} in the local store\n\
         on the wire                          {:9.0} bytes per 1,000 samples\n\
         the local store's pprof, plain       {:9.0}\n\
         the local store's pprof, compressed  {:9.0}",
        per_thousand(wire as f64, sent),
        per_thousand(plain as f64, samples),
        per_thousand(packed as f64, samples),
    );
    Ok(())
}

fn seconds_to_names() -> Result<()> {
    let server = StandIn::start(Options::default())?;
    let _up = start(&server, &[])?;
    // Past the first window, whose files are everybody's.
    std::thread::sleep(Duration::from_secs(25));
    let mut client = Client::new(&server.address.to_string())?;
    let begun = now_nanos();
    let started = Instant::now();
    let _running = PROGRAMS
        .iter()
        .map(|program| Workload::start(program, &["600", "plain"]))
        .collect::<Result<Vec<_>>>()?;
    let mut unseen = PROGRAMS.to_vec();
    println!("from a program's start to names of its functions on the server:");
    while !unseen.is_empty() {
        ensure!(started.elapsed() < PATIENCE, "no names of {unseen:?}");
        std::thread::sleep(Duration::from_millis(500));
        unseen.retain(|program| {
            let query = format!("{CPU}{{comm=\"{program}\"}}");
            let Ok(answer) = client.merge(&query, begun, now_nanos()) else {
                return true;
            };
            let places = answer.samples.iter().flat_map(|sample| &sample.stack);
            let is_named = places
                .filter(|place| {
                    let mapping = place.mapping.as_ref();
                    mapping.is_some_and(|mapping| mapping.file.ends_with(program))
                })
                .any(|place| !place.lines.is_empty());
            if is_named {
                println!("{program:14} {:5.1} s", started.elapsed().as_secs_f64());
            }
            !is_named
        });
    }
    Ok(())
}
