//! Gives each sample of a window its labels: what the sample itself carries, what providers know of its process, cgroup,
//! container and pod, then relabelling. A provider that fails leaves its labels absent; no window waits for one longer
//! than a bounded time.

pub mod cgroup_path;
pub mod cgroups;
pub mod command;
mod explain;
pub mod kubernetes;
mod meta;
mod proc_file;
mod processes;
pub mod runtime;

use std::collections::{BTreeMap, HashMap, hash_map};
use std::sync::Arc;

use ipc_proto::symbolized::{NONE, SymbolizedBatch, SymbolizedProcess};
use relabel::{LabelSet, Rule, Verdict};

use crate::profile::{BatchFault, entry};
use cgroups::{Cgroup, Cgroups, Tree};
use explain::Explainer;
use kubernetes::Pods;
use meta::{About, Executable};
use processes::{Identity, Processes, Wanted};
use runtime::Containers;

/// Names and values.
pub type Labels = BTreeMap<String, String>;

/// What the operator says about labels.
#[derive(Debug, Default)]
pub struct Settings {
    /// Value of `node`.
    pub node: String,
    /// On every sample.
    pub external: Vec<(String, String)>,
    /// Whether command lines are read.
    pub command_line: bool,
}

/// Those who know more than the machine's own files.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Where the cgroup2 tree is mounted.
    pub tree: Option<Tree>,
    /// The Kubernetes API's pods.
    pub pods: Option<Arc<Pods>>,
    /// A container runtime's containers.
    pub containers: Option<Arc<Containers>>,
}

/// The labels of some samples of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Series {
    /// What relabelling left: what makes them one series.
    pub labels: Labels,
    /// Where there are no rules: what the local store has besides, namespace, pod, container, systemd unit.
    pub more: Labels,
}

/// A window's labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// All that occur, each once.
    pub series: Vec<Series>,
    /// For each sample its series; `None`: relabelling drops it.
    pub of_sample: Vec<Option<u32>>,
}

/// What happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Failures by provider.
    pub errors: BTreeMap<&'static str, u64>,
    /// Processes, cgroups and pods known now.
    pub known: BTreeMap<&'static str, u64>,
}

/// Labels samples.
#[derive(Debug)]
pub struct Labeller {
    base: Labels,
    system: Vec<(String, String)>,
    /// `None`: nothing is relabelled.
    rules: Option<Vec<Rule>>,
    cgroups: Cgroups,
    processes: Option<Processes>,
    sources: Sources,
    explainer: Explainer,
}

impl Labeller {
    /// Reads below `/proc` and the sources' own places.
    pub fn new(settings: Settings, sources: Sources) -> Self {
        let wanted = Wanted {
            command_line: settings.command_line,
        };
        let processes = Processes::new("/proc", wanted)
            .inspect_err(|error| {
                log::warn!("no labels from /proc: cannot start the thread that reads it: {error}");
            })
            .ok();
        Self {
            base: base(&settings),
            system: meta::system(),
            rules: None,
            cgroups: Cgroups::new(sources.tree.clone()),
            processes,
            sources,
            explainer: Explainer::default(),
        }
    }

    /// These rules decide from the next window on; without any, series have no labels but the base.
    pub fn set_rules(&mut self, rules: Vec<Rule>) {
        self.rules = (!rules.is_empty()).then_some(rules);
    }

    /// Other names for everything: node and external labels.
    pub fn set_base(&mut self, settings: &Settings) {
        self.base = base(settings);
    }

    /// Labels a window; `now`: CLOCK_MONOTONIC nanoseconds.
    ///
    /// # Errors
    /// The batch refers to what is not in it.
    pub fn label(&mut self, batch: &SymbolizedBatch, now: u64) -> Result<Labelled, BatchFault> {
        let identities = self.look_up(batch, now)?;
        let mut window = Window {
            labelled: Labelled::default(),
            numbers: HashMap::new(),
            processes: HashMap::new(),
            threads: HashMap::new(),
        };
        for sample in &batch.samples.0 {
            let process = entry(&batch.processes.0, "process", sample.process)?;
            let identity = entry(&identities, "process", sample.process)?;
            let key = (sample.process, sample.cgroup);
            if let hash_map::Entry::Vacant(vacant) = window.processes.entry(key) {
                vacant.insert(self.process(batch, process, identity, sample.cgroup, now)?);
            }
            // The thread is part of no series unless a rule makes it one.
            let thread = self
                .rules
                .is_some()
                .then_some((sample.tid.0, sample.thread_name));
            let key = (sample.process, sample.cgroup, thread);
            let number = match window.threads.get(&key) {
                Some(known) => *known,
                None => {
                    let thread_name = text(batch, sample.thread_name)?;
                    let of_process = window.processes.get(&(sample.process, sample.cgroup));
                    let series = of_process
                        .and_then(|labels| self.series(labels, sample.tid.0, thread_name));
                    let number = series.map(|series| window.number(series));
                    window.threads.insert(key, number);
                    number
                }
            };
            window.labelled.of_sample.push(number);
        }
        Ok(window.labelled)
    }

    /// Learns the window's cgroups and has its processes read; returns who these are.
    fn look_up(&mut self, batch: &SymbolizedBatch, now: u64) -> Result<Vec<Identity>, BatchFault> {
        for cgroup in &batch.cgroups.0 {
            self.cgroups.learn(cgroup.id, &cgroup.path.text());
        }
        let mut identities = Vec::with_capacity(batch.processes.0.len());
        for process in &batch.processes.0 {
            identities.push(Identity {
                pid: process.pid.0,
                start_time: process.start_time,
                comm: text(batch, process.comm)?,
            });
        }
        if let Some(processes) = &mut self.processes {
            processes.look_up(identities.iter().cloned(), now);
        }
        Ok(identities)
    }

    /// All labels of the window's first sample, as the first rule would see them.
    ///
    /// # Errors
    /// The batch refers to what is not in it, or has no sample.
    pub fn full_set(&mut self, batch: &SymbolizedBatch, now: u64) -> Result<Labels, BatchFault> {
        let identities = self.look_up(batch, now)?;
        let sample = entry(&batch.samples.0, "sample", 0)?;
        let process = entry(&batch.processes.0, "process", sample.process)?;
        let identity = entry(&identities, "process", sample.process)?;
        let rules = self.rules.replace(Vec::new());
        let labels = self.process(batch, process, identity, sample.cgroup, now);
        self.rules = rules;
        let thread_name = text(batch, sample.thread_name)?;
        Ok(labels?.with_thread(sample.tid.0, thread_name).to_labels())
    }

    /// The labels of a process in a cgroup.
    fn process(
        &mut self,
        batch: &SymbolizedBatch,
        process: &SymbolizedProcess,
        identity: &Identity,
        cgroup: u64,
        now: u64,
    ) -> Result<ProcessLabels, BatchFault> {
        let facts = self
            .processes
            .as_ref()
            .and_then(|processes| processes.get(identity));
        let cgroup = self.cgroups.find(cgroup, now);
        let about = About {
            pid: process.pid.0,
            parent: match facts.as_ref().map(|facts| facts.parent) {
                Some(parent) => parent,
                None => process.parent.0,
            },
            executable: executable(batch, process)?,
            runtime: text(batch, process.runtime)?,
            runtime_version: text(batch, process.runtime_version)?,
            cgroups: cgroups_of(
                cgroup.as_deref(),
                facts.as_ref().map(|facts| &facts.cgroups[..]),
            ),
            user: facts.as_ref().and_then(|facts| facts.user),
            command_line: facts.as_ref().and_then(|facts| facts.command_line.clone()),
        };
        let mut base = self.base.clone();
        base.entry("comm".to_owned())
            .or_insert_with(|| identity.comm.clone());
        let found = meta::Found::of(&about, &self.sources);
        self.explainer
            .explain(identity, &about, facts.is_some(), &found, &self.sources);
        let (mut full, mut more) = (Vec::new(), Labels::new());
        if self.rules.is_none() {
            more = found.short(&about);
            more.retain(|name, _| !base.contains_key(name));
        } else {
            full.extend(
                base.iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
            full.extend(self.system.iter().cloned());
            about.push_labels(&mut full);
            found.push_labels(&about, &mut full);
        }
        Ok(ProcessLabels { base, full, more })
    }

    /// The series of a thread; `None`: its samples are dropped.
    fn series(&self, labels: &ProcessLabels, tid: u32, thread_name: String) -> Option<Series> {
        let Some(rules) = &self.rules else {
            return Some(Series {
                labels: labels.base.clone(),
                more: labels.more.clone(),
            });
        };
        let mut set = labels.with_thread(tid, thread_name);
        match relabel::apply(rules, &mut set) {
            Verdict::Keep => Some(Series {
                labels: set.into_series(),
                more: Labels::new(),
            }),
            Verdict::Drop => None,
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        if let Some(processes) = &self.processes {
            counts.errors.insert("process", processes.late);
            counts.known.insert("process", processes.len() as u64);
        }
        counts.known.insert("cgroup", self.cgroups.len() as u64);
        if let Some(pods) = &self.sources.pods {
            counts.errors.insert("kubernetes", pods.errors());
            counts.known.insert("kubernetes", pods.len() as u64);
        }
        if let Some(containers) = &self.sources.containers {
            counts
                .errors
                .insert("container_runtime", containers.errors());
            counts
                .known
                .insert("container_runtime", containers.len() as u64);
        }
        counts
    }
}

/// A process's labels before relabelling.
struct ProcessLabels {
    base: Labels,
    /// All of them; empty where there are no rules.
    full: Vec<(String, String)>,
    more: Labels,
}

impl ProcessLabels {
    /// The whole label set of one of its threads.
    fn with_thread(&self, tid: u32, name: String) -> LabelSet {
        let thread = [
            ("__meta_thread_id".to_owned(), tid.to_string()),
            ("__meta_thread_comm".to_owned(), name),
        ];
        LabelSet::new(self.full.iter().cloned().chain(thread))
    }
}

/// Process, cgroup, and the thread (with its name's index) where a rule may look at it.
type ThreadKey = (u32, u64, Option<(u32, u32)>);

struct Window {
    labelled: Labelled,
    numbers: HashMap<Series, u32>,
    processes: HashMap<(u32, u64), ProcessLabels>,
    threads: HashMap<ThreadKey, Option<u32>>,
}

impl Window {
    fn number(&mut self, series: Series) -> u32 {
        if let Some(number) = self.numbers.get(&series) {
            return *number;
        }
        let number = self.labelled.series.len() as u32;
        self.labelled.series.push(series.clone());
        self.numbers.insert(series, number);
        number
    }
}

fn base(settings: &Settings) -> Labels {
    let node = ("node".to_owned(), settings.node.clone());
    // An external label may take the place of `node`.
    std::iter::once(node)
        .chain(settings.external.iter().cloned())
        .collect()
}

fn text(batch: &SymbolizedBatch, index: u32) -> Result<String, BatchFault> {
    Ok(entry(&batch.strings.0, "string", index)?
        .text()
        .into_owned())
}

fn executable(
    batch: &SymbolizedBatch,
    process: &SymbolizedProcess,
) -> Result<Executable, BatchFault> {
    let mut found = Executable::default();
    if process.executable != NONE {
        let mapping = entry(&batch.mappings.0, "mapping", process.executable)?;
        found.path = text(batch, mapping.file)?;
        found.build_id = meta::hex(&mapping.build_id.0);
    }
    if let Some(index) = process.facts.checked_sub(1) {
        let facts = entry(&batch.executables.0, "executable", index)?;
        found.file_id = meta::hex(&facts.file_id);
        found.compiler = text(batch, facts.compiler)?;
        found.is_static = Some(facts.is_static);
        found.is_stripped = Some(facts.is_stripped);
    }
    Ok(found)
}

/// The cgroups to judge a process by, most telling first: the one taken with the sample, then what `/proc` says, which
/// knows cgroup1 trees too.
fn cgroups_of(sampled: Option<&Cgroup>, read: Option<&[Cgroup]>) -> Vec<Cgroup> {
    let sampled = sampled.filter(|cgroup| cgroup.path != "/");
    let mut all: Vec<Cgroup> = sampled.into_iter().cloned().collect();
    for cgroup in read.unwrap_or_default() {
        if !all.contains(cgroup) {
            all.push(cgroup.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests;
