//! Waits for the kernel and the peers, and does what the engine decides. Decides nothing itself.

use std::os::fd::OwnedFd;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use ipc_endpoint::clock::{monotonic, timespec};
use ipc_endpoint::signals::Termination;
use ipc_endpoint::statistics::{Reporter, check};
use ipc_proto::ids::ExecutableId;
use ipc_proto::sample::{SamplerMessage, SymbolizerMessage};
use leadsman_ebpf::abi::{COUNTERS, Counter};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::bpf::accounts::MapAccounts;
use crate::bpf::mappings::Mappings;
use crate::bpf::run_time::RunTime;
use crate::bpf::tables::{InstallError, Paged, Tables};
use crate::engine::{Action, Engine};
use crate::metrics;
use crate::opener_link::OpenerLink;
use crate::perf_event::{PerfEventError, PerfRing, Timer};
use crate::raw_sample::{self, RawSample};
use crate::ring;
use crate::sideband::{self, Record, SidebandEvent};
use crate::symbolizer_link::SymbolizerLink;

/// Longest pause between two looks at the rings, nanoseconds.
const TICK: u64 = 500_000_000;
/// How long a change of the rate waits for samples that wait for mappings.
const RATE_PATIENCE: u64 = 2_000_000_000;
/// How long the end waits for the symbolizer to take the last window, nanoseconds: a machine that shuts down must not
/// wait for it, a recording is nothing but that window.
const LAST_PATIENCE: u64 = 1_300_000_000;
const RECORDING_PATIENCE: u64 = 100_000_000_000;

/// Everything the loop waits for and acts on.
pub(crate) struct EventLoop {
    pub(crate) records: RingBuf<MapData>,
    pub(crate) rings: Vec<PerfRing>,
    pub(crate) timers: Vec<Timer>,
    /// A rate to change to, and since when.
    pub(crate) rate_wanted: Option<(u32, u64)>,
    pub(crate) counters: PerCpuArray<MapData, u64>,
    pub(crate) mappings: Mappings,
    pub(crate) tables: Tables,
    pub(crate) accounts: MapAccounts,
    /// Bytes of the ring buffer.
    pub(crate) ring_bytes: u32,
    /// How long the kernel took over the programs.
    pub(crate) verifier_seconds: f64,
    pub(crate) engine: Engine,
    pub(crate) symbolizer: SymbolizerLink,
    pub(crate) opener: OpenerLink,
    pub(crate) reporter: Reporter,
    pub(crate) termination: Termination,
    pub(crate) cpus: Cpus,
    pub(crate) run_time: RunTime,
    /// Counters of the kernel side at the last look.
    pub(crate) kernel: [u64; COUNTERS as usize],
}

/// Which CPUs are sampled, and which are online now.
pub(crate) struct Cpus {
    pub(crate) attached: Vec<u32>,
    /// `/sys/devices/system/cpu/online`, opened before the lockdown.
    pub(crate) online: Option<std::fs::File>,
}

impl Cpus {
    /// Whether a CPU came online that is not sampled: only a new sampler has the right to attach to it.
    fn has_new(&self) -> bool {
        let mut text = [0; 4096];
        let Some(file) = &self.online else {
            return false;
        };
        let Ok(length) = rustix::io::pread(file, &mut text, 0) else {
            return false;
        };
        let text = std::str::from_utf8(text.get(..length).unwrap_or_default()).unwrap_or_default();
        cpu_list(text)
            .iter()
            .any(|cpu| !self.attached.contains(cpu))
    }
}

/// CPUs of a list like `0-3,7`.
fn cpu_list(text: &str) -> Vec<u32> {
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            cpus.extend(first..=last.min(first.saturating_add(1 << 16)));
        }
    }
    cpus
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Asked to.
    Terminated,
    /// A CPU came online: start again to sample it too.
    NewCpu,
    /// The ring buffer nearly filled: start again with a larger one.
    RingTooSmall,
}

/// Who may end a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    KernelAndPeers,
    /// At the end nobody takes what the kernel writes: it would be there at once, each time.
    Peers,
}

enum Input {
    Sample(RawSample),
    Sideband(SidebandEvent),
}

impl EventLoop {
    /// Runs until the process is asked to end, or must start anew.
    pub(crate) fn run(&mut self) -> Result<Ended, Errno> {
        let mut last_tick = 0;
        // Whoever waits for the first sample learns now that the timers run.
        self.report(monotonic(), false);
        loop {
            self.wait(Awaited::KernelAndPeers)?;
            let terminated = self.termination.asked();
            self.drain();
            let now = monotonic();
            let ticks = now.saturating_sub(last_tick) >= TICK / 2;
            if ticks || self.engine.window_end() <= Some(now) {
                last_tick = now;
                self.engine.on_tick(now);
            } else {
                self.engine.install_changed();
            }
            let ended = if terminated {
                Some(Ended::Terminated)
            } else if ticks {
                self.must_restart()
            } else {
                None
            };
            if let Some(ended) = ended {
                self.finish(now)?;
                return Ok(ended);
            }
            self.talk(now);
            if self.reporter.is_due(now) {
                self.report(now, false);
            }
            self.follow_rate(now);
        }
    }

    /// Why a new sampler must take this one's place: only at its start it has the right to what is missing.
    fn must_restart(&self) -> Option<Ended> {
        if self.cpus.has_new() {
            return Some(Ended::NewCpu);
        }
        // A recording is one window: half of it would be lost.
        let is_recording = self.engine.window_end().is_none();
        let peak = self.kernel[Counter::RingPeak as usize];
        (!is_recording && ring::is_too_small(self.ring_bytes, peak)).then_some(Ended::RingTooSmall)
    }

    fn wait(&mut self, awaited: Awaited) -> Result<(), Errno> {
        let now = monotonic();
        let pause = match (awaited, self.engine.window_end()) {
            (Awaited::KernelAndPeers, Some(end)) => TICK.min(end.saturating_sub(now)),
            _ => TICK,
        };
        let mut fds = Vec::new();
        if awaited == Awaited::KernelAndPeers {
            fds.push(PollFd::new(&self.records, PollFlags::IN));
            fds.push(PollFd::new(&self.termination, PollFlags::IN));
            let rings = self.rings.iter();
            fds.extend(rings.map(|ring| PollFd::new(ring, PollFlags::IN)));
        }
        let links = [
            (self.symbolizer.fd(), self.symbolizer.wants_to_send()),
            (self.opener.fd(), self.opener.wants_to_send()),
        ];
        for (fd, wants_to_send) in links {
            if let Some(fd) = fd {
                let out = if wants_to_send {
                    PollFlags::OUT
                } else {
                    PollFlags::empty()
                };
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN | out));
            }
        }
        match poll(&mut fds, Some(&timespec(pause))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes what the kernel has written, in the order it happened.
    fn drain(&mut self) {
        self.engine.follows_uses = self.tables.is_crowded();
        let mut inputs: Vec<(u64, Input)> = Vec::new();
        // Samples first: whatever a sample depends on was recorded before it, so it is there when the other rings are
        // read after it.
        while let Some(record) = self.records.next() {
            match raw_sample::decode(&record) {
                Ok(sample) => inputs.push((sample.time, Input::Sample(sample))),
                Err(error) => {
                    log::warn!("malformed record from the kernel side: {error}");
                    self.engine.account.ring_produced += 1;
                    self.engine.account.drop_sample("malformed", 1);
                }
            }
        }
        for ring in &mut self.rings {
            ring.drain(|record| match sideband::decode(record) {
                Ok(Record::Event(event)) => inputs.push((event.time, Input::Sideband(event))),
                Ok(Record::Cgroup { id, path }) => self.engine.on_cgroup(id, path),
                Ok(Record::Lost(count)) => self.engine.on_records_lost(count),
                Ok(Record::Other) => {}
                Err(error) => {
                    log::warn!("malformed perf record: {error}");
                    self.engine.on_records_lost(1);
                }
            });
        }
        inputs.sort_by_key(|(time, _)| *time);
        for (_, input) in inputs {
            match input {
                Input::Sample(sample) => self.engine.on_sample(sample),
                Input::Sideband(event) => self.engine.on_sideband(event),
            }
        }
        self.tables.tick();
        for (table, file_offset) in self.engine.uses.drain(..) {
            self.tables.touch(table, file_offset);
        }
    }

    /// Hears the peers, does what the engine decided, sends what waits.
    fn talk(&mut self, now: u64) {
        if self.symbolizer.connect(now) {
            self.symbolizer.outbox.forget_announcements();
            let announcements = self.engine.on_link_up();
            self.symbolizer.outbox.push_front(announcements);
        }
        self.opener.connect(now);
        while let Some(received) = self.symbolizer.receive(&mut self.engine.account) {
            self.hear(received.message, received.fds);
        }
        while let Some((request, mappings)) = self.opener.receive() {
            self.engine.on_maps(request, mappings.as_deref());
        }
        self.engine.install_changed();
        self.act();
        // The opener first: it must know a process before the symbolizer asks for its files.
        self.opener.send();
        self.symbolizer.send(&mut self.engine.account);
    }

    fn hear(&mut self, message: SymbolizerMessage, fds: Vec<OwnedFd>) {
        match message {
            SymbolizerMessage::Table(table) => {
                let file = fds.into_iter().next();
                self.install(table.executable, file, table.bytes, &table.build_id.0);
            }
            SymbolizerMessage::NoTable(no_table) => {
                self.engine.on_no_table(no_table.executable, no_table.retry);
            }
            SymbolizerMessage::Taken(taken) => {
                self.symbolizer
                    .taken(taken.window.0, taken.samples, &mut self.engine.account);
            }
        }
    }

    fn install(&mut self, id: ExecutableId, file: Option<OwnedFd>, bytes: u64, build_id: &[u8]) {
        let Some(file) = file else {
            log::warn!("unwind table {}: no file descriptor came with it", id.0);
            return self.engine.on_no_table(id, true);
        };
        match self.tables.install_table(id, file, bytes) {
            Ok(()) => self.engine.on_table_installed(id, build_id),
            Err(error) => {
                log::warn!("unwind table {} refused: {error}", id.0);
                let is_sound = matches!(error, InstallError::Map(_));
                self.engine.on_no_table(id, is_sound);
            }
        }
        self.engine.on_tables_given_up(&self.tables.take_given_up());
    }

    /// Brings rows into the kernel that a walk lacked.
    fn page_in(&mut self, id: ExecutableId, file_offset: u64) {
        match self.tables.page_in(id, file_offset) {
            Ok(Paged::Here) => {}
            Ok(Paged::NoTable) => self.engine.on_tables_given_up(&[id]),
            Err(error) => log::warn!("unwind table {}: {error}", id.0),
        }
        self.engine.on_tables_given_up(&self.tables.take_given_up());
    }

    fn act(&mut self) {
        for action in self.engine.take_actions() {
            match action {
                Action::Install(process) => {
                    if let Err(error) = self.mappings.install_process(&process) {
                        log::warn!("cannot install the mappings of {}: {error}", process.tgid);
                    }
                }
                Action::Uninstall { tgid } => self.mappings.remove_process(tgid),
                Action::PageIn { table, file_offset } => self.page_in(table, file_offset),
                Action::Ask(request) => self.opener.ask(request),
                Action::Send { message, samples } => {
                    if matches!(message, SamplerMessage::WindowEnd(_)) {
                        self.count_kernel_drops();
                    }
                    self.symbolizer
                        .queue(message, samples, &mut self.engine.account);
                }
            }
        }
    }

    /// Puts what the kernel side dropped since the last look on the window's account.
    fn count_kernel_drops(&mut self) {
        let before = self.kernel;
        self.kernel = read_counters(&self.counters);
        for (counter, cause) in [
            (Counter::RingFull, "ring_full"),
            (Counter::WalkRefused, "walk_refused"),
        ] {
            let new = self.kernel[counter as usize].saturating_sub(before[counter as usize]);
            self.engine.account.drop_in_kernel(cause, new);
        }
    }

    /// Changes the sampling rate when another one was heard of: between two windows, so that each has one, with the timers
    /// off meanwhile, so that no sample is between the two. Samples that wait for their process's mappings go first.
    fn follow_rate(&mut self, now: u64) {
        let wanted = self.reporter.frequency();
        let Some(frequency) = wanted.filter(|wanted| *wanted != self.engine.frequency()) else {
            self.rate_wanted = None;
            return;
        };
        let since = match self.rate_wanted {
            Some((known, since)) if known == frequency => since,
            _ => now,
        };
        self.rate_wanted = Some((frequency, since));
        let is_recording = self.engine.window_end().is_none();
        let in_time = now.saturating_sub(since) < RATE_PATIENCE;
        if is_recording || (self.engine.waiting() > 0 && in_time) {
            return;
        }
        if let Err(error) = self.change_rate(frequency) {
            log::warn!("the sampling rate stays: {error}");
        }
        self.rate_wanted = None;
    }

    fn change_rate(&mut self, frequency: u32) -> Result<(), PerfEventError> {
        let before = self.engine.frequency();
        let stopped = self.timers.iter().try_for_each(Timer::stop);
        self.drain();
        let now = monotonic();
        self.engine.end_window(now, false);
        let set = |frequency| {
            let mut timers = self.timers.iter();
            timers.try_for_each(|timer| timer.set_frequency(frequency))
        };
        let changed = stopped.and_then(|()| set(frequency));
        if changed.is_err() {
            // All CPUs at the rate they had: a window has one.
            let _as_good_as_it_gets = set(before);
        } else {
            self.engine.set_frequency(frequency);
            self.symbolizer.set_frequency(frequency);
            log::info!("sampling at {frequency} Hz now");
        }
        let started = self.timers.iter().map(Timer::start);
        started.fold(changed, |before, started| before.and(started))
    }

    fn report(&mut self, now: u64, last: bool) {
        let kernel = read_counters(&self.counters);
        let mut metrics = metrics::collect(
            &kernel,
            &self.engine,
            &self.tables,
            &self.accounts,
            self.verifier_seconds,
            &self.symbolizer,
            &self.opener,
        );
        metrics.push(metrics::cpus(self.cpus.attached.len()));
        metrics.push(check(
            "build_ids",
            self.rings.iter().all(|ring| ring.build_ids),
        ));
        metrics.extend(self.run_time.metrics());
        self.reporter.report(now, metrics, last);
    }

    /// Sends the last window and waits, not for long, until the symbolizer has taken it.
    fn finish(&mut self, now: u64) -> Result<(), Errno> {
        let is_recording = self.engine.window_end().is_none();
        let patience = if is_recording {
            RECORDING_PATIENCE
        } else {
            LAST_PATIENCE
        };
        self.engine.end_window(now, true);
        for timer in &self.timers {
            // One that goes on costs a little; its samples are of no window.
            let _no_harm = timer.stop();
        }
        let deadline = now.saturating_add(patience);
        self.talk(now);
        while !self.symbolizer.is_done() && monotonic() < deadline {
            self.wait(Awaited::Peers)?;
            self.talk(monotonic());
        }
        self.symbolizer.give_up(&mut self.engine.account);
        self.report(monotonic(), true);
        Ok(())
    }
}

/// The kernel side's counters, summed over all CPUs; of a peak the greatest.
pub(crate) fn read_counters(counters: &PerCpuArray<MapData, u64>) -> [u64; COUNTERS as usize] {
    let mut sums = [0; COUNTERS as usize];
    for (index, sum) in (0..COUNTERS).zip(&mut sums) {
        if let Ok(values) = counters.get(&index, 0) {
            *sum = if index == Counter::RingPeak as u32 {
                values.iter().copied().max().unwrap_or_default()
            } else {
                values.iter().sum()
            };
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::cpu_list;

    #[test]
    fn cpu_lists_have_ranges_and_single_cpus() {
        assert_eq!(cpu_list("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(cpu_list("garbage"), []);
    }
}
