//! The process table: who is running which image, learned from the kernel's records and from `/proc/PID/maps` of
//! processes that are older than the sampler.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use ipc_proto::ids::ImageId;

use crate::executables::Executables;
use crate::image::{Change, Image, MappingList};
use crate::raw_sample::RawSample;
use crate::sideband::{NewMapping, SidebandEvent, SidebandKind};

/// Processes known at once; further ones are known by their samples only.
const MAX_PROCESSES: usize = 1 << 16;

/// How much is known of what a process has mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knowledge {
    /// Everything since its exec or fork.
    Whole,
    /// It is older than the sampler, or records were lost.
    Partial,
    /// Its maps file was asked for at that time, nanoseconds.
    Asked(u64),
    /// Its maps file was not to be had.
    Unavailable,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) image: Image,
    pub(crate) knowledge: Knowledge,
    /// Whether the kernel side has its mappings.
    pub(crate) installed: bool,
    /// Whether they changed since.
    pub(crate) changed: bool,
    /// When its first thread ended.
    pub(crate) exited: Option<u64>,
    /// When another thread of it was seen after that, last.
    pub(crate) outlived: Option<u64>,
    /// Whether samples of it are wanted.
    pub(crate) selected: bool,
    /// Samples that wait for its maps file.
    pub(crate) waiting: Vec<RawSample>,
    /// Where code was replaced by other code, which may be again at any time.
    unsettled: Vec<Unsettled>,
}

/// Addresses whose code was replaced; the kernel side has no mapping there, so that stacks with frames in it come as
/// snapshots, and are finished by the mapping of their moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unsettled {
    start: u64,
    end: u64,
    /// When it counts as settled, nanoseconds.
    until: u64,
}

/// How long replaced code must stay to be believed, nanoseconds.
const SETTLING: u64 = 10_000_000_000;
/// Replaced ranges remembered of a process; more are believed at once.
const MAX_UNSETTLED: usize = 64;

/// Which processes are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Empty: all.
    pub(crate) pids: HashSet<u32>,
    /// Whether children born since are wanted too.
    pub(crate) children: bool,
}

/// All processes.
#[derive(Debug)]
pub(crate) struct Processes {
    all: HashMap<u32, Process>,
    selection: Selection,
    last_image: u64,
    /// Images replaced or ended whose number the current window may name.
    retired: Vec<Image>,
    /// Names of processes older than the sampler: (name, parent).
    older: HashMap<u32, (Vec<u8>, u32)>,
}

impl Processes {
    /// An empty table; `older` are the names and parents of the processes that run already.
    pub(crate) fn new(selection: Selection, older: HashMap<u32, (Vec<u8>, u32)>) -> Self {
        Self {
            all: HashMap::new(),
            selection,
            last_image: 0,
            retired: Vec::new(),
            older,
        }
    }

    fn next_image(&mut self) -> ImageId {
        self.last_image += 1;
        ImageId(self.last_image)
    }

    /// One process.
    pub(crate) fn get_mut(&mut self, pid: u32) -> Option<&mut Process> {
        self.all.get_mut(&pid)
    }

    /// The process, made if it is new.
    pub(crate) fn entry(&mut self, pid: u32) -> &mut Process {
        let Self {
            all,
            selection,
            last_image,
            older,
            ..
        } = self;
        all.entry(pid).or_insert_with(|| {
            *last_image += 1;
            let (comm, parent) = older.remove(&pid).unwrap_or_default();
            let image = Image::new(ImageId(*last_image), pid, comm, parent);
            let selected = selection.pids.is_empty() || selection.pids.contains(&pid);
            Process::new(image, Knowledge::Partial, selected)
        })
    }

    /// Learns from a record; returns processes that the kernel side must forget.
    pub(crate) fn learn(
        &mut self,
        event: SidebandEvent,
        executables: &mut Executables,
    ) -> Option<u32> {
        let SidebandEvent {
            time,
            pid,
            tid,
            kind,
        } = event;
        match kind {
            SidebandKind::Forked { parent } if parent != pid => return self.fork(pid, parent),
            SidebandKind::Forked { .. } => {}
            SidebandKind::Named { comm, exec: true } => return self.exec(pid, comm),
            SidebandKind::Named { comm, exec: false } => {
                if pid == tid {
                    if let Some(process) = self.all.get_mut(&pid) {
                        process.image.comm = comm;
                    } else if let Some(older) = self.older.get_mut(&pid) {
                        older.0 = comm;
                    }
                }
            }
            SidebandKind::Mapped(mapping) => {
                if self.all.contains_key(&pid) || self.all.len() < MAX_PROCESSES {
                    let process = self.entry(pid);
                    process.map(&mapping, time, executables);
                    if process.image.mappings.is_worn() {
                        self.renew(pid);
                    }
                }
            }
            SidebandKind::Exited => {
                if pid == tid {
                    self.older.remove(&pid);
                    if let Some(process) = self.all.get_mut(&pid) {
                        process.exited = Some(time);
                    }
                }
            }
        }
        None
    }

    fn fork(&mut self, pid: u32, parent: u32) -> Option<u32> {
        let forgotten = self.remove(pid);
        self.older.remove(&pid);
        if self.all.len() >= MAX_PROCESSES {
            return forgotten;
        }
        let id = self.next_image();
        let old = self.all.get(&parent);
        let knowledge = match old.map(|old| old.knowledge) {
            Some(Knowledge::Whole) => Knowledge::Whole,
            _ => Knowledge::Partial,
        };
        let older = self.older.get(&parent).map(|(comm, _)| comm);
        let comm = old.map(|old| &old.image.comm).or(older).cloned();
        let mappings = old.map(|old| Rc::clone(&old.image.mappings));
        let selected = match old {
            Some(old) => old.selected,
            None => self.selection.pids.contains(&parent),
        };
        let selected = self.selection.pids.is_empty()
            || self.selection.pids.contains(&pid)
            || (self.selection.children && selected);
        let image = Image {
            mappings: mappings.unwrap_or_default(),
            ..Image::new(id, pid, comm.unwrap_or_default(), parent)
        };
        self.all
            .insert(pid, Process::new(image, knowledge, selected));
        forgotten
    }

    fn exec(&mut self, pid: u32, comm: Vec<u8>) -> Option<u32> {
        let id = self.next_image();
        let process = self.entry(pid);
        let was_installed = std::mem::take(&mut process.installed);
        let new = Image {
            start_time: process.image.start_time,
            ..Image::new(id, pid, comm, process.image.parent)
        };
        process.knowledge = Knowledge::Whole;
        process.changed = false;
        process.unsettled.clear();
        (process.exited, process.outlived) = (None, None);
        self.begin(new);
        was_installed.then_some(pid)
    }

    /// Goes on with a new image that has the mappings in place only.
    fn renew(&mut self, pid: u32) {
        let id = self.next_image();
        let image = &self.entry(pid).image;
        let new = Image {
            start_time: image.start_time,
            exec_id: image.exec_id,
            mappings: Rc::new(image.mappings.in_place()),
            ..Image::new(id, pid, image.comm.clone(), image.parent)
        };
        self.begin(new);
    }

    fn begin(&mut self, image: Image) {
        let process = self.entry(image.pid);
        let old = std::mem::replace(&mut process.image, image);
        self.retire(old);
    }

    fn retire(&mut self, image: Image) {
        if image.sampled || image.announced.is_some() {
            self.retired.push(image);
        }
    }

    fn remove(&mut self, pid: u32) -> Option<u32> {
        let process = self.all.remove(&pid)?;
        self.retire(process.image);
        process.installed.then_some(pid)
    }

    /// Takes what a maps file said as the whole truth.
    pub(crate) fn learn_maps(
        &mut self,
        pid: u32,
        mappings: &[NewMapping],
        executables: &mut Executables,
    ) {
        if let Some(process) = self.all.get_mut(&pid) {
            for mapping in mappings {
                process.changed |= process.image.map(mapping, executables) != Change::None;
            }
            process.knowledge = Knowledge::Whole;
        }
    }

    /// Mappings of a process's parent, should its own be unknown for ever.
    pub(crate) fn inherit(&mut self, pid: u32) -> bool {
        let parent = self.all.get(&pid).map(|process| process.image.parent);
        let parent = parent.and_then(|parent| self.all.get(&parent));
        let Some(inherited) = parent.filter(|parent| parent.knowledge == Knowledge::Whole) else {
            return false;
        };
        let mappings: Rc<MappingList> = Rc::clone(&inherited.image.mappings);
        let Some(process) = self.all.get_mut(&pid) else {
            return false;
        };
        if process.image.mappings.all.is_empty() {
            process.image.mappings = mappings;
            process.knowledge = Knowledge::Whole;
            process.changed = true;
            return true;
        }
        false
    }

    /// After lost records nothing is sure any more.
    pub(crate) fn distrust(&mut self) {
        for process in self.all.values_mut() {
            if process.knowledge == Knowledge::Whole {
                process.knowledge = Knowledge::Partial;
            }
        }
    }

    /// Forgets processes that ended before `before`; returns those the kernel side must forget.
    pub(crate) fn reap(&mut self, before: u64) -> Vec<u32> {
        let ended = self
            .all
            .iter()
            .filter(|(_, process)| process.ended().is_some_and(|ended| ended < before));
        let ended: Vec<u32> = ended.map(|(pid, _)| *pid).collect();
        ended
            .into_iter()
            .filter_map(|pid| self.remove(pid))
            .collect()
    }

    /// All processes.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&u32, &mut Process)> {
        self.all.iter_mut()
    }

    /// Every image that a message may name: of live processes, and retired ones of this window.
    pub(crate) fn images_mut(&mut self) -> impl Iterator<Item = &mut Image> {
        self.all
            .values_mut()
            .map(|process| &mut process.image)
            .chain(&mut self.retired)
    }

    /// Forgets the retired images at a window's end; returns those the symbolizer knows.
    pub(crate) fn take_retired(&mut self) -> Vec<ImageId> {
        let retired = std::mem::take(&mut self.retired);
        retired
            .into_iter()
            .filter(|image| image.announced.is_some())
            .map(|image| image.id)
            .collect()
    }

    /// Number of processes known.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

/// How long a process without its first thread is remembered after its last sample: that its others ended is not told.
const LEADERLESS_LIFE: u64 = 600_000_000_000;

impl Process {
    /// The kernel reported a mapping at `time`.
    fn map(&mut self, mapping: &NewMapping, time: u64, executables: &mut Executables) {
        let change = self.image.map(mapping, executables);
        self.changed |= change != Change::None;
        if let Change::Replaced { start, end } = change {
            self.unsettled
                .retain(|range| range.end <= start || end <= range.start);
            if self.unsettled.len() < MAX_UNSETTLED {
                let until = time.saturating_add(SETTLING);
                self.unsettled.push(Unsettled { start, end, until });
            }
        }
    }

    /// Whether the code at an address took another's place a short while ago.
    pub(crate) fn is_unsettled(&self, address: u64) -> bool {
        let mut ranges = self.unsettled.iter();
        ranges.any(|range| (range.start..range.end).contains(&address))
    }

    /// Believes what was not replaced again up to `now`.
    pub(crate) fn settle(&mut self, now: u64) {
        let before = self.unsettled.len();
        self.unsettled.retain(|range| now < range.until);
        self.changed |= self.unsettled.len() < before;
    }

    /// A thread of it ran at that time.
    pub(crate) fn saw(&mut self, tid: u32, time: u64) {
        if tid != self.image.pid && self.exited.is_some_and(|exited| exited < time) {
            self.outlived = Some(time);
        }
    }

    /// When it ended; `None` while it runs. Threads may outlive their process's first one.
    pub(crate) fn ended(&self) -> Option<u64> {
        match self.outlived {
            Some(time) => Some(time.saturating_add(LEADERLESS_LIFE)),
            None => self.exited,
        }
    }

    /// Whether it may be sampled again.
    pub(crate) fn may_run(&self) -> bool {
        self.exited.is_none() || self.outlived.is_some()
    }

    fn new(image: Image, knowledge: Knowledge, selected: bool) -> Self {
        Self {
            image,
            knowledge,
            installed: false,
            changed: false,
            exited: None,
            outlived: None,
            selected,
            waiting: Vec::new(),
            unsettled: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(time: u64, build_id: u8) -> SidebandEvent {
        let mapping = NewMapping {
            start: 0x1000,
            end: 0x2000,
            build_id: vec![build_id; 20],
            path: b"/lib/plugin.so".to_vec(),
            ..NewMapping::default()
        };
        SidebandEvent {
            time,
            pid: 7,
            tid: 7,
            kind: SidebandKind::Mapped(mapping),
        }
    }

    #[test]
    fn code_that_took_another_ones_place_must_stay_to_be_believed() {
        let mut processes = Processes::new(Selection::default(), HashMap::new());
        let mut executables = Executables::default();
        let mut map = |processes: &mut Processes, time, build_id| {
            processes.learn(mapped(time, build_id), &mut executables);
            processes.entry(7).is_unsettled(0x1fff)
        };
        assert!(!map(&mut processes, 1, 1), "it took nobody's place");
        assert!(map(&mut processes, 2, 2));
        assert!(map(&mut processes, 3, 1), "and again");
        let process = processes.entry(7);
        assert!(!process.is_unsettled(0x2000));
        process.changed = false;
        process.settle(2 + SETTLING);
        assert!(process.is_unsettled(0x1000) && !process.changed);
        process.settle(3 + SETTLING);
        assert!(!process.is_unsettled(0x1000) && process.changed);
    }

    #[test]
    fn libraries_opened_and_closed_for_ever_leave_no_trace() {
        let mut processes = Processes::new(Selection::default(), HashMap::new());
        let mut executables = Executables::default();
        let mut longest = 0;
        for time in 0..20_000 {
            processes.learn(mapped(time, (time % 2) as u8), &mut executables);
            longest = longest.max(processes.entry(7).image.mappings.all.len());
        }
        let newest = executables.identify(&match mapped(0, 1).kind {
            SidebandKind::Mapped(mapping) => mapping,
            other => panic!("{other:?}"),
        });
        let image = &processes.entry(7).image;
        let found = image
            .mappings
            .find(0x1800)
            .map(|(_, found)| found.executable);
        assert_eq!(found, Some(newest));
        assert!(longest < 5000 && image.id != ImageId(1), "{longest}");
        assert!(processes.retired.is_empty(), "nobody heard of them");
    }
}
