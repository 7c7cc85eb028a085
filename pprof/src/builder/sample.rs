//! The profile's samples: counted stacks under their labels.

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use super::location::LocationId;
use super::string_table::StringTable;
use crate::proto;

/// Whose stack a sample is. What is empty is left out of the profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Labels<'a> {
    /// Process, label `pid`.
    pub pid: Option<u32>,
    /// Thread, label `thread_id`.
    pub thread_id: Option<u32>,
    /// The process's name, label `comm`.
    pub comm: &'a str,
    /// The thread's name, label `thread_name`.
    pub thread_name: &'a str,
    /// Any others: name and text.
    pub others: &'a [(&'a str, &'a str)],
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    stack: Box<[u64]>,
    labels: Box<[proto::Label]>,
}

#[derive(Debug, Default)]
pub(super) struct SampleTable {
    counts: IndexMap<Key, i64, RandomState>,
}

impl SampleTable {
    pub(super) fn count(
        &mut self,
        stack: &[LocationId],
        labels: &Labels<'_>,
        count: u64,
        strings: &mut StringTable,
    ) {
        if count == 0 {
            return;
        }
        let key = Key {
            stack: stack.iter().map(|location| location.0).collect(),
            labels: labels.encode(strings),
        };
        let counted = self.counts.entry(key).or_default();
        *counted = counted.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    pub(super) fn finish(self) -> Vec<proto::Sample> {
        self.counts
            .into_iter()
            .map(|(key, count)| proto::Sample {
                location_id: key.stack.into_vec(),
                value: vec![count],
                label: key.labels.into_vec(),
            })
            .collect()
    }
}

impl Labels<'_> {
    fn encode(&self, strings: &mut StringTable) -> Box<[proto::Label]> {
        let mut labels = Vec::with_capacity(4 + self.others.len());
        for (key, number) in [("pid", self.pid), ("thread_id", self.thread_id)] {
            labels.extend(number.map(|number| proto::Label {
                key: strings.intern(key),
                num: number.into(),
                ..proto::Label::default()
            }));
        }
        let own = [("comm", self.comm), ("thread_name", self.thread_name)];
        for (key, text) in own.iter().chain(self.others) {
            if !key.is_empty() && !text.is_empty() {
                labels.push(proto::Label {
                    key: strings.intern(key),
                    str: strings.intern(text),
                    ..proto::Label::default()
                });
            }
        }
        labels.into()
    }
}
