//! Leadsman's sampler: loads the BPF programs, drops every right, then counts stacks.
#![deny(unsafe_code)]

mod account;
mod announce;
mod bpf;
mod cgroups;
mod config;
mod engine;
mod event_loop;
mod executables;
mod image;
mod kernel_process;
mod maps_file;
mod metrics;
mod opener_link;
mod outbox;
mod perf_event;
mod processes;
mod raw_sample;
mod ring;
mod sideband;
mod startup;
mod symbolizer_link;
mod window;

use std::os::fd::AsFd;
use std::process::ExitCode;

use aya::maps::IterableMap as _;
use ipc_endpoint::connect::Connector;
use ipc_endpoint::inherited::Inherited;
use ipc_endpoint::rights::Machine;
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_endpoint::{clock, lockdown};
use ipc_proto::codec::Bytes;
use ipc_proto::hello::Role;
use ipc_proto::sample::Start;
use leadsman_ebpf::limits::MAX_PROCESSES;

use crate::bpf::accounts::{MapAccounts, MapKind};
use crate::bpf::load::{GROWING_MAPS, Loaded, Sizes, online_cpus};
use crate::bpf::mappings::Mappings;
use crate::bpf::run_time::RunTime;
use crate::bpf::tables::Tables;
use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::engine::Engine;
use crate::event_loop::{Cpus, Ended, EventLoop, read_counters};
use crate::opener_link::OpenerLink;
use crate::perf_event::PerfRing;
use crate::symbolizer_link::SymbolizerLink;

/// Pages of one CPU's ring of mapping records: some 1,500 records.
const RING_PAGES: usize = 64;
/// Bytes of kernel memory that a chunk and a region take.
const CHUNK_BYTES: u64 = 2048;
const REGION_BYTES: u64 = 1024;
/// Chunks of one region in most tables: decides how the budget is divided.
const CHUNKS_PER_REGION: u64 = 4;
/// Regions that even the smallest budget has.
const LEAST_REGIONS: u64 = 32;
/// Exit statuses that ask the service manager for a fresh start: as before, or with `--ring-growth` one higher.
const RESTART: u8 = 75;
const RESTART_LARGER: u8 = 76;

fn main() -> ExitCode {
    let config = match Config::parse(std::env::args_os().skip(1)) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("leadsman-sampler: {error}");
            return ExitCode::from(2);
        }
    };
    config.common.begin(Role::Sampler);
    match run(&config) {
        Ok(Ended::Terminated) => ExitCode::SUCCESS,
        Ok(Ended::NewCpu) => {
            log::info!("a CPU came online: starting again to sample it");
            ExitCode::from(RESTART)
        }
        Ok(Ended::RingTooSmall) => {
            log::info!("the ring buffer nearly filled: starting again with a larger one");
            ExitCode::from(RESTART_LARGER)
        }
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn sizes(config: &Config, cpus: usize, preallocated: bool) -> Sizes {
    let budget = config.memory_budget;
    let regions = budget / (CHUNKS_PER_REGION * CHUNK_BYTES + REGION_BYTES);
    let regions = regions.clamp(LEAST_REGIONS, u32::MAX.into());
    let chunks = budget.saturating_sub(regions * REGION_BYTES) / CHUNK_BYTES;
    // What is allocated at once must be less.
    let processes = if preallocated {
        MAX_PROCESSES / 8
    } else {
        MAX_PROCESSES
    };
    Sizes {
        ring_bytes: ring::bytes(config.frequency, cpus, config.ring_growth),
        processes,
        blocks: 4 * processes,
        chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
        regions: u32::try_from(regions).unwrap_or(u32::MAX),
    }
}

fn run(config: &Config) -> Result<Ended, Box<dyn std::error::Error>> {
    let common = &config.common;
    let termination = Termination::watch()?;
    let mut inherited = Inherited::from_environment()?;
    let reporter = Reporter::new(&common.runtime_directory, Role::Sampler, &common.peers);
    let cpus = online_cpus()?;
    // The rings first: whatever is mapped while the programs load is then in them.
    let rings = cpus.iter().map(|cpu| PerfRing::open(*cpu, RING_PAGES));
    let rings = rings.collect::<Result<Vec<_>, _>>()?;
    if rings.iter().any(|ring| !ring.build_ids) {
        log::info!(
            "this kernel reports no build IDs (they came with 5.12): files are told apart by inode"
        );
    }
    let preallocated = Machine::read().kernel < GROWING_MAPS;
    if preallocated {
        log::info!("this kernel wants its maps allocated at once (until 6.1)");
    }
    let sizes = sizes(config, cpus.len(), preallocated);
    let mut loaded = Loaded::load(sizes, preallocated)?;
    let start = Start {
        frequency: config.frequency,
        clock_offset: startup::clock_offset(),
        vdso: Bytes(startup::vdso().unwrap_or_else(|error| {
            log::warn!("no vDSO image: {error}: its frames stay unnamed");
            Vec::new()
        })),
        kernel_release: Bytes::cut(&startup::kernel_release()),
        kernel_build_id: Bytes::cut(&startup::kernel_build_id()),
    };
    let mut engine = Engine::new(
        config.selection.clone(),
        startup::running_processes(),
        Cgroups::new(startup::perf_cgroups_are_cgroup2()),
        config.window,
        start.clock_offset,
        clock::monotonic(),
    );
    engine.set_frequency(config.frequency);
    let timers = loaded.attach(config.frequency, &cpus)?;
    let online = std::fs::File::open("/sys/devices/system/cpu/online").ok();
    let directory = &common.runtime_directory;
    let connect_symbolizer = Connector::new(
        directory,
        "samples.sock",
        Role::Sampler,
        Role::Symbolizer,
        &common.peers,
    );
    let connect_opener = Connector::new(
        directory,
        "opener.sock",
        Role::Sampler,
        Role::Opener,
        &common.peers,
    );
    let Loaded {
        object,
        records,
        processes,
        mappings,
        regions,
        chunks,
        counters,
        programs,
        verifier_time,
    } = loaded;
    let mut run_time = RunTime::default();
    for (name, program) in object.programs() {
        let name = if name == "walk" { "walk" } else { "sample" };
        run_time.add(name, program.fd()?.as_fd());
    }
    // Read once now: aya looks up the number of CPUs with the first call, and remembers it.
    let kernel = read_counters(&counters);
    let accounts = MapAccounts::open(&[
        (MapKind::Chunks, chunks.map().fd().as_fd()),
        (MapKind::Regions, regions.map().fd().as_fd()),
        (MapKind::Processes, processes.map().fd().as_fd()),
        (MapKind::Mappings, mappings.map().fd().as_fd()),
    ]);
    let mut event_loop = EventLoop {
        records,
        rings,
        timers,
        rate_wanted: None,
        counters,
        mappings: Mappings::new(processes, mappings),
        tables: Tables::new(regions, chunks, sizes),
        accounts,
        ring_bytes: sizes.ring_bytes,
        verifier_seconds: verifier_time.as_secs_f64(),
        engine,
        symbolizer: SymbolizerLink::new(
            connect_symbolizer,
            start,
            startup::kernel_symbols(&mut inherited),
        ),
        opener: OpenerLink::new(connect_opener),
        reporter,
        termination,
        cpus: Cpus {
            attached: cpus,
            online,
        },
        run_time,
        kernel,
    };
    lockdown::enter(Role::Sampler, &lockdown::Plan::default())?;
    log::info!(
        "sampling {} CPUs at {} Hz",
        event_loop.cpus.attached.len(),
        config.frequency
    );
    let ended = event_loop.run();
    // The timers stop when they go, not before the last window went.
    drop((object, programs));
    Ok(ended?)
}
