//! The names by which dashboards of parca-agent know things, derived from what Leadsman's processes say. A table; what has no
//! counterpart here has no alias (docs/METRICS.md).

use std::collections::BTreeMap;

use super::{Metric, Registry};

/// One older name.
struct Alias {
    name: &'static str,
    help: &'static str,
    counter: bool,
    /// Our metrics that it is the sum of.
    of: &'static [&'static str],
    /// Labels that ours must have for it.
    only: &'static [(&'static str, &'static str)],
    /// Our label that becomes theirs: (ours, theirs).
    by: Option<(&'static str, &'static str)>,
    /// A label that is always the same.
    always: Option<(&'static str, &'static str)>,
}

const PLAIN: Alias = Alias {
    name: "",
    help: "",
    counter: true,
    of: &[],
    only: &[],
    by: None,
    always: None,
};

const ALIASES: &[Alias] = &[
    Alias {
        name: "parca_agent_num_cpu",
        help: "CPUs that are sampled.",
        counter: false,
        of: &["leadsman_sampled_cpus"],
        ..PLAIN
    },
    Alias {
        name: "parca_agent_profiler_attempts_total",
        help: "Windows whose profile was written or sent.",
        of: &["leadsman_profile_windows_total"],
        by: Some(("status", "status")),
        ..PLAIN
    },
    Alias {
        name: "parca_agent_profiler_stack_drop_total",
        help: "Samples dropped, by cause.",
        of: &["leadsman_edge_dropped_samples_total"],
        by: Some(("cause", "reason")),
        ..PLAIN
    },
    Alias {
        name: "parca_agent_profiler_events_lost_total",
        help: "Kernel records of mappings, execs and forks that were lost.",
        of: &["leadsman_process_records_lost_total"],
        ..PLAIN
    },
    Alias {
        name: "parca_agent_profiler_frame_drop_total",
        help: "Frames without a name, by reason; they are kept.",
        of: &["leadsman_unnamed_frames_total"],
        by: Some(("reason", "reason")),
        ..PLAIN
    },
    Alias {
        name: "parca_agent_native_unwinder_samples_total",
        help: "Samples whose user stack was walked.",
        of: &["leadsman_stacks_total"],
        always: Some(("unwinder", "dwarf")),
        ..PLAIN
    },
    Alias {
        name: "parca_agent_native_unwinder_success_total",
        help: "Samples whose user stack reached its thread's root, by how the walk ended.",
        of: &["leadsman_stacks_total"],
        only: &[("complete", "true")],
        by: Some(("stop", "reason")),
        always: Some(("unwinder", "dwarf")),
        ..PLAIN
    },
    Alias {
        name: "parca_agent_native_unwinder_error_total",
        help: "Samples whose user stack was cut, by how the walk ended.",
        of: &["leadsman_stacks_total"],
        only: &[("complete", "false")],
        by: Some(("stop", "reason")),
        always: Some(("unwinder", "dwarf")),
        ..PLAIN
    },
    Alias {
        name: "parca_agent_bpf_map_memlock",
        help: "Bytes of kernel memory of BPF maps.",
        counter: false,
        of: &["leadsman_unwind_table_bytes"],
        always: Some(("bpf_map_name", "unwind_tables")),
        ..PLAIN
    },
    Alias {
        name: "parca_agent_bpf_map_memlock",
        help: "Bytes of kernel memory of BPF maps.",
        counter: false,
        of: &["leadsman_process_map_bytes"],
        always: Some(("bpf_map_name", "process_info")),
        ..PLAIN
    },
    Alias {
        name: "parca_agent_bpf_map_memlock",
        help: "Bytes of kernel memory of BPF maps.",
        counter: false,
        of: &["leadsman_ring_bytes"],
        always: Some(("bpf_map_name", "events")),
        ..PLAIN
    },
    Alias {
        name: "parca_agent_bpf_program_runs_total",
        help: "Runs of the sampling program.",
        of: &["leadsman_bpf_runs_total"],
        ..PLAIN
    },
    Alias {
        name: "parca_agent_config_last_reload_successful",
        help: "Whether the configuration file was valid when it was last read.",
        counter: false,
        of: &["leadsman_config_last_reload_successful"],
        ..PLAIN
    },
    Alias {
        name: "parca_agent_config_last_reload_success_timestamp_seconds",
        help: "When the configuration was last read and valid, seconds since 1970 UTC.",
        counter: false,
        of: &["leadsman_config_last_reload_success_timestamp_seconds"],
        ..PLAIN
    },
];

/// All aliases that have something to stand for.
pub(crate) fn aliases(registry: &Registry) -> Vec<Metric> {
    ALIASES
        .iter()
        .flat_map(|alias| alias.metrics(registry))
        .collect()
}

impl Alias {
    fn metrics(&self, registry: &Registry) -> Vec<Metric> {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        let all = registry.reports().flat_map(|(_, report)| &report.metrics);
        for metric in all.filter(|metric| self.of.contains(&metric.name.as_str())) {
            let fits = self
                .only
                .iter()
                .all(|(label, value)| metric.label(label) == Some(value));
            if fits {
                let key = self.by.and_then(|(ours, _)| metric.label(ours));
                *sums.entry(key.unwrap_or_default()).or_default() += metric.value;
            }
        }
        let metric = |(key, sum): (&str, f64)| {
            let mut metric = Metric::gauge(self.name, self.help, sum);
            metric.counter = self.counter;
            if let Some((_, theirs)) = self.by {
                metric = metric.with(theirs, key);
            }
            if let Some((label, value)) = self.always {
                metric = metric.with(label, value);
            }
            metric
        };
        sums.into_iter().map(metric).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ipc_proto::hello::Role;

    use super::*;

    #[test]
    fn stacks_are_told_by_outcome_under_the_older_names() {
        let stacks = |stop: &str, complete: &str, value| {
            Metric::counter("leadsman_stacks_total", "Stacks.", value)
                .with("stop", stop)
                .with("complete", complete)
        };
        let mut registry = Registry::default();
        registry.replace(
            Role::Symbolizer,
            vec![
                stacks("root", "true", 7),
                stacks("no_row", "false", 2),
                stacks("depth", "false", 1),
            ],
            Duration::ZERO,
        );
        let aliases = aliases(&registry);
        let value = |name: &str, reason: Option<&str>| {
            let found = aliases
                .iter()
                .find(|metric| metric.name == name && metric.label("reason") == reason);
            found.map(|metric| metric.value)
        };
        assert_eq!(
            value("parca_agent_native_unwinder_samples_total", None),
            Some(10.0)
        );
        assert_eq!(
            value("parca_agent_native_unwinder_success_total", Some("root")),
            Some(7.0)
        );
        assert_eq!(
            value("parca_agent_native_unwinder_error_total", Some("no_row")),
            Some(2.0)
        );
        assert_eq!(aliases.len(), 4, "nothing is made up: {aliases:?}");
    }

    #[test]
    fn counters_end_as_they_must() {
        for alias in ALIASES {
            assert_eq!(
                alias.counter,
                alias.name.ends_with("_total"),
                "{}",
                alias.name
            );
        }
    }
}
