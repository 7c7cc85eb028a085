//! The sampler's arguments.

use std::collections::HashSet;
use std::ffi::OsString;

use ipc_endpoint::arguments::Common;
use ipc_endpoint::duration;
use lexopt::ValueExt;

use crate::processes::Selection;

/// What the sampler is told.
#[derive(Debug)]
pub(crate) struct Config {
    /// Arguments of every process.
    pub(crate) common: Common,
    /// `--profiling-cpu-sampling-frequency HZ`: samples a second and CPU, 1 to 1,000.
    pub(crate) frequency: u32,
    /// `--profiling-duration DURATION`: window length; 0: one window until the end.
    pub(crate) window: u64,
    /// `--process PID` (repeated) and `--no-children`: which processes are sampled; none named: all.
    pub(crate) selection: Selection,
    /// `--bpf-memory-budget BYTES`: kernel memory for unwind tables.
    pub(crate) memory_budget: u64,
    /// `--ring-growth N`: how often the ring buffer doubles, for a machine whose ring nearly filled.
    pub(crate) ring_growth: u32,
}

/// Kernel memory for unwind tables unless told otherwise: some six million rows.
const DEFAULT_MEMORY_BUDGET: u64 = 24 << 20;
/// The smallest budget: one large executable.
const LEAST_MEMORY_BUDGET: u64 = 256 << 10;

impl Config {
    /// Parses the arguments.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, lexopt::Error> {
        let mut frequency = 19;
        let mut window = std::time::Duration::from_secs(10);
        let mut pids = HashSet::new();
        let mut children = true;
        let mut memory_budget = DEFAULT_MEMORY_BUDGET;
        let mut ring_growth = 0;
        let common = Common::parse(arguments, |name, parser| {
            match name {
                "profiling-cpu-sampling-frequency" => frequency = parser.value()?.parse()?,
                "profiling-duration" => window = parser.value()?.parse_with(duration::parse)?,
                "process" => {
                    pids.insert(parser.value()?.parse()?);
                }
                "no-children" => children = false,
                "bpf-memory-budget" => memory_budget = parser.value()?.parse()?,
                "ring-growth" => ring_growth = parser.value()?.parse()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if !(1..=1000).contains(&frequency) {
            let error = format!(
                "--profiling-cpu-sampling-frequency {frequency}: from 1 to 1000 samples a second"
            );
            return Err(lexopt::Error::Custom(error.into()));
        }
        if memory_budget < LEAST_MEMORY_BUDGET {
            let error = format!(
                "--bpf-memory-budget {memory_budget}: at least {LEAST_MEMORY_BUDGET} bytes"
            );
            return Err(lexopt::Error::Custom(error.into()));
        }
        let selection = Selection { pids, children };
        Ok(Self {
            common,
            frequency,
            window: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            selection,
            memory_budget,
            ring_growth,
        })
    }
}
