//! The part of the engine that gets files and unwind tables: where each executable's come from, who waits for them, what
//! happens when they don't come.

use std::fs::File;
use std::sync::Arc;

use ipc_proto::ids::{BuildId, ExecutableId, ImageId};
use ipc_proto::opener::{OpenPerfMap, OpenStatus, Opened, OpenerRequest};
use ipc_proto::sample::{Executable, NoTable, SymbolizerMessage, Table};
use leadsman_symbolizer::cache::ExecutableKey;
use leadsman_symbolizer::debuglink::DebugFileWanted;
use leadsman_symbolizer::reason::Reason;

use super::{Action, Engine, MAX_PERF_MAPS, PERF_MAP_AGE};
use crate::executables::{DebugFiles, FileState, TableState, VDSO};
use crate::name_worker::NameRequest;
use crate::requests::{self, Outcome, Purpose};
use crate::table_worker::{TableJob, TableResult, TableSource};

impl Engine {
    pub(super) fn on_executable(&mut self, about: Executable, now: u64) {
        let (id, wanted) = (about.id, about.table_wanted);
        if id == VDSO {
            return;
        }
        self.executables.announce(about);
        if wanted {
            self.find_table(id, now);
        }
        self.open(id, now);
    }

    /// Sees to it that an executable's table comes, from memory, from the disk or from its file.
    pub(super) fn find_table(&mut self, id: ExecutableId, now: u64) {
        let Some(executable) = self.executables.get_mut(id) else {
            return;
        };
        match &executable.table {
            TableState::Ready(Some(_)) => return self.tell_table(id),
            TableState::Looking | TableState::Building => return,
            TableState::NeedsFile => {}
            TableState::Unknown
            | TableState::Ready(None)
            | TableState::NoFile
            | TableState::Absent => {
                if executable.about.build_id.0.is_empty() {
                    executable.table = TableState::NeedsFile;
                } else {
                    let job = TableJob {
                        key: self.run.key(id),
                        build_id: executable.about.build_id.clone(),
                        file_key: executable.file_key(),
                        source: TableSource::Cache,
                    };
                    executable.table = TableState::Looking;
                    self.actions.push(Action::FindTable(job));
                    return;
                }
            }
        }
        self.build_from_file(id, now);
    }

    /// Builds a table from the file that is kept, or asks for the file.
    fn build_from_file(&mut self, id: ExecutableId, now: u64) {
        let Some(executable) = self.executables.get_mut(id) else {
            return;
        };
        match &mut executable.file {
            FileState::Given(kept) => match kept.take() {
                Some(file) => {
                    let job = TableJob {
                        key: self.run.key(id),
                        build_id: executable.about.build_id.clone(),
                        file_key: executable.file_key(),
                        source: TableSource::File(file),
                    };
                    self.executables.set_state(id, TableState::Building);
                    self.actions.push(Action::FindTable(job));
                }
                None => {
                    executable.file = FileState::Unknown;
                    self.open(id, now);
                }
            },
            FileState::Asked => {}
            FileState::Unknown | FileState::Refused(_) => self.open(id, now),
        }
    }

    /// Asks for an executable's file, unless it is there or on its way.
    pub(super) fn open(&mut self, id: ExecutableId, now: u64) {
        let Some(executable) = self.executables.get_mut(id) else {
            return;
        };
        let ask = match executable.file {
            FileState::Unknown => true,
            FileState::Refused(reason) => {
                matches!(reason, Reason::ProcessGone | Reason::NotYetOpened)
                    || matches!(executable.table, TableState::NeedsFile)
            }
            FileState::Asked | FileState::Given(_) => false,
        };
        if !ask {
            return;
        }
        let request = executable.open_request();
        executable.file = FileState::Asked;
        match self.requests.ask(Purpose::Executable(id), request, now) {
            Some(request) => self.actions.push(Action::Ask(request)),
            None => self.on_file_refused(id, OpenStatus::RateLimited),
        }
    }

    /// Another process has an executable mapped: where the ones before were gone too early, it may do.
    pub(super) fn note_image(&mut self, id: ExecutableId, image: ImageId, now: u64) {
        let Some(executable) = self.executables.get_mut(id) else {
            return;
        };
        executable.note_image(image);
        if matches!(executable.file, FileState::Refused(Reason::ProcessGone)) {
            self.open_elsewhere(id, now);
        }
    }

    /// Asks for an executable's file through another process that has it mapped; `false`: none is known.
    fn open_elsewhere(&mut self, id: ExecutableId, now: u64) -> bool {
        let Some(executable) = self.executables.get_mut(id) else {
            return false;
        };
        while let Some(image) = executable.next_image() {
            let Some(image) = self.images.get(image) else {
                continue;
            };
            let mapping = image.live_mapping(id);
            if let Some(mapping) = mapping.filter(|_| image.pid != executable.about.pid) {
                executable.look_in(image.pid, image.start_time, mapping);
                executable.file = FileState::Unknown;
                self.open(id, now);
                return true;
            }
        }
        false
    }

    /// The opener answered.
    pub(crate) fn on_opened(&mut self, opened: &Opened, file: Option<File>, now: u64) {
        let status = OpenStatus::ALL
            .iter()
            .copied()
            .find(|status| *status as u8 == opened.status);
        let status = match status {
            Some(OpenStatus::Opened) if file.is_none() => OpenStatus::NotFound,
            Some(status) => status,
            None => OpenStatus::Refused,
        };
        *self.counts.opened.entry(status.name()).or_default() += 1;
        match self.requests.answered(opened.request, status, now) {
            Outcome::Nothing => {}
            Outcome::Opened(purpose) => {
                if let Some(file) = file {
                    self.on_file(purpose, file, opened.size, now);
                }
            }
            Outcome::Refused(purpose, status) => self.on_refused(purpose, status, now),
        }
        self.hand_on(now);
    }

    fn on_file(&mut self, purpose: Purpose, file: File, size: u64, now: u64) {
        match purpose {
            Purpose::Executable(id) => self.on_executable_file(id, file, size, now),
            Purpose::PerfMap(image) => {
                let image = image.0;
                self.actions
                    .push(Action::Name(NameRequest::PerfMap { image, file }));
            }
            Purpose::DebugFile(id, nth) => {
                let key = self.run.key(id);
                let keeps = self.offers.keeps_files();
                let Some(executable) = self.executables.get_mut(id) else {
                    return;
                };
                let wanted = match &executable.debug_files {
                    DebugFiles::Asked(wanted, _) => wanted.get(nth).cloned(),
                    _ => None,
                };
                if let Some(wanted) = wanted {
                    let kept = keeps.then(|| file.try_clone().ok()).flatten();
                    executable.offering.debug_file = kept.map(|kept| (kept, size));
                    let request = NameRequest::DebugFile { key, wanted, file };
                    self.actions.push(Action::Name(request));
                }
            }
            Purpose::Offer(_) | Purpose::OfferDebugFile(_) => {
                self.on_offer_file(purpose, Some((file, size)), now);
            }
        }
    }

    fn on_executable_file(&mut self, id: ExecutableId, file: File, size: u64, now: u64) {
        let key = self.run.key(id);
        let Some(executable) = self.executables.get_mut(id) else {
            return;
        };
        let (about, file_key) = (executable.about.clone(), executable.file_key());
        let is_awaited = matches!(executable.table, TableState::NeedsFile | TableState::NoFile);
        let needs_second = is_awaited || matches!(executable.table, TableState::Looking);
        // Without a descriptor left the table is walked without, and the names come all the same.
        let second = needs_second.then(|| file.try_clone().ok()).flatten();
        executable.file = FileState::Given(second);
        let is_named = std::mem::replace(&mut executable.is_named, true);
        if !is_named {
            if self.offers.keeps_files()
                && let Ok(kept) = file.try_clone()
            {
                executable.offering.file = Some((kept, size));
            }
            self.actions.push(Action::Name(NameRequest::Executable {
                key,
                file,
                build_id: about.build_id,
                file_key,
            }));
        }
        if is_awaited {
            self.build_from_file(id, now);
        }
    }

    pub(super) fn on_refused(&mut self, purpose: Purpose, status: OpenStatus, now: u64) {
        match purpose {
            Purpose::Executable(id) => {
                if status == OpenStatus::ProcessGone && self.open_elsewhere(id, now) {
                    return;
                }
                self.on_file_refused(id, status);
                self.retry_waiting(id, now);
            }
            Purpose::PerfMap(_) => {}
            Purpose::DebugFile(id, nth) => self.ask_debug_file(id, nth + 1, now),
            Purpose::Offer(_) | Purpose::OfferDebugFile(_) => {
                self.on_offer_file(purpose, None, now);
            }
        }
    }

    fn on_file_refused(&mut self, id: ExecutableId, status: OpenStatus) {
        let Some(executable) = self.executables.get_mut(id) else {
            return;
        };
        log::debug!(
            "no file of {} through process {}: {}",
            executable.about.path.text(),
            executable.about.pid.0,
            status.name()
        );
        executable.file = if executable.is_named {
            FileState::Given(None)
        } else {
            FileState::Refused(requests::reason(status))
        };
        if matches!(executable.table, TableState::NeedsFile) {
            if requests::may_succeed_later(status) {
                // What needs the names asks for it again with each window.
                self.no_table(id, TableState::NoFile, true);
            } else {
                self.no_table(id, TableState::Absent, false);
            }
        }
    }

    /// There is no table, for now or for good, as `state` says; `retry`: another process's file may give one.
    fn no_table(&mut self, id: ExecutableId, state: TableState, retry: bool) {
        let may_come = matches!(state, TableState::NoFile);
        self.executables.set_state(id, state);
        if let Some(executable) = self.executables.get_mut(id)
            && executable.wanted
        {
            executable.wanted = may_come;
            let message = NoTable {
                executable: id,
                retry,
            };
            self.actions.push(Action::TellSampler(
                SymbolizerMessage::NoTable(message),
                None,
            ));
        }
    }

    /// Sends the table to the sampler, if it waits for it.
    fn tell_table(&mut self, id: ExecutableId) {
        let Some(executable) = self.executables.get_mut(id) else {
            return;
        };
        if let TableState::Ready(Some(table)) = &executable.table
            && std::mem::take(&mut executable.wanted)
        {
            let message = Table {
                executable: id,
                bytes: table.len() as u64,
                build_id: executable.best_build_id().clone(),
            };
            let table = Arc::clone(table);
            self.actions.push(Action::TellSampler(
                SymbolizerMessage::Table(message),
                Some(table),
            ));
        }
    }

    /// The table thread finished a job.
    pub(crate) fn on_table(&mut self, key: ExecutableKey, result: TableResult, now: u64) {
        let Some(id) = self.of_this_run(key) else {
            return;
        };
        match result {
            TableResult::Ready { table, build_id } => {
                if let Some(executable) = self.executables.get_mut(id) {
                    // A table is known by what the linker wrote; other files got theirs when they were read.
                    if !build_id.0.is_empty() {
                        executable.build_id = build_id;
                    }
                    if let FileState::Given(kept) = &mut executable.file {
                        *kept = None;
                    }
                }
                self.executables.set_table(id, table);
                self.tell_table(id);
            }
            TableResult::NotCached => {
                self.executables.set_state(id, TableState::NeedsFile);
                return self.build_from_file(id, now);
            }
            TableResult::OtherBuild => self.no_table(id, TableState::Absent, true),
            TableResult::Quarantined | TableResult::Failed(_) => {
                if let TableResult::Failed(error) = &result
                    && let Some(executable) = self.executables.get(id)
                {
                    let path = executable.about.path.text();
                    log::info!("no unwind table of {path}: {error}");
                }
                self.no_table(id, TableState::Absent, false);
            }
        }
        self.retry_waiting(id, now);
        self.hand_on(now);
    }

    pub(super) fn of_this_run(&self, key: ExecutableKey) -> Option<ExecutableId> {
        let id = ExecutableId(key.0 as u32);
        (self.run.key(id) == key).then_some(id)
    }

    fn retry_waiting(&mut self, id: ExecutableId, now: u64) {
        for waiting in self.windows.take_waiting(None, Some(id)) {
            self.finish_or_wait(waiting.snapshot, now);
        }
    }

    pub(super) fn on_executable_read(
        &mut self,
        key: ExecutableKey,
        build_id: BuildId,
        wanted: Vec<DebugFileWanted>,
        now: u64,
    ) {
        let Some(id) = self.of_this_run(key) else {
            return;
        };
        if let Some(executable) = self.executables.get_mut(id) {
            executable.build_id = build_id;
            executable.debug_files = DebugFiles::Wanted(wanted);
            self.ask_debug_file(id, 0, now);
        }
    }

    pub(super) fn on_debug_file(&mut self, id: ExecutableId, taken: bool, now: u64) {
        let Some(executable) = self.executables.get_mut(id) else {
            return;
        };
        let DebugFiles::Asked(wanted, nth) = &executable.debug_files else {
            return;
        };
        let nth = *nth;
        if taken {
            executable.offering.found = wanted.get(nth).cloned();
            self.settle_debug_files(id, now);
        } else {
            executable.offering.debug_file = None;
            self.ask_debug_file(id, nth + 1, now);
        }
    }

    /// Asks for the nth debug file that an executable wants; there may be none.
    pub(super) fn ask_debug_file(&mut self, id: ExecutableId, nth: usize, now: u64) {
        let key = self.run.key(id);
        let Some(executable) = self.executables.get_mut(id) else {
            return;
        };
        let wanted = match std::mem::take(&mut executable.debug_files) {
            DebugFiles::Wanted(wanted) | DebugFiles::Asked(wanted, _) => wanted,
            DebugFiles::Unknown | DebugFiles::Settled => Vec::new(),
        };
        let request = wanted.get(nth);
        let request = request.map(|wanted| executable.debug_file_request(wanted));
        let purpose = Purpose::DebugFile(id, nth);
        match request.and_then(|request| self.requests.ask(purpose, request, now)) {
            Some(request) => {
                executable.debug_files = DebugFiles::Asked(wanted, nth);
                self.actions.push(Action::Ask(request));
            }
            None => {
                if !wanted.is_empty() {
                    self.actions
                        .push(Action::Name(NameRequest::NoDebugFile { key }));
                }
                self.settle_debug_files(id, now);
            }
        }
    }

    pub(super) fn open_perf_map(&mut self, id: ImageId, now: u64) {
        let asked = self.perf_maps.get(&id);
        if asked.is_some_and(|asked| now.saturating_sub(*asked) < PERF_MAP_AGE) {
            return;
        }
        let Some(image) = self.images.get(id) else {
            return;
        };
        let request = OpenerRequest::OpenPerfMap(OpenPerfMap {
            request: 0,
            pid: image.pid,
            start_time: image.start_time,
        });
        if self.perf_maps.len() >= MAX_PERF_MAPS {
            self.perf_maps
                .retain(|_, asked| now.saturating_sub(*asked) < PERF_MAP_AGE);
        }
        self.perf_maps.insert(id, now);
        if let Some(request) = self.requests.ask(Purpose::PerfMap(id), request, now) {
            self.actions.push(Action::Ask(request));
        }
    }
}
