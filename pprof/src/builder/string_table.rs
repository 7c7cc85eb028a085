//! The profile's strings, each once. Knows nothing of what they mean.

use foldhash::fast::RandomState;
use indexmap::IndexSet;

/// Strings in order of their first use; the first is "", as the format demands.
#[derive(Debug)]
pub(super) struct StringTable {
    strings: IndexSet<Box<str>, RandomState>,
}

impl Default for StringTable {
    fn default() -> Self {
        Self {
            strings: IndexSet::from_iter([Box::from("")]),
        }
    }
}

impl StringTable {
    /// The string's index.
    pub(super) fn intern(&mut self, text: &str) -> i64 {
        let index = match self.strings.get_index_of(text) {
            Some(index) => index,
            None => self.strings.insert_full(text.into()).0,
        };
        index as i64
    }

    pub(super) fn finish(self) -> Vec<String> {
        self.strings.into_iter().map(String::from).collect()
    }
}
