//! A label set, and the same while rules change it.

use std::collections::BTreeMap;

/// Names and values; a label of empty value is no label.
pub type Labels = BTreeMap<String, String>;

/// A label set under rules. Keeps the order that Prometheus' `labels.Builder` has, on which it depends who wins when
/// `labelmap` maps two labels to one name: first those that stood there from the beginning, by name, then those that
/// rules set, in the order of their setting.
#[derive(Clone, Debug)]
pub struct LabelSet {
    base: Vec<(String, String)>,
    set: Vec<(String, String)>,
}

impl LabelSet {
    /// Begins with `labels`.
    pub fn new<N, V>(labels: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        let labels = labels
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        let mut base: Vec<(String, String)> = labels.collect();
        base.sort();
        base.dedup_by(|later, earlier| later.0 == earlier.0);
        base.retain(|(_, value)| !value.is_empty());
        Self {
            base,
            set: Vec::new(),
        }
    }

    /// A label's value; empty when it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        let set = self.set.iter().find(|(known, _)| known == name);
        let found = set.or_else(|| {
            let index = self
                .base
                .binary_search_by(|(known, _)| known.as_str().cmp(name));
            index.ok().and_then(|index| self.base.get(index))
        });
        found.map_or("", |(_, value)| value.as_str())
    }

    /// Sets a label; an empty value removes it.
    pub fn set(&mut self, name: &str, value: String) {
        if value.is_empty() {
            return self.remove(name);
        }
        if let Some((_, known)) = self.set.iter_mut().find(|(known, _)| known == name) {
            *known = value;
        } else {
            self.set.push((name.to_owned(), value));
        }
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) {
        self.set.retain(|(known, _)| known != name);
        self.base.retain(|(known, _)| known != name);
    }

    /// All labels, in the order described above.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let overridden = |name: &str| self.set.iter().any(|(known, _)| known == name);
        let base = self.base.iter().filter(move |(name, _)| !overridden(name));
        base.chain(&self.set)
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All labels, by name.
    #[must_use]
    pub fn to_labels(&self) -> Labels {
        self.iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The labels that a series has after relabelling: those whose name does not begin with `__`.
    #[must_use]
    pub fn into_series(self) -> Labels {
        let mut labels = self.to_labels();
        labels.retain(|name, _| !name.starts_with("__"));
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_stands_before_what_was_there() {
        let mut labels = LabelSet::new([("b", "1"), ("a", ""), ("c", "3")]);
        assert_eq!((labels.get("a"), labels.get("b")), ("", "1"));
        labels.set("b", "2".into());
        assert_eq!(labels.get("b"), "2");
        labels.remove("b");
        assert_eq!(labels.get("b"), "");
        labels.set("__tmp", "x".into());
        labels.set("c", String::new());
        assert_eq!(labels.to_labels().len(), 1);
        assert!(labels.into_series().is_empty());
    }
}
