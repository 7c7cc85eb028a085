//! Windows already read, kept while they fit a number of bytes; the one not used for longest goes first.

use std::collections::HashMap;
use std::rc::Rc;

use crate::profile::Profile;
use crate::windows::WindowId;

/// Bytes of profiles kept. The whole of Leadsman is to stay below 60 MB.
pub(crate) const CACHE_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug)]
struct Entry {
    profile: Rc<Profile>,
    bytes: usize,
    used: u64,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct ProfileCache {
    entries: HashMap<WindowId, Entry>,
    budget: usize,
    bytes: usize,
    clock: u64,
}

impl ProfileCache {
    /// An empty cache of at most `budget` bytes.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            entries: HashMap::new(),
            budget,
            bytes: 0,
            clock: 0,
        }
    }

    /// A window's profile, if it is still there.
    pub(crate) fn get(&mut self, id: WindowId) -> Option<Rc<Profile>> {
        self.clock += 1;
        let entry = self.entries.get_mut(&id)?;
        entry.used = self.clock;
        Some(Rc::clone(&entry.profile))
    }

    /// Keeps a window's profile, unless it alone is over the budget.
    pub(crate) fn insert(&mut self, id: WindowId, profile: Rc<Profile>) {
        let bytes = profile.bytes();
        if bytes > self.budget {
            return;
        }
        self.remove(id);
        while self.bytes + bytes > self.budget {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            match oldest.map(|(id, _)| *id) {
                Some(oldest) => self.remove(oldest),
                None => break,
            }
        }
        self.clock += 1;
        self.bytes += bytes;
        self.entries.insert(
            id,
            Entry {
                profile,
                bytes,
                used: self.clock,
            },
        );
    }

    fn remove(&mut self, id: WindowId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.bytes -= entry.bytes;
        }
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::tests::profile;

    fn id(second: u32) -> WindowId {
        WindowId::parse(&format!("20261124T1245{second:02}.000Z")).expect("an id")
    }

    #[test]
    fn the_least_used_window_goes_first() {
        let window = Rc::new(profile(&[(1, "a", "a", &["main"], 1)]));
        let mut cache = ProfileCache::new(window.bytes() * 2 + window.bytes() / 2);
        cache.insert(id(1), Rc::clone(&window));
        cache.insert(id(2), Rc::clone(&window));
        assert!(cache.get(id(1)).is_some());
        cache.insert(id(3), Rc::clone(&window));
        assert!(cache.get(id(2)).is_none());
        assert!(cache.get(id(1)).is_some());
        assert!(cache.get(id(3)).is_some());
        assert_eq!(cache.bytes(), window.bytes() * 2);
        cache.insert(id(3), Rc::clone(&window));
        assert_eq!(cache.bytes(), window.bytes() * 2, "replaced, not added");
    }

    #[test]
    fn a_window_over_the_budget_is_not_kept() {
        let window = Rc::new(profile(&[(1, "a", "a", &["main"], 1)]));
        let mut cache = ProfileCache::new(window.bytes() - 1);
        cache.insert(id(1), window);
        assert_eq!((cache.get(id(1)).is_none(), cache.bytes()), (true, 0));
    }
}
