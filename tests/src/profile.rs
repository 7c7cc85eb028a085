//! A pprof file seen as stacks: root first, with the process and thread that each belongs to. Reads through the `pprof`
//! crate; whether other people's tools read the same bytes is go_pprof.rs's question.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result};

use crate::chain::{Chain, Ends, Verdict, workload_function};

/// What stands at the root side of a stack that does not reach its thread's root: `[unwind stopped: REASON]`.
const STOPPED: &str = "[unwind stopped: ";

/// One frame, inlined ones included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub function: String,
    /// The mapping's file; empty when the frame has none.
    pub mapping: String,
    pub address: u64,
}

/// One pprof sample.
#[derive(Debug, Clone)]
pub struct Stack {
    pub pid: i64,
    pub thread_id: i64,
    pub comm: String,
    pub thread_name: String,
    /// All others, by name.
    pub labels: BTreeMap<String, String>,
    pub count: i64,
    /// Root first; without the pseudo frame of a stopped walk.
    pub frames: Vec<Frame>,
    /// Why the walk ended before the thread's root, if it did.
    pub stopped: Option<String>,
}

impl Stack {
    /// Whether any part of the stack is user space: only then can it reach a thread's root.
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.stopped.is_some() || self.frames.iter().any(|frame| !frame.is_kernel())
    }

    /// The workload's functions, root first.
    #[must_use]
    pub fn workload_functions(&self) -> Vec<&str> {
        self.frames
            .iter()
            .filter_map(|frame| workload_function(&frame.function))
            .collect()
    }

    /// The stack in one line, long repetitions shortened.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = match &self.stopped {
            Some(reason) => format!("[{reason}]"),
            None => String::from("root"),
        };
        let mut frames = self.frames.iter().peekable();
        while let Some(frame) = frames.next() {
            let mut times = 1;
            while frames
                .next_if(|next| next.function == frame.function && !frame.function.is_empty())
                .is_some()
            {
                times += 1;
            }
            let name = if frame.function.is_empty() {
                format!("{:#x} {}", frame.address, frame.mapping)
            } else {
                frame.function.clone()
            };
            text += &if times > 1 {
                format!(" > {name} x{times}")
            } else {
                format!(" > {name}")
            };
        }
        text
    }
}

impl Frame {
    /// Whether the frame is the kernel's: its mapping says so, or its address has the top bit set.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.mapping.starts_with("[kernel") || self.address >> 63 == 1
    }
}

/// All stacks of a profile.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    pub stacks: Vec<Stack>,
    /// Nanoseconds between two samples of one CPU.
    pub period: i64,
    pub duration_nanos: i64,
    pub time_nanos: i64,
}

impl Profile {
    /// Reads a file, gzip or plain.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).with_context(|| format!("{} is no profile", path.display()))
    }

    /// Decodes a pprof file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let raw = pprof::read(bytes)?;
        let text = |index: i64| {
            usize::try_from(index)
                .ok()
                .and_then(|index| raw.string_table.get(index))
                .cloned()
                .unwrap_or_default()
        };
        let functions: HashMap<u64, String> = raw
            .function
            .iter()
            .map(|function| (function.id, text(function.name)))
            .collect();
        let mappings: HashMap<u64, String> = raw
            .mapping
            .iter()
            .map(|mapping| (mapping.id, text(mapping.filename)))
            .collect();
        let locations: HashMap<u64, Vec<Frame>> = raw
            .location
            .iter()
            .map(|location| {
                let mapping = mappings
                    .get(&location.mapping_id)
                    .cloned()
                    .unwrap_or_default();
                let frame = |function: String| Frame {
                    function,
                    mapping: mapping.clone(),
                    address: location.address,
                };
                let mut frames: Vec<Frame> = location
                    .line
                    .iter()
                    .map(|line| {
                        frame(
                            functions
                                .get(&line.function_id)
                                .cloned()
                                .unwrap_or_default(),
                        )
                    })
                    .collect();
                if frames.is_empty() {
                    frames.push(frame(String::new()));
                }
                (location.id, frames)
            })
            .collect();
        let mut stacks = Vec::new();
        for sample in &raw.sample {
            let mut stack = Stack {
                pid: 0,
                thread_id: 0,
                comm: String::new(),
                thread_name: String::new(),
                labels: BTreeMap::new(),
                count: sample.value.first().copied().unwrap_or(0),
                frames: Vec::new(),
                stopped: None,
            };
            for label in &sample.label {
                match text(label.key).as_str() {
                    "pid" => stack.pid = label.num,
                    "thread_id" => stack.thread_id = label.num,
                    "comm" => stack.comm = text(label.str),
                    "thread_name" => stack.thread_name = text(label.str),
                    other => {
                        stack.labels.insert(other.to_owned(), text(label.str));
                    }
                }
            }
            // pprof has the leaf first, both among locations and among the lines of one.
            for id in sample.location_id.iter().rev() {
                let frames = locations
                    .get(id)
                    .with_context(|| format!("a sample names location {id}, which is not there"))?;
                for frame in frames.iter().rev() {
                    match stop_reason(&frame.function) {
                        Some(reason) => stack.stopped = Some(reason),
                        None => stack.frames.push(frame.clone()),
                    }
                }
            }
            stacks.push(stack);
        }
        Ok(Self {
            stacks,
            period: raw.period,
            duration_nanos: raw.duration_nanos,
            time_nanos: raw.time_nanos,
        })
    }

    /// Samples of the stacks that `select` picks.
    pub fn count(&self, mut select: impl FnMut(&Stack) -> bool) -> i64 {
        self.stacks
            .iter()
            .filter(|stack| select(stack))
            .map(|stack| stack.count)
            .sum()
    }

    /// Share of the user samples among those picked that reach their thread's root, and how many user samples there are.
    pub fn complete(&self, mut select: impl FnMut(&Stack) -> bool) -> (f64, i64) {
        let all = self.count(|stack| stack.is_user() && select(stack));
        let whole = self.count(|stack| stack.is_user() && stack.stopped.is_none() && select(stack));
        (whole as f64 / all.max(1) as f64, all)
    }

    /// User samples of each comm: all, and those that reach their root.
    #[must_use]
    pub fn by_comm(&self) -> BTreeMap<String, (i64, i64)> {
        let mut found: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for stack in self.stacks.iter().filter(|stack| stack.is_user()) {
            let entry = found.entry(stack.comm.clone()).or_default();
            entry.0 += stack.count;
            entry.1 += if stack.stopped.is_none() {
                stack.count
            } else {
                0
            };
        }
        found
    }

    /// Compares the stacks that `select` picks with what `chain` says they must be.
    pub fn judge(&self, chain: &Chain, mut select: impl FnMut(&Stack) -> bool) -> Judgement {
        let mut judgement = Judgement {
            whole: vec![0; chain.paths.len()],
            ..Judgement::default()
        };
        for stack in self
            .stacks
            .iter()
            .filter(|stack| stack.is_user() && select(stack))
        {
            judgement.all += stack.count;
            let functions = stack.workload_functions();
            let verdict = match (&stack.stopped, chain.ends) {
                (None, _) => chain.judge(&functions),
                (Some(_), Ends::MayBeCut) => chain.judge_cut(&functions),
                (Some(_), Ends::AtRoot) => Verdict::Wrong,
            };
            match verdict {
                Verdict::Right { path, whole } => {
                    judgement.right += stack.count;
                    judgement.whole[path] += if whole { stack.count } else { 0 };
                }
                Verdict::Outside => judgement.right += stack.count,
                Verdict::Wrong => *judgement.wrong.entry(stack.shown()).or_default() += stack.count,
            }
        }
        judgement
    }
}

/// How the stacks of one thread compare with its chain.
#[derive(Debug, Default)]
pub struct Judgement {
    /// User samples judged.
    pub all: i64,
    pub right: i64,
    /// For each path: samples that go down to its last function.
    pub whole: Vec<i64>,
    /// The stacks that were wrong, with their samples.
    pub wrong: BTreeMap<String, i64>,
}

impl Judgement {
    /// Share of right samples; 0 without any.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.right as f64 / self.all.max(1) as f64
    }

    /// The most frequent wrong stacks, a line each.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut wrong: Vec<_> = self.wrong.iter().collect();
        wrong.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        wrong
            .iter()
            .take(3)
            .map(|(stack, count)| format!("\n    {count} x {stack:.600}"))
            .collect()
    }
}

/// Splits a function name that stands for a stopped walk from the real ones.
fn stop_reason(function: &str) -> Option<String> {
    function
        .strip_prefix(STOPPED)
        .map(|rest| rest.trim_end_matches(']').to_owned())
}
