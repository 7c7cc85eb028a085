//! `leadsman record`: the processes of `leadsman up` in a runtime directory of their own, with one window that is the whole
//! recording; this command takes the viewer's place and writes the one profile.

mod command;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ipc_endpoint::peers::Peers;
use ipc_proto::hello::Role;
use rustix::process::{Pid, test_kill_process};

use crate::cli::Record;
use crate::collector::{Collector, label};
use crate::error::Failure;
use crate::output::Output;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::roles::RECORDING;
use crate::runtime_directory::{RuntimeDirectory, STORE};
use crate::signals::Signals;
use crate::summary::Summary;
use crate::supervisor::engine::Rules;
use crate::supervisor::{Supervisor, stop_order};
use crate::users::{Taken, User};
use crate::{configuration, preconditions, store_directory, up, users};
use command::HeldCommand;

/// How long the processes may take until the timers run.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long each process may take over the last samples: nobody wants to lose a recording to a hurry.
const STOP_PATIENCE: Duration = Duration::from_secs(120);
/// How often processes are looked for that may be gone.
const LOOK: Duration = Duration::from_millis(200);

/// Records. With a command its exit status is handed through.
///
/// # Errors
/// Something is missing, or there is no profile.
pub(crate) fn run(options: &Record) -> Result<ExitCode, Failure> {
    let output = Output::parse(&options.output)?;
    preconditions::check("record")?;
    for pid in &options.processes {
        if !is_alive(*pid) {
            return Err(Failure::failed(format!(
                "there is no process {pid}: it is gone, or never was"
            )));
        }
    }
    if let Some(program) = options.command.first() {
        command::find(program)?;
    }
    output.check()?;
    let (recording, supervisor) = Recording::start(options)?;
    recording.run(supervisor, &output)
}

/// A recording.
#[derive(Debug)]
struct Recording<'a> {
    options: &'a Record,
    signals: Signals,
    collector: Collector,
    command: Option<HeldCommand>,
    /// When everything began.
    began: Instant,
    /// How long it took until the timers ran.
    started_in: Duration,
}

impl<'a> Recording<'a> {
    /// Makes everything that the processes need, starts the command up to its gate and the processes.
    fn start(options: &'a Record) -> Result<(Self, Supervisor), Failure> {
        let began = Instant::now();
        let signals = up::watch_signals()?;
        let path = PathBuf::from(format!("/run/leadsman-record-{}", std::process::id()));
        let mut runtime_directory = RuntimeDirectory::create(&path)?;
        let users = users::choose(&RECORDING, &Taken::read()?)?;
        let user = |role| {
            users
                .iter()
                .find(|(of, _)| *of == role)
                .map(|(_, user)| *user)
        };
        let mut listeners = RECORDING.to_vec();
        listeners.push(Role::Viewer);
        runtime_directory.listen(&listeners, user)?;
        let socket = runtime_directory
            .take("statistics.sock")
            .ok_or_else(|| Failure::failed("there is no socket for statistics"))?;
        let mut settings = configuration::defaults()?;
        let store = path.join(STORE);
        if let Some(shipper) = user(Role::Shipper) {
            store_directory::prepare(&store, shipper, "")?;
        }
        let lasting = PathBuf::from(settings.get("cache-directory"));
        let cache_directory = up::cache(&lasting, user(Role::Symbolizer), &path)?;
        let level = options.log_level.as_str().to_ascii_lowercase();
        settings.state("log-level", level);
        settings.state("runtime-directory", up::text(&path)?);
        settings.state("cache-directory", up::text(&cache_directory)?);
        settings.state("local-store-directory", up::text(&store)?);
        settings.state(
            "profiling-cpu-sampling-frequency",
            options.frequency.to_string(),
        );
        // One window, the whole recording.
        settings.state("profiling-duration", "0");
        let command = match options.command.as_slice() {
            [] => None,
            command => Some(HeldCommand::start(command, &path)?),
        };
        let collector = Collector::new(socket, peers(&users));
        let plan = Plan {
            sampler: sampler(options, command.as_ref().map(HeldCommand::pid)),
            users,
            front_listens: true,
            copy: None,
            ring_growth: 0,
            settings,
        };
        let rules = Rules {
            stop_order: stop_order(|_role| STOP_PATIENCE),
            // Without its BPF programs there is nothing to go on with.
            essential: vec![Role::Sampler],
        };
        let recording = Self {
            options,
            signals,
            collector,
            command,
            began,
            started_in: Duration::ZERO,
        };
        Ok((
            recording,
            Supervisor::start(plan, runtime_directory, None, rules),
        ))
    }

    fn run(mut self, supervisor: Supervisor, output: &Output) -> Result<ExitCode, Failure> {
        let written = self.record(supervisor, output);
        match (self.command.take(), written) {
            (None, written) => written.map(|()| ExitCode::SUCCESS),
            (Some(command), Ok(())) => Ok(command.wait(&mut self.signals)?.exit_code()),
            (Some(command), Err(failure)) => {
                let outcome = command.wait(&mut self.signals)?;
                if outcome.is_success() {
                    return Err(failure);
                }
                // The command's own failure says more than ours.
                eprintln!("leadsman: {failure}");
                Ok(outcome.exit_code())
            }
        }
    }

    fn record(&mut self, mut supervisor: Supervisor, output: &Output) -> Result<(), Failure> {
        let mut elapsed = Duration::ZERO;
        if self.wait_for_timers(&mut supervisor)? {
            self.started_in = self.began.elapsed();
            if let Some(command) = &mut self.command {
                command.release()?;
            }
            elapsed = self.wait_for_end(&mut supervisor)?;
        }
        if !supervisor.is_stopping() {
            supervisor.stop();
        }
        while !supervisor.is_done() {
            supervisor.wait(&self.fds(), LOOK)?;
            self.collector.take();
            let came = self.signals.take();
            match &mut self.command {
                Some(command) => command.forward(came),
                // Asked once more: somebody does not care for the recording.
                None if came.any() => supervisor.stop(),
                None => {}
            }
        }
        self.collector.take();
        if supervisor.failed() {
            return Err(Failure::failed("the recording failed: nothing was written"));
        }
        self.write(supervisor.plan().store_directory(), output, elapsed)
    }

    /// Waits until the sampler says that its timers run; `false`: somebody wants an end before.
    fn wait_for_timers(&mut self, supervisor: &mut Supervisor) -> Result<bool, Failure> {
        let started = Instant::now();
        loop {
            supervisor.wait(&self.fds(), LOOK)?;
            self.collector.take();
            if self.collector.sum("leadsman_sampler_attached") > 0.0 {
                return Ok(true);
            }
            if supervisor.is_stopping() || self.signals.take().any() {
                return Ok(false);
            }
            if started.elapsed() > START_PATIENCE {
                return Err(Failure::failed(format!(
                    "no timer ran within {} s of the start: see `leadsman doctor`",
                    START_PATIENCE.as_secs()
                )));
            }
        }
    }

    /// Waits for the command's end, the duration's, the processes' or a signal.
    fn wait_for_end(&mut self, supervisor: &mut Supervisor) -> Result<Duration, Failure> {
        let started = Instant::now();
        let mut progress = Progress::new();
        loop {
            let elapsed = started.elapsed();
            progress.show(elapsed, self.options.duration, samples(&self.collector));
            let left = self
                .options
                .duration
                .map(|duration| duration.saturating_sub(elapsed));
            let command_ended = match &mut self.command {
                Some(command) => command.has_ended()?,
                None => false,
            };
            if command_ended || left.is_some_and(|left| left.is_zero()) || supervisor.is_stopping()
            {
                return Ok(elapsed);
            }
            if !self.options.processes.is_empty()
                && !self.options.processes.iter().any(|pid| is_alive(*pid))
            {
                return Ok(elapsed);
            }
            let look = if self.options.processes.is_empty() {
                progress.interval()
            } else {
                LOOK
            };
            supervisor.wait(&self.fds(), left.map_or(look, |left| left.min(look)))?;
            self.collector.take();
            let came = self.signals.take();
            match &mut self.command {
                Some(command) => command.forward(came),
                None if came.any() => return Ok(started.elapsed()),
                None => {}
            }
        }
    }

    fn fds(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        let mut fds = self.collector.fds();
        fds.extend(self.signals.fds());
        fds.extend(self.command.as_ref().and_then(HeldCommand::ended_fd));
        fds
    }

    fn write(&self, store: &Path, output: &Output, elapsed: Duration) -> Result<(), Failure> {
        let profile = output.take_profile(store)?;
        let summary = Summary::of(&profile, &self.collector, self.started_in);
        if summary.samples == 0 {
            return Err(Failure::failed(format!(
                "no samples: {}; nothing was written",
                self.why_nothing(elapsed)
            )));
        }
        output.write(&profile)?;
        eprintln!("{summary}");
        if let Some(file) = output.file() {
            eprintln!("written to {}", file.display());
        }
        Ok(())
    }

    fn why_nothing(&self, elapsed: Duration) -> String {
        let dropped: f64 = self
            .collector
            .metrics("leadsman_edge_dropped_samples_total")
            .filter(|(_, metric)| label(metric, "cause") != "not_selected")
            .map(|(_, metric)| metric.value)
            .sum();
        if dropped > 0.0 {
            return format!("all {dropped:.0} were dropped, `--log-level info` says more");
        }
        let whom = match (&self.command, self.options.processes.as_slice()) {
            (Some(_), _) => "the command",
            (None, []) => "nothing on this machine",
            (None, [_]) => "the process",
            (None, _) => "none of the processes",
        };
        let verb = if whom.starts_with("no") {
            "ran"
        } else {
            "did not run"
        };
        format!(
            "{whom} {verb} on a CPU at a tick of the timer ({} a second) within {:.3} s: record for longer, or with a higher -F",
            self.options.frequency,
            elapsed.as_secs_f64()
        )
    }
}

fn peers(users: &[(Role, User)]) -> Peers {
    let mut peers = Peers::default();
    for (role, user) in users {
        peers.insert(*role, user.uid);
    }
    peers
}

fn sampler(options: &Record, command: Option<u32>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let named = options.processes.iter().map(ToString::to_string);
    for pid in named.chain(command.map(|pid| pid.to_string())) {
        arguments.extend(["--process".into(), pid.into()]);
    }
    if !options.children {
        arguments.push("--no-children".into());
    }
    if let Some(budget) = options.bpf_memory_budget {
        arguments.extend(["--bpf-memory-budget".into(), budget.to_string().into()]);
    }
    arguments
}

fn samples(collector: &Collector) -> f64 {
    let metrics = collector.metrics("leadsman_edge_delivered_samples_total");
    metrics
        .filter(|(_, metric)| label(metric, "edge") == "ring")
        .map(|(_, metric)| metric.value)
        .sum()
}

/// Whether a process lives; one that only waits to be reaped does not.
fn is_alive(pid: i32) -> bool {
    let exists = Pid::from_raw(pid)
        .is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)));
    exists && !is_zombie(Path::new(&format!("/proc/{pid}/stat")))
}

fn is_zombie(stat: &Path) -> bool {
    // The state follows the name, which may itself hold parentheses (proc_pid_stat(5)).
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    let state = text.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    matches!(state, Some(Some('Z' | 'X')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_told_from_the_gone() {
        assert!(is_alive(i32::try_from(std::process::id()).expect("fits")));
        // No process has this number (kernel.pid_max is at most 2^22).
        assert!(!is_alive(99_999_999));
        let mut child = std::process::Command::new("true").spawn().expect("started");
        let pid = i32::try_from(child.id()).expect("fits");
        while is_alive(pid) {
            std::thread::yield_now();
        }
        child.wait().expect("reaped");
    }
}
