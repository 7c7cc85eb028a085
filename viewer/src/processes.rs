//! Who used the CPU in some windows: samples by program name and process. Never looks at a live process.

use std::collections::HashMap;
use std::rc::Rc;

use serde::Serialize;

use crate::profile::{FrameKind, Profile};

/// Program names listed; the rest is one number.
const MAX_LISTED: usize = 200;
/// Processes listed of one name.
const MAX_PIDS: usize = 50;

/// Adds up samples by process.
#[derive(Debug, Default)]
pub(crate) struct ProcessTable {
    by_name: HashMap<Rc<str>, HashMap<Rc<str>, Count>>,
    total: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    samples: u64,
    kernel: u64,
}

/// The processes as the page takes them.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct ProcessList {
    /// All samples.
    pub(crate) total: u64,
    /// By falling weight.
    pub(crate) programs: Vec<Program>,
    /// Programs not listed.
    pub(crate) hidden_programs: usize,
    /// Their samples.
    pub(crate) hidden_samples: u64,
}

/// All processes of one name.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Program {
    /// The processes' name.
    pub(crate) comm: Rc<str>,
    /// Samples of all of them.
    pub(crate) samples: u64,
    /// Samples that hit kernel code.
    pub(crate) kernel: u64,
    /// Number of processes.
    pub(crate) processes: usize,
    /// Process id and samples of the heaviest ones.
    pub(crate) pids: Vec<(Rc<str>, u64)>,
}

impl ProcessTable {
    /// Adds a window's samples.
    pub(crate) fn add(&mut self, profile: &Profile) {
        let unknown: Rc<str> = "?".into();
        for sample in profile.samples() {
            let label = |name| Rc::clone(sample.labels.get(name).unwrap_or(&unknown));
            let in_kernel = sample
                .stack
                .last()
                .and_then(|leaf| profile.frame(*leaf))
                .is_some_and(|leaf| leaf.kind == FrameKind::Kernel);
            let count = self
                .by_name
                .entry(label("comm"))
                .or_default()
                .entry(label("pid"))
                .or_default();
            count.samples += sample.count;
            count.kernel += if in_kernel { sample.count } else { 0 };
            self.total += sample.count;
        }
    }

    /// The list.
    pub(crate) fn finish(self) -> ProcessList {
        let mut programs: Vec<Program> = self
            .by_name
            .into_iter()
            .map(|(comm, pids)| Program::new(comm, pids))
            .collect();
        programs.sort_by(|a, b| b.samples.cmp(&a.samples).then_with(|| a.comm.cmp(&b.comm)));
        let hidden = programs.split_off(programs.len().min(MAX_LISTED));
        ProcessList {
            total: self.total,
            programs,
            hidden_programs: hidden.len(),
            hidden_samples: hidden.iter().map(|program| program.samples).sum(),
        }
    }
}

impl Program {
    fn new(comm: Rc<str>, pids: HashMap<Rc<str>, Count>) -> Self {
        let processes = pids.len();
        let samples = pids.values().map(|count| count.samples).sum();
        let kernel = pids.values().map(|count| count.kernel).sum();
        let mut pids: Vec<(Rc<str>, u64)> = pids
            .into_iter()
            .map(|(pid, count)| (pid, count.samples))
            .collect();
        pids.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        pids.truncate(MAX_PIDS);
        Self {
            comm,
            samples,
            kernel,
            processes,
            pids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::profile;

    #[test]
    fn samples_are_added_up_by_name_and_process() {
        let mut table = ProcessTable::default();
        table.add(&profile(&[
            (1, "cc1", "cc1", &["main"], 3),
            (2, "cc1", "cc1", &["main", "k:read"], 4),
            (3, "db", "db", &["main"], 9),
        ]));
        table.add(&profile(&[(1, "cc1", "x", &["main"], 1)]));
        let list = table.finish();
        assert_eq!(list.total, 17);
        let db = &list.programs[0];
        assert_eq!((db.comm.as_ref(), db.samples, db.processes), ("db", 9, 1));
        let cc1 = &list.programs[1];
        assert_eq!((cc1.samples, cc1.kernel, cc1.processes), (8, 4, 2));
        assert_eq!(cc1.pids, [("1".into(), 4), ("2".into(), 4)]);
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let names: Vec<String> = (0..MAX_LISTED + 5)
            .map(|index| format!("p{index}"))
            .collect();
        let samples: Vec<(u32, &str, &str, &[&str], u64)> = names
            .iter()
            .map(|name| (1, name.as_str(), "t", &["main"] as &[&str], 2))
            .collect();
        let mut table = ProcessTable::default();
        table.add(&profile(&samples));
        let list = table.finish();
        assert_eq!(list.programs.len(), MAX_LISTED);
        assert_eq!((list.hidden_programs, list.hidden_samples), (5, 10));
    }
}
