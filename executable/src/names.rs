//! Owns the names of one executable: each distinct string once, referred to by a number. Names come from foreign
//! files: they leave here as clean, bounded UTF-8.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// Bytes of the longest name that is kept; longer ones are cut and end in `…`.
pub const MAX_NAME: usize = 4000;

/// Number of a name within its [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId(pub u32);

/// Interned names.
#[derive(Debug, Default)]
pub struct Names {
    texts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, NameId, RandomState>,
    bytes: usize,
}

impl Names {
    /// The number of a name; a new one is kept in its clean form.
    pub fn intern(&mut self, name: &str) -> NameId {
        if let Some(id) = self.numbers.get(name) {
            return *id;
        }
        let text: Arc<str> = clean(name).into();
        if let Some(id) = self.numbers.get(&text) {
            return *id;
        }
        let id = NameId(u32::try_from(self.texts.len()).unwrap_or(u32::MAX));
        self.bytes = self.bytes.saturating_add(text.len() + 80);
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, id);
        id
    }

    /// The name with this number; empty for a number of another executable.
    #[must_use]
    pub fn get(&self, id: NameId) -> &str {
        self.texts.get(id.0 as usize).map_or("", |text| text)
    }

    /// How many there are; their numbers are smaller than this.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Bytes of memory this holds, estimated.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Replaces control characters and cuts what is too long: names end up in terminals, logs and pages.
#[must_use]
pub fn clean(name: &str) -> String {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let (kept, cut) = name.split_at(end);
    let mut text: String = kept
        .chars()
        .map(|character| {
            if character.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            }
        })
        .collect();
    if !cut.is_empty() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_have_one_number() {
        let mut names = Names::default();
        let a = names.intern("a");
        let b = names.intern("b");
        assert_ne!(a, b);
        assert_eq!(names.intern("a"), a);
        assert_eq!((names.get(a), names.get(b)), ("a", "b"));
        assert_eq!(names.get(NameId(9)), "");
    }

    #[test]
    fn names_are_clean_and_bounded() {
        let mut names = Names::default();
        let id = names.intern("a\u{1b}[31m\n");
        assert_eq!(names.get(id), "a\u{fffd}[31m\u{fffd}");
        assert_eq!(names.intern("a\u{1b}[31m\n"), id);
        let long = names.intern(&"ü".repeat(3000));
        assert!(names.get(long).len() <= MAX_NAME + 3);
        assert!(names.get(long).ends_with("ü…"));
    }
}
