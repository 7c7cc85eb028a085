//! What the BPF programs cost, where the kernel keeps count (sysctl kernel.bpf_stats_enabled=1): read from their entries in
//! `/proc/self/fdinfo`, which are opened before the lockdown.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use ipc_endpoint::statistics::counter;
use ipc_proto::statistics::Metric;

/// The programs' entries.
#[derive(Debug, Default)]
pub(crate) struct RunTime {
    entries: Vec<(&'static str, File)>,
}

impl RunTime {
    /// Also looks at this program from now on.
    pub(crate) fn add(&mut self, name: &'static str, program: BorrowedFd<'_>) {
        let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
        if let Ok(entry) = File::open(path) {
            self.entries.push((name, entry));
        }
    }

    /// Time and runs of each program; none where the kernel does not count.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        for (name, entry) in &self.entries {
            let mut text = [0; 1024];
            let length = entry.read_at(&mut text, 0).unwrap_or(0);
            let Some((nanos, runs)) = parse(text.get(..length).unwrap_or_default()) else {
                continue;
            };
            let labels = [("program", *name)];
            metrics.push(counter(
                "leadsman_bpf_run_seconds_total",
                "CPU time of the BPF programs, where kernel.bpf_stats_enabled is 1.",
                &labels,
                nanos as f64 / 1e9,
            ));
            metrics.push(counter(
                "leadsman_bpf_counted_runs_total",
                "Runs of the BPF programs in that time.",
                &labels,
                runs as f64,
            ));
        }
        metrics
    }
}

/// `run_time_ns` and `run_cnt` (bpf_prog_show_fdinfo in kernel/bpf/syscall.c); nothing when there were no counted runs.
fn parse(text: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(text).ok()?;
    let field = |name| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    let runs = field("run_cnt:")?;
    (runs > 0).then_some((field("run_time_ns:")?, runs))
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_counted_runs_are_told() {
        let text = b"pos:\t0\nprog_type:\t7\nrun_time_ns:\t1500\nrun_cnt:\t3\n";
        assert_eq!(super::parse(text), Some((1500, 3)));
        assert_eq!(super::parse(b"run_time_ns:\t0\nrun_cnt:\t0\n"), None);
        assert_eq!(super::parse(b"pos:\t0\n"), None);
    }
}
