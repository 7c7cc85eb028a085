//! Owns the executables that are known, within a budget of bytes and a number of files. What was used longest ago is
//! shrunk to its headers first, and forgotten only when there are too many files.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::executable::Executable;

/// Executables whose files are kept open.
pub const MAX_EXECUTABLES: usize = 1024;

/// Number by which a caller knows an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecutableKey(pub u64);

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Executables that were asked for and there.
    pub hits: u64,
    /// Executables that were asked for and not there.
    pub misses: u64,
    /// Executables shrunk to their headers.
    pub shed: u64,
    /// Executables forgotten.
    pub evicted: u64,
}

#[derive(Debug)]
struct Slot {
    executable: Executable,
    used: u64,
}

/// The executables.
#[derive(Debug)]
pub struct Cache {
    slots: HashMap<ExecutableKey, Slot, RandomState>,
    budget: usize,
    clock: u64,
    counts: CacheCounts,
}

impl Cache {
    /// Keeps at most `budget` bytes after each [`Cache::trim`].
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self {
            slots: HashMap::default(),
            budget,
            clock: 0,
            counts: CacheCounts::default(),
        }
    }

    /// Whether the executable is there.
    #[must_use]
    pub fn contains(&self, key: ExecutableKey) -> bool {
        self.slots.contains_key(&key)
    }

    /// Takes an executable; where there are too many, the one used longest ago goes.
    pub fn insert(&mut self, key: ExecutableKey, executable: Executable) -> &mut Executable {
        if !self.slots.contains_key(&key) && self.slots.len() >= MAX_EXECUTABLES {
            let oldest = self.slots.iter().min_by_key(|(_, slot)| slot.used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.slots.remove(&oldest);
                self.counts.evicted += 1;
            }
        }
        self.clock += 1;
        let used = self.clock;
        &mut self
            .slots
            .entry(key)
            .insert_entry(Slot { executable, used })
            .into_mut()
            .executable
    }

    /// The executable, now used.
    pub fn get(&mut self, key: ExecutableKey) -> Option<&mut Executable> {
        self.clock += 1;
        let Some(slot) = self.slots.get_mut(&key) else {
            self.counts.misses += 1;
            return None;
        };
        self.counts.hits += 1;
        slot.used = self.clock;
        Some(&mut slot.executable)
    }

    /// Forgets an executable.
    pub fn remove(&mut self, key: ExecutableKey) {
        self.slots.remove(&key);
    }

    /// Grants each executable its work of a window.
    pub fn begin_window(&mut self) {
        for slot in self.slots.values_mut() {
            slot.executable.begin_window();
        }
    }

    /// Keeps the budget: shrinks what was used longest ago until everything fits.
    pub fn trim(&mut self) {
        let mut total = 0;
        let mut by_age = Vec::with_capacity(self.slots.len());
        for (key, slot) in &self.slots {
            let bytes = slot.executable.heap_bytes();
            total += bytes;
            by_age.push((slot.used, *key, bytes));
        }
        by_age.sort_unstable();
        for (_, key, bytes) in by_age {
            if total <= self.budget {
                return;
            }
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.executable.shed();
                total = total - bytes + slot.executable.heap_bytes();
                self.counts.shed += 1;
            }
        }
    }

    /// Bytes of memory this holds, estimated.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.slots
            .values()
            .map(|slot| slot.executable.heap_bytes())
            .sum()
    }

    /// How many executables there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How often what happened.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_bytes::FileBytes;

    fn own() -> Executable {
        let file = std::fs::File::open("/proc/self/exe").expect("own executable");
        Executable::read(FileBytes::of_file(file).expect("regular file")).expect("ELF")
    }

    #[test]
    fn what_was_used_longest_ago_is_shrunk_first() {
        let text = own().elf().section(b".text").expect(".text").address;
        let mut cache = Cache::new(usize::MAX);
        for key in 0..3 {
            cache.insert(ExecutableKey(key), own());
        }
        for key in [0, 2, 1] {
            let executable = cache.get(ExecutableKey(key)).expect("inserted");
            assert!(!executable.frames(text + 0x100).names.is_empty());
        }
        let each = cache.heap_bytes() / 3;
        cache.budget = each * 5 / 2;
        cache.trim();
        assert_eq!(cache.counts().shed, 1);
        assert!(cache.heap_bytes() <= cache.budget);
        let bytes = |key| cache.slots[&ExecutableKey(key)].executable.heap_bytes();
        assert!(bytes(0) < bytes(1) && bytes(0) < bytes(2));
    }

    #[test]
    fn the_number_of_open_files_is_bounded() {
        let mut cache = Cache::new(usize::MAX);
        let bytes = FileBytes::of_file(std::fs::File::open("/proc/self/exe").expect("open"));
        let header = bytes
            .expect("file")
            .read(0, 64)
            .expect("header")
            .into_owned();
        let mut header: Vec<u8> = header;
        header[0x28..0x40].fill(0);
        header[0x20..0x28].fill(0);
        for key in 0..MAX_EXECUTABLES as u64 + 7 {
            let file = FileBytes::of_memory(header.clone());
            cache.insert(ExecutableKey(key), Executable::read(file).expect("ELF"));
        }
        assert_eq!(cache.len(), MAX_EXECUTABLES);
        assert_eq!(cache.counts().evicted, 7);
        assert!(!cache.contains(ExecutableKey(6)));
    }
}
