//! What a recording says of itself at its end: samples, how many are whole, what was dropped, what it cost.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use leadsman_ebpf::stop::StopReason;
use pprof::frames::FrameKind;
use pprof::{Frames, Profile};

use crate::collector::{Collector, label};

/// A recording in numbers.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) samples: i64,
    user: i64,
    complete: i64,
    stops: BTreeMap<String, i64>,
    drops: BTreeMap<String, u64>,
    cpu_seconds: f64,
    pss_bytes: f64,
    bpf_bytes: f64,
    unwind_rows: f64,
    table_bytes: f64,
    frames: f64,
    helper_calls: f64,
    verifier_seconds: f64,
    snapshots: f64,
    built_tables: f64,
    started_in: Duration,
}

impl Summary {
    /// Of a profile, of what the processes said at the end, and of how long the start took.
    pub(crate) fn of(profile: &Profile, collector: &Collector, started_in: Duration) -> Self {
        let mut summary = Self {
            cpu_seconds: collector.sum("leadsman_process_cpu_seconds_total"),
            pss_bytes: collector.sum("leadsman_process_pss_bytes"),
            bpf_bytes: [
                "leadsman_unwind_table_bytes",
                "leadsman_process_map_bytes",
                "leadsman_ring_bytes",
                "leadsman_other_map_bytes",
            ]
            .iter()
            .map(|name| collector.sum(name))
            .sum(),
            unwind_rows: collector.sum("leadsman_unwind_rows"),
            table_bytes: collector.sum("leadsman_unwind_table_bytes"),
            frames: collector.sum("leadsman_frames_walked_total"),
            helper_calls: collector.sum("leadsman_walk_helper_calls_total"),
            verifier_seconds: collector.sum("leadsman_bpf_verifier_seconds"),
            snapshots: collector.sum("leadsman_snapshots_total"),
            built_tables: collector
                .metrics("leadsman_unwind_tables_total")
                .filter(|(_, metric)| label(metric, "how") == "built")
                .map(|(_, metric)| metric.value)
                .sum(),
            started_in,
            ..Self::default()
        };
        for (_, metric) in collector.metrics("leadsman_edge_dropped_samples_total") {
            let cause = label(metric, "cause");
            // Samples of processes that nobody asked for are no loss.
            if metric.value > 0.0 && cause != "not_selected" {
                *summary.drops.entry(cause).or_default() += metric.value as u64;
            }
        }
        summary.count(profile);
        summary
    }

    fn count(&mut self, profile: &Profile) {
        let frames = Frames::new(profile);
        for sample in frames.samples() {
            let count = sample.value();
            self.samples += count;
            let root = sample
                .stack()
                .next_back()
                .and_then(|frame| frames.function(frame.function));
            let Some(root) = root.filter(|root| root.kind != FrameKind::Kernel) else {
                continue;
            };
            self.user += count;
            match root.stop_reason() {
                Some(reason) => *self.stops.entry(reason.to_owned()).or_default() += count,
                None => self.complete += count,
            }
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = if self.user > 0 {
            100.0 * self.complete as f64 / self.user as f64
        } else {
            100.0
        };
        write!(
            formatter,
            "{} samples, {} of user code, {share:.1} % of their stacks complete",
            self.samples, self.user
        )?;
        for (reason, count) in &self.stops {
            write!(formatter, "\n  not complete: {reason}: {count}")?;
            if let Some(reason) = StopReason::from_name(reason) {
                write!(formatter, " ({})", reason.explanation())?;
            }
        }
        if self.drops.is_empty() {
            write!(formatter, "\nnothing dropped")?;
        }
        for (cause, count) in &self.drops {
            write!(formatter, "\n  dropped: {cause}: {count}")?;
        }
        write!(
            formatter,
            "\nown cost: CPU {:.2} s, memory {:.1} MB (PSS) + {:.1} MB (BPF maps)",
            self.cpu_seconds,
            self.pss_bytes / 1e6,
            self.bpf_bytes / 1e6
        )?;
        write!(
            formatter,
            "\nsampling {:.2} s after the start, programs verified in {:.0} ms; {:.0} unwind rows in the kernel, {:.1} bytes each",
            self.started_in.as_secs_f64(),
            1e3 * self.verifier_seconds,
            self.unwind_rows,
            self.table_bytes / self.unwind_rows.max(1.0)
        )?;
        write!(
            formatter,
            "\n{:.0} frames walked in the kernel, {:.1} helper calls each; {:.0} stacks finished from a snapshot; {:.0} unwind tables built",
            self.frames,
            self.helper_calls / self.frames.max(1.0),
            self.snapshots,
            self.built_tables
        )
    }
}
