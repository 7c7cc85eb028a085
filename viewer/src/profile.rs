//! One window's samples in the form the views need: distinct frames, label sets, counted stacks. Owns no file format.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// What a frame's code is, which gives it its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// The whole view.
    Root = 0,
    /// A process, above its stacks.
    Process = 1,
    /// A thread, above its stacks.
    Thread = 2,
    /// Kernel code.
    Kernel = 3,
    /// Native code of a process.
    Native = 4,
    /// A function of an interpreted or just-in-time compiled language.
    Interpreter = 5,
    /// Code whose function has no name.
    Unnamed = 6,
    /// No code: says why the walk ended before the thread's root.
    Stopped = 7,
}

/// One level of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Frame {
    /// Function name as text to show; anything can stand in it.
    pub(crate) name: Rc<str>,
    /// What the code is.
    pub(crate) kind: FrameKind,
    /// File name of the executable, or empty.
    pub(crate) module: Rc<str>,
    /// Source file; where a walk stopped, what its reason means; or empty.
    pub(crate) file: Rc<str>,
}

/// The labels that some samples share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    pairs: Vec<(Rc<str>, Rc<str>)>,
}

impl Labels {
    /// Labels by name and value; numbers as decimal text.
    pub(crate) fn new(pairs: Vec<(Rc<str>, Rc<str>)>) -> Self {
        Self { pairs }
    }

    /// The value of a label.
    pub(crate) fn get(&self, name: &str) -> Option<&Rc<str>> {
        self.pairs
            .iter()
            .find(|(label, _)| label.as_ref() == name)
            .map(|(_, value)| value)
    }

    /// The value of a label as a selector wants it.
    pub(crate) fn value_of(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|value| Cow::Borrowed(value.as_ref()))
    }
}

/// Equal stacks under equal labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    labels: u32,
    first_frame: u32,
    end_frame: u32,
    count: u64,
}

/// A window's samples.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    /// The window's start since 1970 UTC.
    pub(crate) start: Duration,
    /// How long the window was.
    pub(crate) duration: Duration,
    /// CPU time that one sample stands for.
    pub(crate) period: Duration,
    /// Why code of the window has no name, in the symbolizer's words with what to do about it, and how many frames that is.
    pub(crate) unnamed_because: Vec<(Rc<str>, u64)>,
    frames: Vec<Frame>,
    label_sets: Vec<Labels>,
    samples: Vec<Sample>,
    /// All stacks, root first, as indices of `frames`.
    stacks: Vec<u32>,
}

/// A stack as the views see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SampleRef<'a> {
    /// The labels.
    pub(crate) labels: &'a Labels,
    /// Which of the profile's label sets they are.
    pub(crate) label_set: usize,
    /// How often the stack was seen.
    pub(crate) count: u64,
    /// Root first, as indices for [`Profile::frame`].
    pub(crate) stack: &'a [u32],
}

/// What a window is made of, in samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The window's length.
    pub(crate) duration: Duration,
    /// CPU time that one sample stands for.
    pub(crate) period: Duration,
    /// All samples.
    pub(crate) samples: u64,
    /// Samples that hit kernel code.
    pub(crate) kernel: u64,
    /// Samples whose stack was not walked to the thread's root.
    pub(crate) stopped: u64,
    /// Samples whose innermost frame has no name.
    pub(crate) unnamed: u64,
}

impl Profile {
    /// A frame of a stack.
    pub(crate) fn frame(&self, index: u32) -> Option<&Frame> {
        self.frames.get(index as usize)
    }

    /// Number of distinct frames.
    pub(crate) fn frame_count(&self) -> usize {
        self.frames.len()
    }

    /// Number of distinct label sets.
    pub(crate) fn label_sets(&self) -> &[Labels] {
        &self.label_sets
    }

    /// The counted stacks.
    pub(crate) fn samples(&self) -> impl Iterator<Item = SampleRef<'_>> {
        self.samples.iter().filter_map(|sample| {
            Some(SampleRef {
                labels: self.label_sets.get(sample.labels as usize)?,
                label_set: sample.labels as usize,
                count: sample.count,
                stack: self
                    .stacks
                    .get(sample.first_frame as usize..sample.end_frame as usize)?,
            })
        })
    }

    /// What the window is made of.
    pub(crate) fn summary(&self) -> Summary {
        let mut summary = Summary {
            duration: self.duration,
            period: self.period,
            ..Summary::default()
        };
        for sample in self.samples() {
            let kind = |index: &u32| self.frame(*index).map(|frame| frame.kind);
            let leaf = sample.stack.last().and_then(kind);
            let is = |condition: bool| if condition { sample.count } else { 0 };
            summary.samples += sample.count;
            summary.kernel += is(leaf == Some(FrameKind::Kernel));
            summary.unnamed += is(leaf == Some(FrameKind::Unnamed));
            summary.stopped += is(sample
                .stack
                .iter()
                .any(|index| kind(index) == Some(FrameKind::Stopped)));
        }
        summary
    }

    /// Bytes of memory held, estimated from above.
    pub(crate) fn bytes(&self) -> usize {
        let strings: usize = self
            .frames
            .iter()
            .map(|frame| frame.name.len() + 64)
            .sum::<usize>()
            + self
                .label_sets
                .iter()
                .flat_map(|labels| &labels.pairs)
                .map(|(_, value)| value.len() + 64)
                .sum::<usize>();
        strings
            + self.frames.len() * size_of::<Frame>()
            + self.samples.len() * size_of::<Sample>()
            + self.stacks.len() * size_of::<u32>()
            + size_of::<Self>()
    }
}

/// Puts a [`Profile`] together.
#[derive(Debug, Default)]
pub(crate) struct ProfileBuilder {
    profile: Profile,
    frames: HashMap<Frame, u32>,
    strings: HashMap<Box<str>, Rc<str>>,
}

impl ProfileBuilder {
    /// An empty profile of a window.
    pub(crate) fn new(start: Duration, duration: Duration, period: Duration) -> Self {
        Self {
            profile: Profile {
                start,
                duration,
                period,
                ..Profile::default()
            },
            ..Self::default()
        }
    }

    /// The one shared copy of a text.
    pub(crate) fn string(&mut self, text: &str) -> Rc<str> {
        if let Some(shared) = self.strings.get(text) {
            return Rc::clone(shared);
        }
        let shared: Rc<str> = text.into();
        self.strings.insert(text.into(), Rc::clone(&shared));
        shared
    }

    /// The number of a frame.
    pub(crate) fn frame(&mut self, name: &str, kind: FrameKind, module: &str, file: &str) -> u32 {
        let frame = Frame {
            name: self.string(name),
            kind,
            module: self.string(module),
            file: self.string(file),
        };
        if let Some(index) = self.frames.get(&frame) {
            return *index;
        }
        let index = self.profile.frames.len() as u32;
        self.profile.frames.push(frame.clone());
        self.frames.insert(frame, index);
        index
    }

    /// The number of a label set.
    pub(crate) fn labels(&mut self, labels: Labels) -> u32 {
        self.profile.label_sets.push(labels);
        (self.profile.label_sets.len() - 1) as u32
    }

    /// Adds a stack, root first.
    pub(crate) fn sample(&mut self, labels: u32, stack: impl Iterator<Item = u32>, count: u64) {
        let first_frame = self.profile.stacks.len() as u32;
        self.profile.stacks.extend(stack);
        self.profile.samples.push(Sample {
            labels,
            first_frame,
            end_frame: self.profile.stacks.len() as u32,
            count,
        });
    }

    /// Notes why some frames have no name.
    pub(crate) fn unnamed_because(&mut self, reason: &str, frames: u64) {
        let reason = self.string(reason);
        self.profile.unnamed_because.push((reason, frames));
    }

    /// The profile.
    pub(crate) fn finish(self) -> Profile {
        self.profile
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A profile of `(pid, comm, thread, stack root first, count)`; a frame that starts with `k:` is the kernel's.
    pub(crate) fn profile(samples: &[(u32, &str, &str, &[&str], u64)]) -> Profile {
        let mut builder = ProfileBuilder::new(
            Duration::from_secs(1_795_524_300),
            Duration::from_secs(10),
            Duration::from_nanos(52_631_578),
        );
        for (pid, comm, thread, stack, count) in samples {
            let pairs = [
                ("pid", pid.to_string().as_str()),
                ("comm", comm),
                ("thread_name", thread),
            ]
            .into_iter()
            .map(|(name, value)| (builder.string(name), builder.string(value)))
            .collect();
            let labels = builder.labels(Labels::new(pairs));
            let stack: Vec<u32> = stack
                .iter()
                .map(|name| match name.split_once(':') {
                    Some(("k", name)) => builder.frame(name, FrameKind::Kernel, "[kernel]", ""),
                    Some(("u", name)) => builder.frame(name, FrameKind::Unnamed, "lib.so", ""),
                    Some(("s", name)) => builder.frame(name, FrameKind::Stopped, "", ""),
                    _ => builder.frame(name, FrameKind::Native, comm, ""),
                })
                .collect();
            builder.sample(labels, stack.into_iter(), *count);
        }
        builder.finish()
    }

    #[test]
    fn a_summary_counts_samples_by_what_they_hit() {
        let summary = profile(&[
            (1, "a", "a", &["main", "k:read"], 3),
            (1, "a", "a", &["main", "work"], 5),
            (2, "b", "b", &["s:[unwind stopped: no row]", "u:0x1"], 2),
        ])
        .summary();
        assert_eq!(summary.samples, 10);
        assert_eq!(summary.kernel, 3);
        assert_eq!(summary.unnamed, 2);
        assert_eq!(summary.stopped, 2);
        assert_eq!(summary.duration, Duration::from_secs(10));
    }

    #[test]
    fn equal_frames_are_kept_once() {
        let profile = profile(&[
            (1, "a", "a", &["main", "work"], 3),
            (1, "a", "b", &["main", "work"], 5),
        ]);
        assert_eq!(profile.frame_count(), 2);
        assert_eq!(profile.samples().count(), 2);
        assert!(profile.bytes() > 0);
    }
}
