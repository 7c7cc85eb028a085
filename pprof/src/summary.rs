//! A profile in numbers: totals, functions by self and cumulative value, processes, what was lost. Formats nothing.

use std::collections::{BTreeMap, HashSet};

use indexmap::IndexMap;

use crate::frames::{FrameKind, Frames, Function, FunctionIndex, Owner};

/// How a drop stands in a profile's comments: `dropped: <cause>: <samples>`.
const DROPPED: &str = "dropped: ";

/// What a profile says, summed up. Values are in the unit of [`Frames::value`].
#[derive(Clone, Debug, Default)]
pub struct Summary<'f, 'a> {
    /// Value of all samples.
    pub total: i64,
    /// How many distinct stacks under distinct labels there are.
    pub stacks: usize,
    /// All functions, by their own value, the largest first.
    pub functions: Vec<FunctionValue<'f, 'a>>,
    /// All processes, the largest first; none when the profile names none.
    pub processes: Vec<ProcessValue<'a>>,
    /// Value of the stacks that were not walked to their root, by stop reason, the largest first.
    pub stopped: Vec<(&'f str, i64)>,
    /// Value of the stacks whose leaf has no name.
    pub unnamed: i64,
    /// Samples dropped, by cause.
    pub drops: BTreeMap<&'a str, u64>,
    /// The other remarks.
    pub comments: Vec<&'a str>,
}

/// A function's share.
#[derive(Clone, Copy, Debug)]
pub struct FunctionValue<'f, 'a> {
    /// The function.
    pub function: &'f Function<'a>,
    /// Value of the stacks that end in it.
    pub own: i64,
    /// Value of the stacks that it is in, however often.
    pub total: i64,
}

/// A process's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessValue<'a> {
    /// The process.
    pub owner: Owner<'a>,
    /// How many of its threads were seen; 0 when the profile names none.
    pub threads: usize,
    /// Value of its stacks.
    pub total: i64,
}

/// The processes of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedProcesses<'a> {
    /// Their name.
    pub comm: &'a str,
    /// How many there are.
    pub count: usize,
    /// The only one's id.
    pub pid: Option<i64>,
    /// How many of their threads were seen.
    pub threads: usize,
    /// Value of their stacks.
    pub total: i64,
}

impl<'f, 'a> Summary<'f, 'a> {
    /// Sums up a profile.
    #[must_use]
    pub fn new(frames: &'f Frames<'a>) -> Self {
        let mut summary = Self::default();
        let mut functions = FunctionValues::new(frames);
        let mut processes: IndexMap<Owner<'a>, (HashSet<i64>, i64)> = IndexMap::new();
        let mut stopped: BTreeMap<&'f str, i64> = BTreeMap::new();
        for sample in frames.samples() {
            let value = sample.value();
            add(&mut summary.total, value);
            summary.stacks += 1;
            let mut leaf = None;
            let stack = sample.stack().map(|frame| frame.function);
            functions.add(stack.inspect(|index| leaf = leaf.or(Some(*index))), value);
            let leaf = leaf.and_then(|leaf| frames.function(leaf));
            if leaf.is_some_and(|leaf| leaf.kind == FrameKind::Unnamed) {
                add(&mut summary.unnamed, value);
            }
            let root = sample.stack().next_back();
            let root = root.and_then(|root| frames.function(root.function));
            if let Some(reason) = root.and_then(Function::stop_reason) {
                add(stopped.entry(reason).or_default(), value);
            }
            let owner = sample.owner();
            if owner != Owner::default() {
                let (threads, total) = processes.entry(owner).or_default();
                threads.extend(sample.number("thread_id"));
                add(total, value);
            }
        }
        summary.functions = functions.finish();
        summary.processes = processes
            .into_iter()
            .map(|(owner, (threads, total))| ProcessValue {
                owner,
                threads: threads.len(),
                total,
            })
            .collect();
        summary
            .processes
            .sort_by(|left, right| (right.total, left.owner).cmp(&(left.total, right.owner)));
        summary.stopped = stopped.into_iter().collect();
        summary
            .stopped
            .sort_by_key(|(_, value)| std::cmp::Reverse(*value));
        for comment in frames.comments() {
            match drop_of(comment) {
                Some((cause, count)) => {
                    let dropped = summary.drops.entry(cause).or_default();
                    *dropped = dropped.saturating_add(count);
                }
                None => summary.comments.push(comment),
            }
        }
        summary
    }

    /// The functions by cumulative value, the largest first.
    #[must_use]
    pub fn functions_by_total(&self) -> Vec<FunctionValue<'f, 'a>> {
        let mut functions = self.functions.clone();
        functions.sort_by(|left, right| {
            let key = |value: &FunctionValue<'f, 'a>| (value.total, value.own);
            key(right)
                .cmp(&key(left))
                .then_with(|| left.function.cmp(right.function))
        });
        functions
    }

    /// The processes, those of one name together, the largest first.
    #[must_use]
    pub fn processes_by_name(&self) -> Vec<NamedProcesses<'a>> {
        let mut named: IndexMap<&'a str, NamedProcesses<'a>> = IndexMap::new();
        for process in &self.processes {
            let comm = process.owner.comm;
            let entry = named.entry(comm).or_insert(NamedProcesses {
                comm,
                count: 0,
                pid: process.owner.pid,
                threads: 0,
                total: 0,
            });
            entry.count += 1;
            entry.pid = entry.pid.filter(|_| entry.count == 1);
            entry.threads += process.threads;
            add(&mut entry.total, process.total);
        }
        let mut named: Vec<NamedProcesses<'a>> = named.into_values().collect();
        named.sort_by(|left, right| (right.total, left.comm).cmp(&(left.total, right.comm)));
        named
    }

    /// Value of all stacks that were not walked to their root.
    #[must_use]
    pub fn stopped_total(&self) -> i64 {
        self.stopped
            .iter()
            .fold(0, |sum, (_, value)| sum.saturating_add(*value))
    }
}

/// Own and cumulative value of each function.
struct FunctionValues<'f, 'a> {
    frames: &'f Frames<'a>,
    own: Vec<i64>,
    total: Vec<i64>,
    /// The last stack that each function was counted for: a recursive one is in it once.
    last_stack: Vec<usize>,
    stacks: usize,
}

impl<'f, 'a> FunctionValues<'f, 'a> {
    fn new(frames: &'f Frames<'a>) -> Self {
        let count = frames.functions().len();
        Self {
            frames,
            own: vec![0; count],
            total: vec![0; count],
            last_stack: vec![0; count],
            stacks: 0,
        }
    }

    /// Adds a stack, leaf first.
    fn add(&mut self, stack: impl Iterator<Item = FunctionIndex>, value: i64) {
        self.stacks += 1;
        for (depth, index) in stack.enumerate() {
            let index = index.0 as usize;
            if depth == 0 {
                add(&mut self.own[index], value);
            }
            if self.last_stack[index] != self.stacks {
                self.last_stack[index] = self.stacks;
                add(&mut self.total[index], value);
            }
        }
    }

    /// What stands for a stopped walk is no function.
    fn finish(self) -> Vec<FunctionValue<'f, 'a>> {
        let mut values: Vec<FunctionValue<'f, 'a>> = self
            .frames
            .functions()
            .zip(self.own.into_iter().zip(self.total))
            .filter(|(function, (own, total))| {
                function.kind != FrameKind::Stopped && (*own != 0 || *total != 0)
            })
            .map(|(function, (own, total))| FunctionValue {
                function,
                own,
                total,
            })
            .collect();
        values.sort_by(|left, right| {
            (right.own, right.total)
                .cmp(&(left.own, left.total))
                .then_with(|| left.function.cmp(right.function))
        });
        values
    }
}

fn add(sum: &mut i64, value: i64) {
    *sum = sum.saturating_add(value);
}

fn drop_of(comment: &str) -> Option<(&str, u64)> {
    let (cause, count) = comment.strip_prefix(DROPPED)?.rsplit_once(": ")?;
    Some((cause, count.trim().parse().ok()?))
}

#[cfg(test)]
mod tests;
