//! A program image: what one process has mapped since its exec, and which of it the others know.

use std::rc::Rc;

use ipc_proto::ids::{ExecutableId, ImageId};
use ipc_proto::sample::{Backing, Mapping};

use crate::executables::{Executables, VDSO};
use crate::sideband::NewMapping;

/// Mappings that one image may have: a process that maps more is walked as far as those reach.
const MAX_MAPPINGS: usize = 1 << 16;
/// Mappings no longer in place that one image may have had beside as many as it has.
const MAX_GONE: usize = 1 << 12;

/// What a report of the kernel does to the mappings that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing: they are known.
    None,
    /// There is more.
    Added,
    /// Other code stands at these addresses now: who walked there by the rows of what was there went astray.
    Replaced { start: u64, end: u64 },
}

/// Executable mappings: all there were, in the order they came, and those still in place, by address.
#[derive(Clone, Debug, Default)]
pub(crate) struct MappingList {
    /// Named by index in messages: never reordered.
    pub(crate) all: Vec<Mapping>,
    /// Indexes into `all` by ascending start; no two overlap.
    live: Vec<u32>,
}

impl MappingList {
    /// The live mapping around `address`.
    pub(crate) fn find(&self, address: u64) -> Option<(u32, &Mapping)> {
        let behind = self
            .live
            .partition_point(|&index| self.start_of(index) <= address);
        let index = *self.live.get(behind.checked_sub(1)?)?;
        let mapping = self.all.get(index as usize)?;
        (address < mapping.end).then_some((index, mapping))
    }

    /// The live mappings by ascending start.
    pub(crate) fn live(&self) -> impl ExactSizeIterator<Item = &Mapping> {
        self.live.iter().map(|&index| &self.all[index as usize])
    }

    /// Whether most of what it names is no longer in place, as where a library is opened and closed for each request.
    pub(crate) fn is_worn(&self) -> bool {
        self.all.len() >= MAX_GONE + 2 * self.live.len()
    }

    /// What is in place, under new indexes.
    pub(crate) fn in_place(&self) -> Self {
        Self {
            all: self.live().cloned().collect(),
            live: (0..self.live.len() as u32).collect(),
        }
    }

    fn start_of(&self, index: u32) -> u64 {
        self.all
            .get(index as usize)
            .map_or(u64::MAX, |mapping| mapping.start)
    }

    /// Whether a mapping lies within a live one of the program's own file, the first that was mapped.
    fn is_within_program(&self, new: &Mapping) -> bool {
        let file = Backing::File as u8;
        let Some(program) = self.all.iter().find(|mapping| mapping.backing == file) else {
            return false;
        };
        self.find(new.start).is_some_and(|(_, old)| {
            old.backing == file && old.executable == program.executable && new.end <= old.end
        })
    }

    /// Adds a mapping; those it covers end where it starts.
    fn add(&mut self, mut new: Mapping) -> Change {
        if new.backing == Backing::Anonymous as u8 {
            if self.is_within_program(&new) {
                // A program that moved its own text to huge pages: the code is still the file's. (A library's text
                // may have been unmapped meanwhile, which the kernel does not report, so there it is not believed.)
                return Change::None;
            }
            // Generated code grows piece by piece and changes its protection often: one mapping for all of it.
            loop {
                let touching = self.live().find(|old| {
                    old.backing == Backing::Anonymous as u8
                        && old.start <= new.end
                        && new.start <= old.end
                        && (old.start < new.start || old.end > new.end)
                });
                let Some(old) = touching else { break };
                if old.start <= new.start && old.end >= new.end {
                    return Change::None;
                }
                new.start = new.start.min(old.start);
                new.end = new.end.max(old.end);
            }
            new.file_offset = 0;
        }
        if self.live().any(|old| *old == new)
            || self.live.len() >= MAX_MAPPINGS
            || new.end <= new.start
        {
            return Change::None;
        }
        let mut change = Change::Added;
        let mut pieces = Vec::new();
        self.live.retain(|&index| {
            let Some(old) = self.all.get(index as usize) else {
                return false;
            };
            let overlaps = old.start < new.end && new.start < old.end;
            if overlaps {
                if !is_same_code(old, &new) {
                    let (start, end) = (new.start, new.end);
                    change = Change::Replaced { start, end };
                }
                if old.start < new.start {
                    pieces.push(Mapping {
                        end: new.start,
                        ..old.clone()
                    });
                }
                if old.end > new.end {
                    let file_offset = old.file_offset.wrapping_add(new.end - old.start);
                    pieces.push(Mapping {
                        start: new.end,
                        file_offset,
                        ..old.clone()
                    });
                }
            }
            !overlaps
        });
        pieces.push(new);
        for piece in pieces {
            let index = self.all.len() as u32;
            let at = self
                .live
                .partition_point(|&other| self.start_of(other) < piece.start);
            self.all.push(piece);
            self.live.insert(at, index);
        }
        change
    }
}

/// Whether two mappings have the same code at the same addresses.
fn is_same_code(one: &Mapping, other: &Mapping) -> bool {
    let bias = |mapping: &Mapping| mapping.start.wrapping_sub(mapping.file_offset);
    let is_generated = one.backing == Backing::Anonymous as u8;
    one.backing == other.backing
        && one.executable == other.executable
        && (is_generated || bias(one) == bias(other))
}

/// One image.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) id: ImageId,
    pub(crate) pid: u32,
    /// CLOCK_BOOTTIME, nanoseconds; 0 until a sample told it.
    pub(crate) start_time: u64,
    /// Which exec of the process; told by samples.
    pub(crate) exec_id: u32,
    pub(crate) comm: Vec<u8>,
    pub(crate) parent: u32,
    /// Shared with the process it was forked from until either maps something.
    pub(crate) mappings: Rc<MappingList>,
    /// Mappings that the symbolizer knows; `None`: not even the image.
    pub(crate) announced: Option<usize>,
    /// Whether the current window has a sample of it.
    pub(crate) sampled: bool,
}

impl Image {
    /// An image of which nobody has heard.
    pub(crate) fn new(id: ImageId, pid: u32, comm: Vec<u8>, parent: u32) -> Self {
        Self {
            id,
            pid,
            start_time: 0,
            exec_id: 0,
            comm,
            parent,
            mappings: Rc::default(),
            announced: None,
            sampled: false,
        }
    }

    /// Adds what the kernel reported.
    pub(crate) fn map(&mut self, mapping: &NewMapping, executables: &mut Executables) -> Change {
        let (backing, executable) = backing(mapping, executables);
        let new = Mapping {
            start: mapping.start,
            end: mapping.end,
            file_offset: mapping.file_offset,
            backing: backing as u8,
            executable,
        };
        Rc::make_mut(&mut self.mappings).add(new)
    }
}

/// What backs a mapping, by the names that the kernel gives to what is no file (fs/proc/task_mmu.c,
/// kernel/events/core.c: `perf_event_mmap_event`).
fn backing(mapping: &NewMapping, executables: &mut Executables) -> (Backing, ExecutableId) {
    let path = mapping.path.as_slice();
    let has_identity = mapping.inode != 0 || !mapping.build_id.is_empty();
    if path == b"[vdso]" {
        (Backing::Vdso, VDSO)
    } else if has_identity && !path.starts_with(b"//anon") && !path.starts_with(b"/dev/zero") {
        (Backing::File, executables.identify(mapping))
    } else if path.starts_with(b"[")
        && path != b"[heap]"
        && path != b"[stack]"
        && !path.starts_with(b"[anon")
    {
        (Backing::Special, VDSO)
    } else {
        (Backing::Anonymous, VDSO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64, backing: Backing) -> Mapping {
        Mapping {
            start,
            end,
            file_offset: start,
            backing: backing as u8,
            executable: ExecutableId(1),
        }
    }

    fn live(list: &MappingList) -> Vec<(u64, u64)> {
        list.live()
            .map(|mapping| (mapping.start, mapping.end))
            .collect()
    }

    #[test]
    fn a_new_mapping_takes_the_place_of_what_it_covers() {
        let mut list = MappingList::default();
        assert_eq!(list.add(mapping(100, 200, Backing::File)), Change::Added);
        let again = list.add(mapping(100, 200, Backing::File));
        assert_eq!(again, Change::None);
        let (start, end) = (140, 160);
        assert_eq!(
            list.add(mapping(start, end, Backing::Special)),
            Change::Replaced { start, end }
        );
        assert_eq!(live(&list), [(100, 140), (140, 160), (160, 200)]);
        assert_eq!(
            list.find(170).map(|(_, found)| found.file_offset),
            Some(160)
        );
        assert_eq!(
            list.find(150)
                .map(|(index, _)| list.all[index as usize].backing),
            Some(Backing::Special as u8)
        );
        assert_eq!((list.find(99), list.find(200)), (None, None));
    }

    #[test]
    fn text_moved_to_huge_pages_is_still_the_programs() {
        let mut list = MappingList::default();
        list.add(mapping(100, 200, Backing::File));
        let mut library = mapping(300, 400, Backing::File);
        library.executable = ExecutableId(2);
        list.add(library);
        let mut add = |start, end| list.add(mapping(start, end, Backing::Anonymous));
        assert_eq!(add(120, 160), Change::None);
        assert_eq!(add(100, 200), Change::None);
        assert!(
            matches!(add(320, 360), Change::Replaced { .. }),
            "a library's"
        );
        assert!(
            matches!(add(190, 210), Change::Replaced { .. }),
            "more than the text"
        );
        assert_eq!(
            live(&list),
            [(100, 190), (190, 210), (300, 320), (320, 360), (360, 400)]
        );
    }

    #[test]
    fn generated_code_is_one_growing_mapping() {
        let mut list = MappingList::default();
        let mut add = |start, end| list.add(mapping(start, end, Backing::Anonymous));
        assert_eq!(add(100, 200), Change::Added);
        assert_eq!(add(200, 300), Change::Added);
        assert_eq!(add(150, 250), Change::None);
        assert_eq!(add(400, 500), Change::Added);
        assert_eq!(add(300, 400), Change::Added);
        assert_eq!(live(&list), [(100, 500)]);
    }

    #[test]
    fn other_code_at_the_same_addresses_is_told_from_the_same_code() {
        let mut list = MappingList::default();
        list.add(mapping(100, 200, Backing::File));
        assert_eq!(list.add(mapping(150, 250, Backing::File)), Change::Added);
        let moved = Mapping {
            file_offset: 7,
            ..mapping(150, 250, Backing::File)
        };
        let other = Mapping {
            executable: ExecutableId(2),
            ..mapping(90, 210, Backing::File)
        };
        for new in [moved, other] {
            let (start, end) = (new.start, new.end);
            assert_eq!(list.add(new), Change::Replaced { start, end });
        }
        assert_eq!(live(&list), [(90, 210), (210, 250)]);
    }
}
