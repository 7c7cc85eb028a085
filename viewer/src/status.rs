//! What the header line of the page and `/ready` say: own cost, losses by cause, whether samples flow. Derived from the
//! processes' own statistics and the store's newest window; measures nothing itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ipc_proto::hello::Role;
use serde::Serialize;

use crate::metrics::{Metric, Registry};

/// CPU seconds a process used, in all its threads.
const CPU_SECONDS: &str = "leadsman_process_cpu_seconds_total";
/// Bytes of memory a process holds, shared pages divided by their users.
const MEMORY_BYTES: &str = "leadsman_process_pss_bytes";
/// Bytes of kernel memory that the sampler's BPF maps hold.
const KERNEL_BYTES: [&str; 4] = [
    "leadsman_unwind_table_bytes",
    "leadsman_process_map_bytes",
    "leadsman_ring_bytes",
    "leadsman_other_map_bytes",
];
/// 1 while every CPU's timer is attached.
const ATTACHED: &str = "leadsman_sampler_attached";
/// Samples dropped, by edge and cause.
const DROPPED: &str = "leadsman_edge_dropped_samples_total";
/// The cause of samples that were not asked for: no loss.
const NOT_SELECTED: &str = "not_selected";
/// Own CPU is averaged over about this time.
const COST_SPAN: Duration = Duration::from_secs(15);
/// A process that said nothing for so long isn't counted on any more; they report each five seconds.
const SILENCE: Duration = Duration::from_secs(10);
/// Who must be there.
const REPORTING: [Role; 5] = [
    Role::Sampler,
    Role::Opener,
    Role::Symbolizer,
    Role::DebuginfoUploader,
    Role::Shipper,
];
/// Window length before one was seen.
const DEFAULT_WINDOW: Duration = Duration::from_secs(10);

/// Remembers CPU counters long enough to tell a rate.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    history: BTreeMap<Role, VecDeque<(Duration, f64)>>,
}

impl Costs {
    /// Notes a process's report.
    pub(crate) fn on_report(&mut self, role: Role, metrics: &[Metric], now: Duration) {
        let Some(seconds) = value(metrics, CPU_SECONDS) else {
            return;
        };
        let history = self.history.entry(role).or_default();
        // A counter that fell belongs to a new process.
        if history.back().is_some_and(|(_, last)| *last > seconds) {
            history.clear();
        }
        history.push_back((now, seconds));
        while history.len() > 2
            && history
                .get(1)
                .is_some_and(|(at, _)| now.saturating_sub(*at) >= COST_SPAN)
        {
            history.pop_front();
        }
    }

    /// Percent of one CPU that a process used lately.
    fn percent(&self, role: Role) -> Option<f64> {
        let history = self.history.get(&role)?;
        let ((first_at, first), (last_at, last)) = (history.front()?, history.back()?);
        let span = last_at.checked_sub(*first_at)?.as_secs_f64();
        (span > 0.0).then(|| (last - first) / span * 100.0)
    }
}

/// Where the store stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoreState {
    /// Start of the newest window since 1970 UTC.
    pub(crate) newest: Option<Duration>,
    /// Length of the newest windows.
    pub(crate) window: Option<Duration>,
    /// Windows kept.
    pub(crate) windows: usize,
    /// Bytes of their files.
    pub(crate) bytes: u64,
}

impl StoreState {
    /// Length of a window, known or assumed.
    pub(crate) fn window_or_default(&self) -> Duration {
        self.window.unwrap_or(DEFAULT_WINDOW)
    }
}

/// Why samples don't flow end to end.
///
/// # Errors
/// One line that says what is waited for.
pub(crate) fn readiness(
    registry: &Registry,
    store: &StoreState,
    monotonic: Duration,
    unix: Duration,
) -> Result<(), String> {
    let Some(sampler) = registry.report(Role::Sampler) else {
        return Err("waiting for the sampler: it has sent no statistics yet".into());
    };
    let silence = monotonic.saturating_sub(sampler.received);
    if silence > SILENCE {
        return Err(format!(
            "the sampler has been silent for {} s; it is restarted by its supervisor",
            silence.as_secs()
        ));
    }
    if value(&sampler.metrics, ATTACHED).is_none_or(|attached| attached < 1.0) {
        return Err("waiting for the sampler to attach its BPF programs".into());
    }
    let window = store.window_or_default();
    let Some(newest) = store.newest else {
        return Err(format!(
            "BPF programs are attached; waiting for the first window, which takes {} s",
            window.as_secs().max(1)
        ));
    };
    // Three windows: one being sampled, one being symbolized and written, one of slack.
    let age = unix.saturating_sub(newest.saturating_add(window));
    if age > window.saturating_mul(2) + Duration::from_secs(5) {
        return Err(format!(
            "the newest window ended {} s ago; see leadsman_edge_dropped_samples_total in /metrics",
            age.as_secs()
        ));
    }
    Ok(())
}

/// Whether each process is there, and samples flow.
pub(crate) fn checks(
    registry: &Registry,
    store: &StoreState,
    monotonic: Duration,
    unix: Duration,
) -> Vec<Metric> {
    let check = |id: &str, ok: bool| {
        let help = "1 where a check came out well, by its id.";
        Metric::gauge("leadsman_check_ok", help, f64::from(ok)).with("id", id)
    };
    let alive = REPORTING.into_iter().map(|role| {
        let report = registry.report(role);
        let alive =
            report.is_some_and(|report| monotonic.saturating_sub(report.received) <= SILENCE);
        check(&format!("{}_alive", role.name().replace('-', "_")), alive)
    });
    let flow = readiness(registry, store, monotonic, unix).is_ok();
    alive.chain([check("samples_flow", flow)]).collect()
}

/// The header line as the page takes it.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct StatusView {
    version: &'static str,
    ready: bool,
    /// Why not.
    waiting_for: Option<String>,
    /// Milliseconds since 1970 UTC.
    now: u64,
    /// Percent of one CPU, all processes together.
    cpu_percent: Option<f64>,
    memory_bytes: Option<f64>,
    /// Bytes of BPF maps, not in `memory_bytes`.
    kernel_bytes: Option<f64>,
    processes: Vec<ProcessCost>,
    losses: Vec<Loss>,
    windows: usize,
    store_bytes: u64,
    newest: Option<u64>,
    window_millis: u64,
}

#[derive(Debug, Serialize, PartialEq)]
struct ProcessCost {
    process: &'static str,
    cpu_percent: Option<f64>,
    memory_bytes: Option<f64>,
    /// Whether it has said nothing lately.
    silent: bool,
}

#[derive(Debug, Serialize, PartialEq)]
struct Loss {
    /// Between which stages.
    edge: String,
    cause: String,
    samples: f64,
}

impl StatusView {
    /// The state at a time.
    pub(crate) fn new(
        registry: &Registry,
        costs: &Costs,
        store: &StoreState,
        monotonic: Duration,
        unix: Duration,
    ) -> Self {
        let waiting_for = readiness(registry, store, monotonic, unix).err();
        let processes: Vec<ProcessCost> = registry
            .reports()
            .map(|(role, report)| ProcessCost {
                process: role.name(),
                cpu_percent: costs.percent(role),
                memory_bytes: value(&report.metrics, MEMORY_BYTES),
                silent: monotonic.saturating_sub(report.received) > SILENCE,
            })
            .collect();
        let sum = |of: fn(&ProcessCost) -> Option<f64>| {
            processes
                .iter()
                .filter(|process| !process.silent)
                .filter_map(of)
                .reduce(|a, b| a + b)
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            ready: waiting_for.is_none(),
            waiting_for,
            now: millis(unix),
            cpu_percent: sum(|process| process.cpu_percent),
            memory_bytes: sum(|process| process.memory_bytes),
            kernel_bytes: kernel_bytes(registry),
            losses: losses(registry),
            processes,
            windows: store.windows,
            store_bytes: store.bytes,
            newest: store.newest.map(millis),
            window_millis: millis(store.window_or_default()),
        }
    }
}

fn kernel_bytes(registry: &Registry) -> Option<f64> {
    let sampler = registry.report(Role::Sampler)?;
    KERNEL_BYTES
        .iter()
        .filter_map(|name| value(&sampler.metrics, name))
        .reduce(|a, b| a + b)
}

/// Samples dropped by any process, the most first.
fn losses(registry: &Registry) -> Vec<Loss> {
    let text = |metric: &Metric, label| metric.label(label).unwrap_or("?").replace('_', " ");
    let mut losses: Vec<Loss> = registry
        .reports()
        .flat_map(|(_, report)| &report.metrics)
        .filter(|metric| metric.name == DROPPED && metric.value > 0.0)
        .filter(|metric| metric.label("cause") != Some(NOT_SELECTED))
        .map(|metric| Loss {
            edge: text(metric, "edge"),
            cause: text(metric, "cause"),
            samples: metric.value,
        })
        .collect();
    losses.sort_by(|a, b| b.samples.total_cmp(&a.samples));
    losses
}

fn value(metrics: &[Metric], name: &str) -> Option<f64> {
    metrics
        .iter()
        .find(|metric| metric.name == name)
        .map(|metric| metric.value)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);
    const UNIX: Duration = Duration::from_secs(1_795_524_300);

    fn sampler(attached: f64) -> Registry {
        let mut registry = Registry::default();
        registry.replace(
            Role::Sampler,
            vec![Metric::gauge(ATTACHED, "Attached.", attached)],
            NOW,
        );
        registry
    }

    fn store(newest: Duration) -> StoreState {
        StoreState {
            newest: Some(newest),
            window: Some(Duration::from_secs(10)),
            windows: 1,
            bytes: 1,
        }
    }

    #[test]
    fn ready_means_attached_and_a_recent_window() {
        let check = |registry: &Registry, store: &StoreState, later: u64| {
            let later = Duration::from_secs(later);
            readiness(registry, store, NOW + later, UNIX + later)
        };
        let recent = store(UNIX - Duration::from_secs(12));
        assert_eq!(check(&sampler(1.0), &recent, 0), Ok(()));
        let waits = |registry: &Registry, store: &StoreState, later, reason: &str| {
            let error = check(registry, store, later).expect_err(reason);
            assert!(error.contains(reason), "{error}");
        };
        waits(&Registry::default(), &recent, 0, "no statistics");
        waits(&sampler(1.0), &recent, 60, "silent for 60 s");
        waits(&sampler(0.0), &recent, 0, "attach");
        waits(&sampler(1.0), &StoreState::default(), 0, "first window");
        waits(
            &sampler(1.0),
            &store(UNIX - Duration::from_secs(90)),
            0,
            "ended 80 s ago",
        );
    }

    #[test]
    fn cost_is_the_rate_of_the_cpu_counters() {
        let mut costs = Costs::default();
        let mut registry = Registry::default();
        let mut report = |costs: &mut Costs, second: u64, cpu: f64| {
            let now = NOW + Duration::from_secs(second);
            let metrics = vec![
                Metric {
                    counter: true,
                    ..Metric::gauge(CPU_SECONDS, "CPU.", cpu)
                },
                Metric::gauge(MEMORY_BYTES, "Memory.", 1e6),
            ];
            costs.on_report(Role::Sampler, &metrics, now);
            registry.replace(Role::Sampler, metrics, now);
            StatusView::new(&registry, costs, &StoreState::default(), now, UNIX)
        };
        assert_eq!(report(&mut costs, 0, 5.0).cpu_percent, None);
        for second in 1..40 {
            report(&mut costs, second, 5.0 + 0.01 * second as f64);
        }
        let view = report(&mut costs, 40, 5.4);
        assert!(
            (view.cpu_percent.expect("a rate") - 1.0).abs() < 0.01,
            "{view:?}"
        );
        assert_eq!(view.memory_bytes, Some(1e6));
        assert_eq!(report(&mut costs, 41, 0.1).cpu_percent, None, "restarted");
    }

    #[test]
    fn losses_are_named_by_cause() {
        let dropped = |edge: &str, cause: &str, samples| {
            Metric::counter(DROPPED, "", samples)
                .with("edge", edge)
                .with("cause", cause)
        };
        let mut registry = Registry::default();
        registry.replace(
            Role::Sampler,
            vec![
                dropped("kernel", "ring_full", 3),
                dropped("ring", "no_room", 0),
                dropped("ring", NOT_SELECTED, 9000),
                Metric::counter("leadsman_edge_produced_samples_total", "", 9),
            ],
            NOW,
        );
        registry.replace(Role::Shipper, vec![dropped("store", "disk_full", 7)], NOW);
        let found: Vec<_> = losses(&registry)
            .into_iter()
            .map(|loss| (loss.edge, loss.cause, loss.samples))
            .collect();
        let expected = [("store", "disk full", 7.0), ("kernel", "ring full", 3.0)];
        assert_eq!(
            found,
            expected.map(|(edge, cause, samples)| (edge.to_owned(), cause.to_owned(), samples))
        );
    }
}
