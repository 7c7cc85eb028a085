//! The symbolizer's decisions: messages, files and what the threads found in, actions out. No sockets, no reading of
//! files, no clocks here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::sync::Arc;

use ipc_proto::debuginfo::DebuginfoOffer;
use ipc_proto::ids::{BuildId, ExecutableId, ImageId, WindowId};
use ipc_proto::opener::{OpenStatus, OpenerRequest};
use ipc_proto::sample::{
    Backing, Executable, Mapping, Mappings, SampleBatch, SamplerMessage, Snapshot, Start,
    SymbolizerMessage, Taken,
};
use ipc_proto::symbolized::SymbolizedMessage;
use ipc_proto::table_file::TableFile;
use leadsman_ebpf::stop::StopReason;
use leadsman_symbolizer::reason::Reason;

use crate::delivery::{Delivery, Settled};
use crate::executables::{DebugFiles, Executables, FileState, TableState, VDSO};
use crate::finish::{Code, Unwinding, walk};
use crate::images::{Image, Images};
use crate::job::{self, Run, WindowJob};
use crate::name_worker::{NameAnswer, NameRequest};
use crate::quarantine::FileKey;
use crate::requests::Requests;
use crate::table_worker::{TableJob, TableSource};
use crate::window::{Waiting, Window, Windows};

mod files;
mod offers;

pub(crate) use offers::Offering;
use offers::Offers;

/// How long an ended window waits for tables and files, nanoseconds.
const GRACE: u64 = 1_000_000_000;
/// Windows under way at once, the last one still open: more say that naming is too slow, and the oldest are dropped.
const MAX_WINDOWS: usize = 16;
/// Windows made ready for the naming thread ahead of time; the others go on waiting for their files.
const MAX_JOBS: usize = 1;
/// How old a perf map may be before it is read again, nanoseconds.
const PERF_MAP_AGE: u64 = 10_000_000_000;
/// Images whose perf map's age is remembered.
const MAX_PERF_MAPS: usize = 4096;

/// What the event loop is to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Tell the sampler; with a table's bytes, which go as a sealed memfd.
    TellSampler(SymbolizerMessage, Option<Arc<Vec<u8>>>),
    /// Ask the opener.
    Ask(OpenerRequest),
    /// Offer an executable to the uploader, with its debug file if it has one.
    Offer(DebuginfoOffer, Vec<File>),
    /// Give the table thread a job.
    FindTable(TableJob),
    /// Give the naming thread something.
    Name(NameRequest),
}

/// A message that says what can't be: its sender is not to be listened to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// Samples before the start message, or a second one.
    #[error("the start message is missing or repeated")]
    Start,
    /// File descriptors where none belong.
    #[error("file descriptors where none belong")]
    Descriptors,
    /// A stop reason that has no such number.
    #[error("stop reason {0}")]
    StopReason(u8),
    /// More samples than a window can have.
    #[error("a stack counted {0} times")]
    Count(u64),
}

/// Samples of one stack beyond which a count is nonsense: a year of a thousand CPUs at 1000 Hz.
const MAX_COUNT: u64 = 1 << 45;

/// What was counted since the start, for metrics.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Samples by the number of their stop reason.
    pub(crate) stops: BTreeMap<u8, u64>,
    /// Frames without a name, by reason.
    pub(crate) unnamed: BTreeMap<Reason, u64>,
    /// Snapshots walked here, by whether their stack was whole.
    pub(crate) walked: [u64; 2],
    /// Requests to the opener, by how they ended.
    pub(crate) opened: BTreeMap<&'static str, u64>,
}

/// The engine.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    run: Run,
    started: bool,
    pub(crate) images: Images,
    pub(crate) executables: Executables,
    pub(crate) windows: Windows,
    pub(crate) requests: Requests,
    pub(crate) delivery: Delivery,
    pub(crate) counts: Counts,
    /// When each image's perf map was asked for.
    perf_maps: HashMap<ImageId, u64>,
    pub(crate) offers: Offers,
    /// Windows that wait for the naming thread.
    jobs: VecDeque<(Settled, Box<WindowJob>)>,
    /// A window is being named, and whose samples these are.
    naming: Option<Settled>,
    /// The sampler said that no window follows.
    last_seen: bool,
    actions: Vec<Action>,
}

impl Engine {
    /// What there is to do since the last call.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// A sampler connected: its numbers mean other things than the last one's.
    pub(crate) fn on_sampler_up(&mut self) {
        self.run.generation = self.run.generation.wrapping_add(1);
        self.started = false;
        self.last_seen = false;
        self.images.clear();
        self.executables.clear();
        self.requests.clear();
        self.forget_waiting_offers();
        self.perf_maps.clear();
    }

    /// The sampler's link ended: what it sent is all there is.
    pub(crate) fn on_sampler_down(&mut self, now: u64) {
        while self.windows.len() > 0 {
            self.make_job(now);
        }
        self.hand_on(now);
    }

    /// The sampler said something.
    ///
    /// # Errors
    /// [`Violation`].
    pub(crate) fn on_sampler(
        &mut self,
        message: SamplerMessage,
        mut files: Vec<File>,
        now: u64,
    ) -> Result<(), Violation> {
        if let SamplerMessage::Start(start) = message {
            if self.started || files.len() > 1 {
                return Err(Violation::Start);
            }
            self.start(start, files.pop());
            return Ok(());
        }
        if !self.started {
            return Err(Violation::Start);
        }
        if !files.is_empty() {
            return Err(Violation::Descriptors);
        }
        match message {
            SamplerMessage::Start(_) => return Err(Violation::Start),
            SamplerMessage::Image(image) => self.images.announce(image),
            SamplerMessage::Mappings(mappings) => self.on_mappings(mappings, now),
            SamplerMessage::Executable(executable) => self.on_executable(executable, now),
            SamplerMessage::Batch(batch) => self.on_batch(batch, now)?,
            SamplerMessage::Snapshot(snapshot) => self.on_snapshot(snapshot, now)?,
            SamplerMessage::WindowEnd(end) => {
                self.last_seen |= end.last;
                let id = end.window;
                self.windows.end(end, now);
                self.prepare(id, now);
                self.hand_on(now);
            }
            SamplerMessage::ImageGone(gone) => {
                let newest = self.windows.newest();
                self.images.retire(gone.image, newest);
            }
        }
        Ok(())
    }

    fn on_mappings(&mut self, message: Mappings, now: u64) {
        let image = message.image;
        let executables: BTreeSet<ExecutableId> = message
            .mappings
            .0
            .iter()
            .filter(|mapping| job::backing(mapping) == Backing::File)
            .map(|mapping| mapping.executable)
            .collect();
        self.images.map(message);
        for executable in executables {
            self.note_image(executable, image, now);
        }
    }

    fn start(&mut self, start: Start, kallsyms: Option<File>) {
        self.started = true;
        self.run.frequency = start.frequency;
        self.run.clock_offset = start.clock_offset;
        let key = self.run.key(VDSO);
        self.executables.announce(Executable {
            id: VDSO,
            table_wanted: true,
            ..Executable::default()
        });
        self.executables.set_state(VDSO, TableState::Building);
        self.actions.push(Action::FindTable(TableJob {
            key,
            build_id: BuildId::default(),
            file_key: FileKey::new(&[], 0, 0),
            source: TableSource::Image(start.vdso.0.clone()),
        }));
        self.actions.push(Action::Name(NameRequest::Run {
            kallsyms,
            kernel_build_id: start.kernel_build_id,
            vdso_key: key,
            vdso: start.vdso.0,
        }));
    }

    fn on_batch(&mut self, batch: SampleBatch, now: u64) -> Result<(), Violation> {
        for stack in batch.stacks.0 {
            check_stop(stack.stop)?;
            if stack.count > MAX_COUNT {
                return Err(Violation::Count(stack.count));
            }
            self.delivery.account.produced += stack.count;
            self.windows.add(batch.window, stack, now);
        }
        Ok(())
    }

    fn on_snapshot(&mut self, snapshot: Snapshot, now: u64) -> Result<(), Violation> {
        check_stop(snapshot.stop)?;
        self.delivery.account.produced += 1;
        self.windows.receive_snapshot(snapshot.window, now);
        self.finish_or_wait(snapshot, now);
        Ok(())
    }

    /// Walks a snapshot; keeps it when a table that it needs may still come.
    fn finish_or_wait(&mut self, snapshot: Snapshot, now: u64) {
        let walked = self.walk(&snapshot);
        let Some(missing) = walked.missing else {
            return self.finish(snapshot, walked.frames, walked.stop, now);
        };
        self.find_table(missing, now);
        let waiting = Waiting { snapshot, missing };
        if let Some(waiting) = self.windows.wait(waiting, now) {
            self.finish_now(waiting.snapshot, now);
        }
    }

    /// Walks a snapshot with what there is.
    fn finish_now(&mut self, snapshot: Snapshot, now: u64) {
        let walked = self.walk(&snapshot);
        self.finish(snapshot, walked.frames, walked.stop, now);
    }

    fn walk(&mut self, snapshot: &Snapshot) -> crate::finish::Walk {
        match self.images.named(snapshot.image) {
            Some(image) => {
                let executables = &self.executables;
                walk(snapshot, &ImageCode { image, executables })
            }
            None => crate::finish::Walk {
                frames: Vec::new(),
                stop: StopReason::MappingsUnknown,
                missing: None,
            },
        }
    }

    fn finish(
        &mut self,
        snapshot: Snapshot,
        frames: Vec<ipc_proto::sample::Frame>,
        stop: StopReason,
        now: u64,
    ) {
        self.counts.walked[usize::from(stop.is_complete())] += 1;
        self.windows.finish(snapshot, frames, stop, now);
    }

    /// The naming thread answered.
    pub(crate) fn on_named(&mut self, answer: NameAnswer, now: u64) {
        match answer {
            NameAnswer::Executable {
                key,
                build_id,
                wanted,
            } => self.on_executable_read(key, build_id, wanted, now),
            NameAnswer::Refused { key, reason } => {
                let id = self.of_this_run(key);
                if let Some(executable) = id.and_then(|id| self.executables.get_mut(id)) {
                    executable.file = FileState::Refused(reason);
                    executable.is_named = false;
                }
            }
            NameAnswer::DebugFile { key, taken } => {
                if let Some(id) = self.of_this_run(key) {
                    self.on_debug_file(id, taken, now);
                }
            }
            NameAnswer::Window(named) => {
                for key in named.forgotten {
                    let id = self.of_this_run(key);
                    if let Some(executable) = id.and_then(|id| self.executables.get_mut(id)) {
                        executable.file = FileState::Unknown;
                        executable.is_named = false;
                        executable.debug_files = DebugFiles::Unknown;
                    }
                }
                for (stop, samples) in named.stops {
                    *self.counts.stops.entry(stop).or_default() += samples;
                }
                for (reason, frames) in named.unnamed {
                    *self.counts.unnamed.entry(reason).or_default() += frames;
                }
                if let Some(settled) = self.naming.take() {
                    log::debug!("window {} has its names", settled.window.0);
                    let account = &mut self.delivery.account;
                    account.drop_samples("window_too_large", named.dropped);
                    let carried: u64 = named.batch.samples.0.iter().map(|one| one.count).sum();
                    let message = SymbolizedMessage::Batch(named.batch);
                    for dropped in self.delivery.push(settled, carried, message) {
                        self.settle(dropped);
                    }
                }
            }
        }
        self.hand_on(now);
    }

    /// Asks for what an ended window needs its names from.
    fn prepare(&mut self, id: WindowId, now: u64) {
        let Some(window) = self.windows.iter_mut().find(|window| window.id == id) else {
            return;
        };
        let mut used = BTreeSet::new();
        let mut generated = BTreeSet::new();
        for stack in &window.stacks {
            let Some(image) = self.images.get(stack.image) else {
                continue;
            };
            for frame in &stack.user.0 {
                let Some(mapping) = image.get(frame.mapping) else {
                    continue;
                };
                match job::backing(mapping) {
                    Backing::File => {
                        used.insert(mapping.executable);
                    }
                    Backing::Anonymous => {
                        generated.insert(stack.image);
                    }
                    Backing::Vdso | Backing::Special => {}
                }
            }
        }
        window.used = used.iter().copied().collect();
        for id in used {
            self.open(id, now);
        }
        for image in generated {
            self.open_perf_map(image, now);
        }
    }

    /// Whether files or tables may still come that a window needs.
    fn is_waiting(&self, window: &Window) -> bool {
        !window.waiting.is_empty()
            || window.used.iter().any(|id| {
                let executable = self.executables.get(*id);
                executable.is_some_and(crate::executables::Executable::is_file_coming)
            })
    }

    /// Makes jobs of the windows that are complete or have waited long enough, and gives the naming thread its next.
    fn hand_on(&mut self, now: u64) {
        while self.jobs.len() < MAX_JOBS
            && let Some(window) = self.windows.first()
        {
            let ready = match &window.end {
                Some((_, ended)) => !self.is_waiting(window) || now.saturating_sub(*ended) >= GRACE,
                None => self.windows.is_passed(window.id),
            };
            if !ready {
                break;
            }
            self.make_job(now);
        }
        while self.jobs.len() + self.windows.len() > MAX_WINDOWS {
            self.drop_oldest();
        }
        if self.naming.is_none()
            && let Some((settled, job)) = self.jobs.pop_front()
        {
            self.naming = Some(settled);
            self.actions.push(Action::Name(NameRequest::Window(job)));
        }
    }

    /// Makes the oldest window's job; snapshots that still wait are finished with what there is.
    fn make_job(&mut self, now: u64) {
        let Some(id) = self.windows.first().map(|window| window.id) else {
            return;
        };
        for waiting in self.windows.take_waiting(Some(id), None) {
            self.finish_now(waiting.snapshot, now);
        }
        let Some(window) = self.windows.take_first() else {
            return;
        };
        for (cause, samples) in &window.dropped {
            self.delivery.account.drop_samples(cause, *samples);
        }
        log::debug!(
            "window {}: {} samples, complete {} ms after its end",
            id.0,
            window.received,
            window
                .end
                .as_ref()
                .map_or(0, |(_, ended)| now.saturating_sub(*ended) / 1_000_000),
        );
        let settled = Settled {
            window: id,
            generation: self.run.generation,
            samples: window.received,
        };
        let job = job::build(window, self.run, &mut self.images, &self.executables, now);
        self.images.forget_before(id.0 + 1);
        self.jobs.push_back((settled, Box::new(job)));
    }

    /// Naming is too slow: the oldest window that waits for it goes.
    fn drop_oldest(&mut self) {
        let (settled, kept) = if let Some((settled, job)) = self.jobs.pop_front() {
            let kept = job.stacks.iter().map(|stack| stack.count).sum();
            (settled, kept)
        } else if let Some(window) = self.windows.take_first() {
            let settled = Settled {
                window: window.id,
                generation: self.run.generation,
                samples: window.received,
            };
            for (cause, samples) in &window.dropped {
                self.delivery.account.drop_samples(cause, *samples);
            }
            (settled, window.received - window.dropped_samples())
        } else {
            return;
        };
        self.delivery.account.drop_samples("symbolizer_slow", kept);
        self.settle(settled);
    }

    /// A window is off our account: so the sampler may forget it.
    fn settle(&mut self, settled: Settled) {
        if settled.generation == self.run.generation {
            let taken = Taken {
                window: settled.window,
                samples: settled.samples,
            };
            self.actions
                .push(Action::TellSampler(SymbolizerMessage::Taken(taken), None));
        }
    }

    /// The shipper took a window.
    pub(crate) fn on_shipper_taken(&mut self, window: WindowId) {
        if let Some(settled) = self.delivery.taken(window) {
            self.settle(settled);
        }
    }

    /// A new opener listens.
    pub(crate) fn on_opener_up(&mut self) {
        let again = self.requests.all();
        self.actions.extend(again.into_iter().map(Action::Ask));
    }

    /// Time passes: `now` is CLOCK_MONOTONIC, nanoseconds.
    pub(crate) fn on_tick(&mut self, now: u64) {
        let due = self.requests.due(now);
        self.actions.extend(due.into_iter().map(Action::Ask));
        for purpose in self.requests.overdue(now) {
            self.on_refused(purpose, OpenStatus::TimedOut, now);
        }
        self.hand_on(now);
    }

    /// When [`Self::on_tick`] has something to do.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        let grace = self
            .windows
            .first()
            .and_then(|window| window.end.as_ref())
            .map(|(_, ended)| ended.saturating_add(GRACE));
        self.requests.next_due().into_iter().chain(grace).min()
    }

    /// Whether every window went to the shipper and was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.windows.len() == 0
            && self.jobs.is_empty()
            && self.naming.is_none()
            && self.delivery.is_empty()
    }

    /// Whether the sampler said that no window follows.
    pub(crate) fn is_last_seen(&self) -> bool {
        self.last_seen
    }

    /// Gives up what is not delivered, at the end.
    pub(crate) fn give_up(&mut self) {
        while !self.jobs.is_empty() || self.windows.len() > 0 {
            self.drop_oldest();
        }
        for settled in self.delivery.give_up() {
            self.settle(settled);
        }
        let account = &mut self.delivery.account;
        let rest = account.queued();
        account.drop_samples("shutdown", rest);
    }
}

/// A process's code as the walk sees it.
struct ImageCode<'a> {
    image: &'a Image,
    executables: &'a Executables,
}

impl Code for ImageCode<'_> {
    fn mapping(&self, address: u64) -> Option<(u32, &Mapping)> {
        self.image.find(address)
    }

    fn code_before(&self, mapping: &Mapping, address: u64) -> Option<u64> {
        let offset = address
            .wrapping_sub(mapping.start)
            .wrapping_add(mapping.file_offset);
        let is_file = job::backing(mapping) == Backing::File;
        is_file.then(|| self.executables.word_before(mapping.executable, offset))?
    }

    fn unwinding(&self, mapping: &Mapping) -> Unwinding<'_> {
        let executable = match job::backing(mapping) {
            Backing::Anonymous | Backing::Special => return Unwinding::FramePointer,
            Backing::File => mapping.executable,
            Backing::Vdso => VDSO,
        };
        match self.executables.table(executable) {
            Some(TableState::Ready(Some(table))) => match TableFile::open(table) {
                Ok(table) => Unwinding::Table(table),
                Err(_fault) => Unwinding::Unreadable,
            },
            Some(TableState::NoFile | TableState::Absent) | None => Unwinding::Unreadable,
            Some(_) => Unwinding::Pending,
        }
    }
}

/// Stop reasons come from the kernel side by number.
fn check_stop(number: u8) -> Result<(), Violation> {
    match StopReason::from_number(number) {
        Some(_) => Ok(()),
        None => Err(Violation::StopReason(number)),
    }
}

#[cfg(test)]
mod tests;
