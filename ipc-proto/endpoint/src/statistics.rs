//! A process's own metrics, on their way to the viewer; never waited for. Durations are [`crate::histogram`]s.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ipc_proto::codec::{Bytes, List};
use ipc_proto::header::Message;
use ipc_proto::hello::Role;
use ipc_proto::limits::{MAX_LABELS, MAX_METRICS};
use ipc_proto::statistics::{Label, Metric, Statistics, StatisticsMessage};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::pread;
use rustix::time::{ClockId, clock_gettime};

use crate::clock::nanoseconds;
use crate::connect::Connector;
use crate::link::Link;
use crate::peers::Peers;
use crate::service_manager::ServiceManager;
use crate::settings::Subscriber;
use crate::{crash, logger};

/// Nothing is said on this channel's way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {}

impl Message for Nothing {
    fn number(&self) -> u16 {
        match *self {}
    }
    fn encode_body(&self) -> Vec<u8> {
        match *self {}
    }
    fn decode_body(number: u16, _body: &[u8]) -> Result<Self, ipc_proto::codec::DecodeError> {
        Err(ipc_proto::codec::DecodeError::UnknownNumber {
            kind: "Nothing",
            number: number.into(),
        })
    }
}

/// Pause between two reports, nanoseconds, while a start is watched.
const FIRST_INTERVAL: u64 = 1_000_000_000;
/// Reports of a start.
const FIRST_REPORTS: u32 = 60;
/// Pause between two reports afterwards, nanoseconds: on an idle machine reports are most of what this program costs.
const INTERVAL: u64 = 5_000_000_000;
/// Reports from one look at the own memory to the next: the kernel walks all of it for that.
const MEMORY_REPORTS: u32 = 10;

/// Sends a process's metrics each few seconds, and hears changed settings at the same beat.
#[derive(Debug)]
pub struct Reporter {
    connector: Connector<StatisticsMessage, Nothing>,
    link: Option<Link<StatisticsMessage, Nothing>>,
    cost: OwnCost,
    next: u64,
    /// None in the process that publishes them.
    settings: Option<Subscriber>,
}

impl Reporter {
    /// Call before the lockdown: afterwards the process may not open its own `smaps_rollup`.
    #[must_use]
    pub fn new(directory: &Path, own: Role, peers: &Peers) -> Self {
        let mut peers = peers.clone();
        // Whoever collects them, the viewer or the front command, got the socket from the service manager.
        peers.insert(Role::Leadsman, 0);
        Self {
            connector: Connector::new(directory, "statistics.sock", own, Role::Viewer, &peers),
            link: None,
            cost: OwnCost::open(own),
            next: 0,
            settings: (own != Role::Shipper).then(|| Subscriber::new(directory, own, &peers)),
        }
    }

    /// Whether it is time for a report.
    #[must_use]
    pub fn is_due(&self, now: u64) -> bool {
        now >= self.next
    }

    /// Nanoseconds until the next report is due.
    #[must_use]
    pub fn pause(&self, now: u64) -> u64 {
        self.next.saturating_sub(now)
    }

    /// The sampling rate that was last heard of.
    #[must_use]
    pub fn frequency(&self) -> Option<u32> {
        self.settings.as_ref().and_then(Subscriber::frequency)
    }

    /// Sends `metrics` and the process's own cost; drops them when nobody listens.
    pub fn report(&mut self, now: u64, mut metrics: Vec<Metric>, last: bool) {
        let is_start = self.cost.reports < FIRST_REPORTS;
        let interval = if is_start { FIRST_INTERVAL } else { INTERVAL };
        self.next = now.saturating_add(interval);
        if let Some(settings) = &mut self.settings {
            settings.poll(now);
        }
        metrics.extend(self.cost.metrics(last));
        metrics.truncate(MAX_METRICS);
        let message = StatisticsMessage::Statistics(Statistics {
            metrics: List(metrics),
            last,
        });
        if !self.send(&message) {
            // Whoever collected them has ended and may be there anew.
            self.link = self.connector.poll(now);
            self.send(&message);
        }
    }

    /// Whether `message` was sent. A link that does not take it is given up.
    fn send(&mut self, message: &StatisticsMessage) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        // The hello of the other end waits in the socket; nothing else ever comes.
        if link.receive().is_err() || link.send(message, &[]).is_err() {
            self.link = None;
        }
        self.link.is_some()
    }
}

/// What this process costs.
#[derive(Debug)]
pub struct OwnCost {
    role: Role,
    smaps: Option<OwnedFd>,
    /// Seconds since 1970 UTC.
    started: f64,
    manager: ServiceManager,
    /// The memory at the last look, and the reports since.
    memory: Option<(f64, f64)>,
    reports: u32,
}

impl OwnCost {
    /// Call before the lockdown: afterwards the process may not open its own `smaps_rollup`.
    #[must_use]
    pub fn open(role: Role) -> Self {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Self {
            role,
            smaps: open("/proc/self/smaps_rollup", flags, Mode::empty()).ok(),
            started: nanoseconds(ClockId::Realtime) as f64 / 1e9,
            manager: ServiceManager::from_environment(),
            memory: None,
            reports: 0,
        }
    }

    /// CPU time now, and memory as it was not long ago; `exact`: now too. Whoever reports is alive, and the service manager
    /// hears so.
    #[must_use]
    pub fn metrics(&mut self, exact: bool) -> Vec<Metric> {
        self.manager.alive();
        let own = [("process", self.role.name())];
        let mut metrics = vec![
            counter(
                "leadsman_process_cpu_seconds_total",
                "CPU time of each of Leadsman's processes.",
                &own,
                cpu_seconds(),
            ),
            gauge(
                "leadsman_process_start_time_seconds",
                "When each of Leadsman's processes started, seconds since 1970 UTC.",
                &own,
                self.started,
            ),
        ];
        // The first reports look each time: a process grows at its start.
        if exact || self.reports < MEMORY_REPORTS || self.reports.is_multiple_of(MEMORY_REPORTS) {
            self.memory = self.smaps.as_ref().and_then(memory_bytes);
        }
        self.reports = self.reports.wrapping_add(1);
        if let Some((rss, pss)) = self.memory {
            metrics.push(gauge(
                "leadsman_process_resident_memory_bytes",
                "Resident set size of each of Leadsman's processes, shared pages counted whole.",
                &own,
                rss,
            ));
            metrics.push(gauge(
                "leadsman_process_pss_bytes",
                "Proportional set size of each of Leadsman's processes.",
                &own,
                pss,
            ));
        }
        metrics.extend(logger::metrics());
        metrics.push(crash::metric());
        metrics
    }
}

/// CPU time of this process, seconds.
#[must_use]
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resident and proportional set size.
fn memory_bytes(smaps: &OwnedFd) -> Option<(f64, f64)> {
    let mut text = [0; 2048];
    let length = pread(smaps.as_fd(), &mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    let bytes = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes * 1024.0)
    };
    Some((bytes("Rss:")?, bytes("Pss:")?))
}

/// A metric that only grows; its name ends in `_total`.
#[must_use]
pub fn counter(name: &str, help: &str, labels: &[(&str, &str)], value: f64) -> Metric {
    metric(name, help, true, labels, value)
}

/// A metric that rises and falls.
#[must_use]
pub fn gauge(name: &str, help: &str, labels: &[(&str, &str)], value: f64) -> Metric {
    metric(name, help, false, labels, value)
}

fn metric(name: &str, help: &str, counter: bool, labels: &[(&str, &str)], value: f64) -> Metric {
    let label = |(name, value): &(&str, &str)| Label {
        name: Bytes::cut(name.as_bytes()),
        value: Bytes::cut(value.as_bytes()),
    };
    Metric {
        name: Bytes::cut(name.as_bytes()),
        help: Bytes::cut(help.as_bytes()),
        counter,
        labels: List(labels.iter().take(MAX_LABELS).map(label).collect()),
        value,
        buckets: List::default(),
    }
}

/// Whether something that Leadsman needs, or works better with, is as it should be.
#[must_use]
pub fn check(id: &str, ok: bool) -> Metric {
    let help = "1 where a check came out well, by its id.";
    gauge("leadsman_check_ok", help, &[("id", id)], f64::from(ok))
}

/// Samples that entered an edge.
#[must_use]
pub fn produced(edge: &str, samples: u64) -> Metric {
    let help = "Samples that entered each edge between two stages.";
    counter(
        "leadsman_edge_produced_samples_total",
        help,
        &[("edge", edge)],
        samples as f64,
    )
}

/// Samples that left an edge at its far end.
#[must_use]
pub fn delivered(edge: &str, samples: u64) -> Metric {
    let help = "Samples that each edge delivered.";
    counter(
        "leadsman_edge_delivered_samples_total",
        help,
        &[("edge", edge)],
        samples as f64,
    )
}

/// Samples that an edge dropped.
#[must_use]
pub fn dropped(edge: &str, cause: &str, samples: u64) -> Metric {
    let labels = [("edge", edge), ("cause", cause)];
    let help = "Samples that each edge dropped, by cause.";
    counter(
        "leadsman_edge_dropped_samples_total",
        help,
        &labels,
        samples as f64,
    )
}

/// Samples that are on an edge at the moment.
#[must_use]
pub fn queued(edge: &str, samples: u64) -> Metric {
    let help =
        "Samples that are on each edge at the moment: produced = delivered + dropped + queued.";
    gauge(
        "leadsman_edge_queued_samples",
        help,
        &[("edge", edge)],
        samples as f64,
    )
}
