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
mod maps_file;
mod metrics;
mod opener_link;
mod outbox;
mod perf_event;
mod processes;
mod raw_sample;
mod sideband;
mod startup;
mod symbolizer_link;
mod window;

use std::os::fd::AsFd;
use std::process::ExitCode;

use ipc_endpoint::connect::Connector;
use ipc_endpoint::inherited::Inherited;
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::Reporter;
use ipc_endpoint::{clock, lockdown};
use ipc_proto::codec::Bytes;
use ipc_proto::hello::Role;
use ipc_proto::sample::Start;

use crate::bpf::load::{Loaded, Sizes, online_cpus};
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
/// Bytes of the ring buffer of samples for each CPU: a quarter of a second of snapshots at 97 Hz.
const RING_BYTES_PER_CPU: u32 = 512 << 10;
/// Bytes that a chunk takes of the memory budget, with its share of a region.
const CHUNK_COST: u64 = 2048 + 64;
/// Exit status that asks the service manager for a fresh start.
const RESTART: u8 = 75;

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
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn sizes(config: &Config, cpus: usize) -> Sizes {
    let chunks = u32::try_from(config.memory_budget / CHUNK_COST).unwrap_or(u32::MAX);
    let ring = RING_BYTES_PER_CPU.saturating_mul(u32::try_from(cpus).unwrap_or(u32::MAX));
    Sizes {
        ring_bytes: ring.clamp(1 << 20, 16 << 20).next_power_of_two(),
        chunks,
        regions: (chunks / 4).max(256),
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
    let sizes = sizes(config, cpus.len());
    let mut loaded = Loaded::load(sizes)?;
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
    let engine = Engine::new(
        config.selection.clone(),
        startup::running_processes(),
        Cgroups::new(startup::perf_cgroups_are_cgroup2()),
        config.window,
        start.clock_offset,
        clock::monotonic(),
    );
    loaded.attach(config.frequency, &cpus)?;
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
    } = loaded;
    let mut run_time = RunTime::default();
    for (name, program) in object.programs() {
        let name = if name == "walk" { "walk" } else { "sample" };
        run_time.add(name, program.fd()?.as_fd());
    }
    // Read once now: aya looks up the number of CPUs with the first call, and remembers it.
    let kernel = read_counters(&counters);
    let mut event_loop = EventLoop {
        records,
        rings,
        counters,
        tables: Tables::new(processes, mappings, regions, chunks, sizes),
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
    // The timers stop when the object goes, not before the last window went.
    drop((object, programs));
    Ok(ended?)
}
