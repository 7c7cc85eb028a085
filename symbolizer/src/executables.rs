//! Every executable the sampler named: where its unwind table and its file are. Says what is to be done next about
//! each; opens, builds and sends nothing.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use ipc_proto::codec::Bytes;
use ipc_proto::ids::{BuildId, ExecutableId, ImageId, Pid};
use ipc_proto::opener::{OpenDebugFile, OpenExecutable, OpenerRequest};
use ipc_proto::sample::{self as wire, Mapping};
use leadsman_symbolizer::debuglink::DebugFileWanted;
use leadsman_symbolizer::reason::Reason;

use crate::engine::Offering;
use crate::quarantine::FileKey;

/// Executables remembered: beyond it those named longest ago are forgotten.
const MAX_EXECUTABLES: usize = 32_768;
/// Bytes of unwind tables kept in memory for stacks that are finished here; others are read again from the disk.
const MAX_TABLE_BYTES: usize = 12 << 20;
/// Images remembered for each executable: processes through which its file may be opened.
const MAX_IMAGES: usize = 4;
/// The vDSO's number.
pub(crate) const VDSO: ExecutableId = ExecutableId(0);

/// Where an unwind table is.
#[derive(Debug, Default)]
pub(crate) enum TableState {
    /// Nobody needs it.
    #[default]
    Unknown,
    /// The disk cache is being asked.
    Looking,
    /// The cache has none: it is built when the file comes.
    NeedsFile,
    /// Being built.
    Building,
    /// There is one; its bytes may have made room for others.
    Ready(Option<Arc<Vec<u8>>>),
    /// Its file could not be opened so far: it is built should the file come after all.
    NoFile,
    /// There is none.
    Absent,
}

/// Where an executable's file is.
#[derive(Debug, Default)]
pub(crate) enum FileState {
    /// Nobody asked for it.
    #[default]
    Unknown,
    /// The opener was asked.
    Asked,
    /// It came and went on to who reads it; a second descriptor is kept while its table may still be needed.
    Given(Option<File>),
    /// It can't be had.
    Refused(Reason),
}

/// Where an executable's separate debug files are.
#[derive(Debug, Default)]
pub(crate) enum DebugFiles {
    /// Not known whether it wants any.
    #[default]
    Unknown,
    /// It wants one of these, best first.
    Wanted(Vec<DebugFileWanted>),
    /// The opener was asked for the nth.
    Asked(Vec<DebugFileWanted>, usize),
    /// There is nothing more to ask for.
    Settled,
}

/// One executable.
#[derive(Debug, Default)]
pub(crate) struct Executable {
    /// What the sampler said last.
    pub(crate) about: wire::Executable,
    pub(crate) table: TableState,
    /// Whether the sampler waits for the table.
    pub(crate) wanted: bool,
    pub(crate) file: FileState,
    /// Whether the naming thread has its file.
    pub(crate) is_named: bool,
    pub(crate) debug_files: DebugFiles,
    /// What its offer to the uploader takes.
    pub(crate) offering: Offering,
    /// The build ID found in the file.
    pub(crate) build_id: BuildId,
    /// Images that have it mapped, the latest last.
    mapped_by: VecDeque<ImageId>,
    used: Cell<u64>,
}

impl Executable {
    /// Another image has it mapped.
    pub(crate) fn note_image(&mut self, image: ImageId) {
        if self.mapped_by.back() != Some(&image) {
            self.mapped_by.push_back(image);
        }
        if self.mapped_by.len() > MAX_IMAGES {
            self.mapped_by.pop_front();
        }
    }

    /// An image that has it mapped and was not asked for yet, the latest first.
    pub(crate) fn next_image(&mut self) -> Option<ImageId> {
        self.mapped_by.pop_back()
    }

    /// Its file is to be opened through this mapping.
    pub(crate) fn look_in(&mut self, pid: Pid, start_time: u64, mapping: &Mapping) {
        let about = &mut self.about;
        (about.pid, about.start_time) = (pid, start_time);
        (about.mapping_start, about.mapping_end) = (mapping.start, mapping.end);
    }

    /// Its build ID, from the kernel or the file; empty when it has none.
    pub(crate) fn best_build_id(&self) -> &BuildId {
        if self.about.build_id.0.is_empty() {
            &self.build_id
        } else {
            &self.about.build_id
        }
    }

    /// What its file is known by to the quarantine.
    pub(crate) fn file_key(&self) -> FileKey {
        let about = &self.about;
        FileKey::new(&about.build_id.0, about.device, about.inode)
    }

    /// The request that gets its file.
    pub(crate) fn open_request(&self) -> OpenerRequest {
        OpenerRequest::OpenExecutable(OpenExecutable {
            request: 0,
            pid: self.about.pid,
            start_time: self.about.start_time,
            mapping_start: self.about.mapping_start,
            mapping_end: self.about.mapping_end,
            path: self.about.path.clone(),
        })
    }

    /// The request that gets one of its debug files.
    pub(crate) fn debug_file_request(&self, wanted: &DebugFileWanted) -> OpenerRequest {
        let (build_id, name) = match wanted {
            DebugFileWanted::ByBuildId(id) => (Bytes::cut(id.as_bytes()), Bytes::default()),
            DebugFileWanted::ByName { name, .. } => (Bytes::default(), Bytes::cut(name.as_bytes())),
        };
        OpenerRequest::OpenDebugFile(OpenDebugFile {
            request: 0,
            pid: self.about.pid,
            start_time: self.about.start_time,
            path: self.about.path.clone(),
            build_id,
            name,
        })
    }

    /// Whether its file may still come.
    pub(crate) fn is_file_coming(&self) -> bool {
        matches!(self.file, FileState::Asked) || matches!(self.debug_files, DebugFiles::Asked(..))
    }
}

/// All executables.
#[derive(Debug, Default)]
pub(crate) struct Executables {
    all: HashMap<ExecutableId, Executable>,
    clock: Cell<u64>,
    table_bytes: usize,
}

impl Executables {
    /// The sampler named an executable, perhaps again with another process that has it mapped.
    pub(crate) fn announce(&mut self, about: wire::Executable) -> &mut Executable {
        let now = self.tick();
        if self.all.len() >= MAX_EXECUTABLES && !self.all.contains_key(&about.id) {
            self.forget_oldest();
        }
        let executable = self.all.entry(about.id).or_default();
        executable.used.set(now);
        executable.wanted |= about.table_wanted;
        executable.about = about;
        executable
    }

    /// An executable that is used now.
    pub(crate) fn get_mut(&mut self, id: ExecutableId) -> Option<&mut Executable> {
        let now = self.tick();
        let executable = self.all.get_mut(&id)?;
        executable.used.set(now);
        Some(executable)
    }

    /// An executable, without using it.
    pub(crate) fn get(&self, id: ExecutableId) -> Option<&Executable> {
        self.all.get(&id)
    }

    /// An executable of that build.
    pub(crate) fn of_build(&self, build_id: &BuildId) -> Option<ExecutableId> {
        let mut all = self.all.iter();
        let found = all.find(|(_, executable)| executable.best_build_id() == build_id);
        found.map(|(id, _)| *id)
    }

    /// Executables of which it is known whether they have a debug file, the ones used last first.
    pub(crate) fn settled(&self) -> Vec<ExecutableId> {
        let settled = self.all.iter().filter(|(_, executable)| {
            matches!(executable.debug_files, DebugFiles::Settled)
                && !executable.best_build_id().0.is_empty()
        });
        let mut by_age: Vec<_> = settled
            .map(|(id, executable)| (executable.used.get(), *id))
            .collect();
        by_age.sort_unstable_by(|one, other| other.cmp(one));
        by_age.into_iter().map(|(_, id)| id).collect()
    }

    /// Closes the files that were kept for offers.
    pub(crate) fn forget_offerings(&mut self) {
        for executable in self.all.values_mut() {
            (executable.offering.file, executable.offering.debug_file) = (None, None);
        }
    }

    /// Its unwind table, which is used now.
    pub(crate) fn table(&self, id: ExecutableId) -> Option<&TableState> {
        let executable = self.all.get(&id)?;
        executable.used.set(self.tick());
        Some(&executable.table)
    }

    /// The eight bytes before a place in an executable's file, if the file is at hand.
    pub(crate) fn word_before(&self, id: ExecutableId, offset: u64) -> Option<u64> {
        let FileState::Given(Some(file)) = &self.all.get(&id)?.file else {
            return None;
        };
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, offset.checked_sub(8)?)
            .ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// The table is there.
    pub(crate) fn set_table(&mut self, id: ExecutableId, table: Arc<Vec<u8>>) {
        let bytes = table.len();
        self.set_state(id, TableState::Ready(Some(table)));
        if self.all.contains_key(&id) {
            self.table_bytes += bytes;
        }
        self.shrink_tables(id);
    }

    /// Anything else about the table.
    pub(crate) fn set_state(&mut self, id: ExecutableId, state: TableState) {
        let now = self.tick();
        if let Some(executable) = self.all.get_mut(&id) {
            executable.used.set(now);
            if let TableState::Ready(Some(old)) = std::mem::replace(&mut executable.table, state) {
                self.table_bytes -= old.len();
            }
        }
    }

    /// Gives up tables' bytes, those used longest ago first, but never `keep`'s.
    fn shrink_tables(&mut self, keep: ExecutableId) {
        while self.table_bytes > MAX_TABLE_BYTES {
            let held = self.all.iter_mut().filter(|(id, executable)| {
                **id != keep
                    && **id != VDSO
                    && matches!(executable.table, TableState::Ready(Some(_)))
            });
            let Some((_, oldest)) = held.min_by_key(|(_, executable)| executable.used.get()) else {
                return;
            };
            if let TableState::Ready(table) = &mut oldest.table
                && let Some(table) = table.take()
            {
                self.table_bytes -= table.len();
            }
        }
    }

    /// Forgets an eighth of all at once: finding the oldest takes a look at all.
    fn forget_oldest(&mut self) {
        let others = self.all.iter().filter(|(id, _)| **id != VDSO);
        let mut by_age: Vec<(u64, ExecutableId)> = others
            .map(|(id, executable)| (executable.used.get(), *id))
            .collect();
        by_age.sort_unstable();
        for (_, id) in by_age.into_iter().take(MAX_EXECUTABLES / 8) {
            self.set_state(id, TableState::Unknown);
            self.all.remove(&id);
        }
    }

    /// A new sampler: other numbers.
    pub(crate) fn clear(&mut self) {
        self.all.clear();
        self.table_bytes = 0;
    }

    /// Number of executables.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Bytes of tables in memory.
    pub(crate) fn table_bytes(&self) -> usize {
        self.table_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(executables: &mut Executables, id: u32) {
        executables.announce(wire::Executable {
            id: ExecutableId(id),
            ..wire::Executable::default()
        });
    }

    fn has_bytes(executables: &Executables, id: u32) -> bool {
        let found = executables.get(ExecutableId(id));
        matches!(
            found.map(|found| &found.table),
            Some(TableState::Ready(Some(_)))
        )
    }

    #[test]
    fn tables_used_longest_ago_give_up_their_bytes() {
        let mut executables = Executables::default();
        for id in 1..=4 {
            announce(&mut executables, id);
            let table = Arc::new(vec![0; MAX_TABLE_BYTES / 3]);
            executables.set_table(ExecutableId(id), table);
            let _used = executables.get_mut(ExecutableId(1));
        }
        assert_eq!(
            [1, 2, 3, 4].map(|id| has_bytes(&executables, id)),
            [true, false, true, true]
        );
        assert_eq!(executables.table_bytes(), MAX_TABLE_BYTES / 3 * 3);
        executables.set_state(ExecutableId(1), TableState::Absent);
        assert_eq!(executables.table_bytes(), MAX_TABLE_BYTES / 3 * 2);
        // Larger than the whole budget: kept while it is the newest.
        executables.set_table(ExecutableId(2), Arc::new(vec![0; MAX_TABLE_BYTES * 2]));
        assert!(has_bytes(&executables, 2) && !has_bytes(&executables, 3));
    }

    #[test]
    fn executables_named_longest_ago_are_forgotten() {
        let mut executables = Executables::default();
        for id in 0..=MAX_EXECUTABLES as u32 {
            announce(&mut executables, id);
        }
        assert_eq!(executables.len(), MAX_EXECUTABLES - MAX_EXECUTABLES / 8 + 1);
        assert!(executables.get(VDSO).is_some());
        assert!(executables.get(ExecutableId(1)).is_none());
    }

    #[test]
    fn a_wish_for_the_table_is_not_forgotten_by_a_later_announcement() {
        let mut executables = Executables::default();
        for table_wanted in [true, false] {
            executables.announce(wire::Executable {
                id: ExecutableId(1),
                table_wanted,
                ..wire::Executable::default()
            });
        }
        assert!(
            executables
                .get(ExecutableId(1))
                .is_some_and(|found| found.wanted)
        );
    }
}
