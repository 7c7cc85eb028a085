//! The sampler's decisions: records, samples and messages in, actions out. No sockets, files, maps or clocks here.

use std::collections::{HashMap, HashSet};

use ipc_proto::codec::{Bytes, List};
use ipc_proto::ids::{ExecutableId, ImageId, Pid, Tid, WindowId};
use ipc_proto::opener::{OpenMaps, OpenerRequest};
use ipc_proto::sample as wire;
use ipc_proto::sample::{Backing, SamplerMessage};
use leadsman_ebpf::stop::StopReason;

use crate::account::Account;
use crate::announce::{announce_image, ask_table};
use crate::cgroups::Cgroups;
use crate::executables::{Executables, TableState};
use crate::kernel_process::KernelProcess;
use crate::processes::{Knowledge, Processes, Selection};
use crate::raw_sample::{RawSample, RawSnapshot};
use crate::sideband::{NewMapping, SidebandEvent};
use crate::window::{StackKey, Window};

/// How long samples wait for their process's maps file.
const MAPS_PATIENCE: u64 = 1_000_000_000;
/// Samples that may wait, over all processes.
const MAX_WAITING: usize = 1024;
/// How long a process is remembered after its end: records of other CPUs may still name it.
const AFTERLIFE: u64 = 2_000_000_000;
/// Executables remembered although no process maps them.
const KEPT_EXECUTABLES: usize = 16_384;

/// What the event loop is to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Tell the kernel side a process's mappings.
    Install(Box<KernelProcess>),
    /// Make the kernel side forget a process.
    Uninstall { tgid: u32 },
    /// Bring the rows around that file offset into the kernel.
    PageIn {
        table: ExecutableId,
        file_offset: u64,
    },
    /// Ask the opener.
    Ask(OpenerRequest),
    /// Tell the symbolizer; `samples` of them travel with it.
    Send {
        message: SamplerMessage,
        samples: u64,
    },
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    processes: Processes,
    executables: Executables,
    cgroups: Cgroups,
    window: Window,
    window_id: u64,
    window_start: u64,
    /// Window length, nanoseconds; 0: one window until the end.
    window_length: u64,
    /// Samples a second and CPU in this window.
    frequency: u32,
    clock_offset: i64,
    /// Samples sent and dropped in the current window.
    pub(crate) account: Account,
    /// Whether `uses` is filled: only where room for tables is scarce.
    pub(crate) follows_uses: bool,
    /// Where frames lay, since it was emptied last: executables and file offsets.
    pub(crate) uses: Vec<(ExecutableId, u64)>,
    waiting: usize,
    maps_requests: HashMap<u64, u32>,
    last_request: u64,
    actions: Vec<Action>,
}

impl Engine {
    /// Starts the first window at `now` (CLOCK_MONOTONIC, nanoseconds).
    pub(crate) fn new(
        selection: Selection,
        older: HashMap<u32, (Vec<u8>, u32)>,
        cgroups: Cgroups,
        window_length: u64,
        clock_offset: i64,
        now: u64,
    ) -> Self {
        Self {
            processes: Processes::new(selection, older),
            executables: Executables::default(),
            cgroups,
            window: Window::default(),
            window_id: 0,
            window_start: now,
            window_length,
            frequency: 0,
            clock_offset,
            account: Account::default(),
            follows_uses: false,
            uses: Vec::new(),
            waiting: 0,
            maps_requests: HashMap::new(),
            last_request: 0,
            actions: Vec::new(),
        }
    }

    /// Samples come at that rate from now on. To be told when no sample of another rate is under way, between two windows.
    pub(crate) fn set_frequency(&mut self, frequency: u32) {
        self.frequency = frequency;
    }

    /// The rate at which samples come.
    pub(crate) fn frequency(&self) -> u32 {
        self.frequency
    }

    /// What there is to do since the last call.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// A process did something.
    pub(crate) fn on_sideband(&mut self, event: SidebandEvent) {
        let pid = event.pid;
        if let Some(process) = self.processes.get_mut(pid)
            && matches!(
                event.kind,
                crate::sideband::SidebandKind::Named { exec: true, .. }
            )
        {
            // The samples that wait belong to the image that ends here.
            let waiting = std::mem::take(&mut process.waiting);
            self.finish_waiting(pid, waiting);
        }
        if let Some(tgid) = self.processes.learn(event, &mut self.executables) {
            self.actions.push(Action::Uninstall { tgid });
        }
    }

    /// A cgroup was made.
    pub(crate) fn on_cgroup(&mut self, id: u64, path: Vec<u8>) {
        self.cgroups.learn(id, path);
    }

    /// The kernel had no room for so many records.
    pub(crate) fn on_records_lost(&mut self, records: u64) {
        self.account.records_lost += records;
        self.processes.distrust();
    }

    /// A sample arrived.
    pub(crate) fn on_sample(&mut self, sample: RawSample) {
        let process = self.processes.entry(sample.tgid);
        if !process.selected {
            self.account.not_selected += 1;
            return;
        }
        self.account.ring_produced += 1;
        process.saw(sample.tid, sample.time);
        self.cgroups.note(sample.cgroup);
        process.image.start_time = sample.start_time;
        process.image.exec_id = sample.exec_id;
        if process.image.comm.is_empty() && sample.tid == sample.tgid {
            process.image.comm.clone_from(&sample.comm);
        }
        if sample.snapshot.is_none() && sample.user.is_empty() {
            // A kernel thread, or a walk that failed before its first frame: no mapping is needed.
            return self.count(&sample);
        }
        match process.knowledge {
            Knowledge::Whole | Knowledge::Unavailable => self.place(sample),
            Knowledge::Partial | Knowledge::Asked(_) => self.wait_for_maps(sample),
        }
    }

    fn wait_for_maps(&mut self, sample: RawSample) {
        let pid = sample.tgid;
        let process = self.processes.entry(pid);
        if process.knowledge == Knowledge::Partial {
            process.knowledge = Knowledge::Asked(sample.time);
            self.last_request += 1;
            let open = OpenMaps {
                request: self.last_request,
                pid: Pid(pid),
                start_time: sample.start_time,
            };
            self.maps_requests.insert(self.last_request, pid);
            self.actions
                .push(Action::Ask(OpenerRequest::OpenMaps(open)));
        }
        if self.waiting < MAX_WAITING {
            self.waiting += 1;
            process.waiting.push(sample);
        } else {
            self.count_as(&sample, StopReason::MappingsUnknown);
        }
    }

    /// The opener answered a request for a maps file; `None`: there is none to be had.
    pub(crate) fn on_maps(&mut self, request: u64, mappings: Option<&[NewMapping]>) {
        let Some(pid) = self.maps_requests.remove(&request) else {
            return;
        };
        match mappings {
            Some(mappings) => self
                .processes
                .learn_maps(pid, mappings, &mut self.executables),
            None => self.give_up_maps(pid),
        }
        self.resume(pid);
    }

    fn give_up_maps(&mut self, pid: u32) {
        if !self.processes.inherit(pid)
            && let Some(process) = self.processes.get_mut(pid)
            && process.knowledge != Knowledge::Whole
        {
            process.knowledge = Knowledge::Unavailable;
        }
    }

    fn resume(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(pid) {
            let waiting = std::mem::take(&mut process.waiting);
            self.waiting = self.waiting.saturating_sub(waiting.len());
            for sample in waiting {
                self.place(sample);
            }
        }
    }

    fn finish_waiting(&mut self, pid: u32, waiting: Vec<RawSample>) {
        self.waiting = self.waiting.saturating_sub(waiting.len());
        if !waiting.is_empty() {
            self.give_up_maps(pid);
        }
        for sample in waiting {
            self.place(sample);
        }
    }

    /// Counts a whole sample, or sends an unfinished one on; the process's mappings are known as well as they will be.
    fn place(&mut self, mut sample: RawSample) {
        let tgid = sample.tgid;
        let Some(snapshot) = sample.snapshot.take() else {
            return self.count(&sample);
        };
        let process = self.processes.entry(tgid);
        if process.knowledge == Knowledge::Unavailable && process.image.mappings.all.is_empty() {
            return self.count_as(&sample, StopReason::MappingsUnknown);
        }
        if !process.installed && process.may_run() {
            process.changed = true;
        }
        process.image.sampled = true;
        let image = process.image.id;
        self.announce(tgid);
        if sample.stop == StopReason::TableMissing {
            self.on_rows_missing(tgid, sample.missing);
        }
        let message = SamplerMessage::Snapshot(self.snapshot_message(image, sample, snapshot));
        self.send_samples(message, 1);
    }

    /// A walk of the process found no rows there.
    fn on_rows_missing(&mut self, pid: u32, (table, file_offset): (ExecutableId, u64)) {
        let state = self.executables.get_mut(table).map(|found| found.table);
        match state {
            // The vDSO's table comes unasked.
            Some(TableState::Installed) | None => {
                self.actions.push(Action::PageIn { table, file_offset });
            }
            Some(TableState::Unknown) => {
                if let Some(process) = self.processes.get_mut(pid) {
                    ask_table(
                        &process.image,
                        table,
                        &mut self.executables,
                        self.window_start,
                        &mut self.actions,
                    );
                }
            }
            _ => {}
        }
    }

    fn snapshot_message(
        &self,
        image: ImageId,
        sample: RawSample,
        snapshot: RawSnapshot,
    ) -> wire::Snapshot {
        wire::Snapshot {
            window: WindowId(self.window_id),
            image,
            tid: Tid(sample.tid),
            thread_name: Bytes::cut(&sample.comm),
            cgroup: sample.cgroup,
            stop: sample.stop as u8,
            kernel: List(sample.kernel),
            registers: List(snapshot.registers),
            pc_is_exact: snapshot.pc_is_exact,
            stack: Bytes(snapshot.stack),
            further_start: snapshot.further_start,
            further: Bytes(snapshot.further),
        }
    }

    fn count(&mut self, sample: &RawSample) {
        self.count_as(sample, sample.stop);
    }

    fn count_as(&mut self, sample: &RawSample, stop: StopReason) {
        let process = self.processes.entry(sample.tgid);
        process.image.sampled = true;
        let mut stop = stop;
        let mut user = Vec::with_capacity(sample.user.len());
        for &address in &sample.user {
            let Some((index, mapping)) = process.image.mappings.find(address) else {
                // The kernel side knew an older layout of this process.
                stop = StopReason::NoMapping;
                break;
            };
            let has_table = [Backing::File as u8, Backing::Vdso as u8].contains(&mapping.backing);
            if self.follows_uses && has_table {
                let file_offset = (address - mapping.start).wrapping_add(mapping.file_offset);
                self.uses.push((mapping.executable, file_offset));
            }
            user.push((index, address));
            if process.is_unsettled(address) {
                // It was walked on from there by what stood there before: the kernel side has nothing there now.
                stop = StopReason::NoMapping;
                break;
            }
        }
        let key = StackKey {
            image: process.image.id,
            tid: sample.tid,
            thread_name: sample.comm.clone(),
            cgroup: sample.cgroup,
            stop: stop as u8,
            kernel: sample.kernel.clone(),
            user,
        };
        if self.window.count(key) {
            self.account.ring_delivered += 1;
        } else {
            self.account.drop_sample("window_full", 1);
        }
    }

    fn send_samples(&mut self, message: SamplerMessage, samples: u64) {
        self.account.ring_delivered += samples;
        self.actions.push(Action::Send { message, samples });
    }

    /// Tells the others what they must know before a message may name the image of `pid`'s process.
    fn announce(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(pid) {
            announce_image(
                &mut process.image,
                &mut self.executables,
                self.window_start,
                &mut self.actions,
            );
        }
    }

    /// The kernel side has that table now.
    pub(crate) fn on_table_installed(&mut self, executable: ExecutableId, build_id: &[u8]) {
        self.executables.learn_build_id(executable, build_id);
        self.set_table(executable, TableState::Installed);
    }

    /// There is no table: the executable's code is walked by frame pointer.
    pub(crate) fn on_no_table(&mut self, executable: ExecutableId, retry: bool) {
        self.set_table(executable, TableState::Absent { retry });
    }

    fn set_table(&mut self, id: ExecutableId, state: TableState) {
        let Some(executable) = self.executables.get_mut(id) else {
            return;
        };
        let had_none = matches!(executable.table, TableState::Absent { .. });
        executable.table = state;
        let has_none = matches!(executable.table, TableState::Absent { .. });
        if had_none != has_none {
            for (_, process) in self.processes.iter_mut() {
                if process.installed
                    && process
                        .image
                        .mappings
                        .live()
                        .any(|mapping| mapping.executable == id)
                {
                    process.changed = true;
                }
            }
        }
    }

    /// The kernel side gave those tables up: whoever walks there again asks for them.
    pub(crate) fn on_tables_given_up(&mut self, given_up: &[ExecutableId]) {
        for id in given_up {
            if let Some(executable) = self.executables.get_mut(*id)
                && executable.table == TableState::Installed
            {
                executable.table = TableState::Unknown;
            }
        }
    }

    /// A new symbolizer listens: it knows nothing. Returns what it must hear before the messages that wait.
    pub(crate) fn on_link_up(&mut self) -> Vec<SamplerMessage> {
        self.executables.forget_announcements();
        let mut actions = Vec::new();
        for image in self.processes.images_mut() {
            let named = image.announced.take().is_some() || image.sampled;
            if named {
                let executables = &mut self.executables;
                announce_image(image, executables, self.window_start, &mut actions);
            }
        }
        let messages = actions.into_iter().filter_map(|action| match action {
            Action::Send { message, .. } => Some(message),
            _ => None,
        });
        messages.collect()
    }

    /// Samples that wait for their process's maps file.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting as u64
    }

    /// Time passes: `now` is CLOCK_MONOTONIC, nanoseconds. Call at least once a second, after all records so far.
    pub(crate) fn on_tick(&mut self, now: u64) {
        let overdue = |asked: u64| now.saturating_sub(asked) > MAPS_PATIENCE;
        let late: Vec<u32> = self
            .processes
            .iter_mut()
            .filter(|(_, process)| matches!(process.knowledge, Knowledge::Asked(asked) if overdue(asked)))
            .map(|(pid, _)| *pid)
            .collect();
        for pid in late {
            self.maps_requests.retain(|_, asked| *asked != pid);
            self.give_up_maps(pid);
            self.resume(pid);
        }
        for tgid in self.processes.reap(now.saturating_sub(AFTERLIFE)) {
            self.actions.push(Action::Uninstall { tgid });
        }
        for (_, process) in self.processes.iter_mut() {
            process.settle(now);
        }
        self.install_changed();
        if self.window_length != 0 && now.saturating_sub(self.window_start) >= self.window_length {
            self.end_window(now, false);
        }
    }

    /// Brings the kernel side up to date with processes that are sampled.
    pub(crate) fn install_changed(&mut self) {
        for (_, process) in self.processes.iter_mut() {
            if !process.changed || !process.may_run() || process.image.start_time == 0 {
                continue;
            }
            if !process.installed && !process.image.sampled {
                continue;
            }
            process.changed = false;
            process.installed = true;
            let kernel = KernelProcess::of(process, &self.executables);
            self.actions.push(Action::Install(Box::new(kernel)));
        }
    }

    /// Sends the window and starts the next at `now`; `last`: no other follows.
    pub(crate) fn end_window(&mut self, now: u64, last: bool) {
        let window = WindowId(self.window_id);
        if last {
            let waiting: Vec<u32> = self.processes.iter_mut().map(|(pid, _)| *pid).collect();
            for pid in waiting {
                self.give_up_maps(pid);
                self.resume(pid);
            }
        }
        let images = self.processes.images_mut();
        for image in images.filter(|image| image.sampled) {
            let executables = &mut self.executables;
            announce_image(image, executables, self.window_start, &mut self.actions);
            image.sampled = false;
        }
        for (batch, samples) in self.window.take_batches(window) {
            self.actions.push(Action::Send {
                message: SamplerMessage::Batch(batch),
                samples,
            });
        }
        let end = wire::WindowEnd {
            window,
            start: self.window_start.wrapping_add_signed(self.clock_offset),
            duration: now.saturating_sub(self.window_start),
            frequency: self.frequency,
            // The event loop knows what the link carried and what was dropped on the way to it.
            samples: 0,
            drops: List::default(),
            cgroups: List(self.cgroups.take_sampled()),
            last,
        };
        self.actions.push(Action::Send {
            message: SamplerMessage::WindowEnd(end),
            samples: 0,
        });
        for image in self.processes.take_retired() {
            let message = SamplerMessage::ImageGone(wire::ImageGone { image });
            self.actions.push(Action::Send {
                message,
                samples: 0,
            });
        }
        if self.executables.len() > KEPT_EXECUTABLES {
            let used: HashSet<ExecutableId> = self
                .processes
                .images_mut()
                .flat_map(|image| {
                    image
                        .mappings
                        .all
                        .iter()
                        .map(|mapping| mapping.executable)
                        .collect::<Vec<_>>()
                })
                .collect();
            self.executables.shrink(KEPT_EXECUTABLES, &used);
        }
        self.window_id += 1;
        self.window_start = now;
    }

    /// When the current window ends, CLOCK_MONOTONIC nanoseconds.
    pub(crate) fn window_end(&self) -> Option<u64> {
        (self.window_length != 0).then(|| self.window_start + self.window_length)
    }

    /// Processes and executables known.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.processes.len(), self.executables.len())
    }
}
