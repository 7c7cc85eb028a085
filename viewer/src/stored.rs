//! A window's file as pprof: read into the views' form, and written again with only the samples that are wanted. Anything may
//! stand in the file: references that lead nowhere count as nothing.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use leadsman_ebpf::stop::StopReason;
use pprof::frames::{self, Frames, Function, FunctionIndex, LabelValue};
use pprof::proto;
use pprof::{Builder, Line, LocationId, Mapping, Meta};
use thiserror::Error;

use crate::profile::{FrameKind, Labels, Profile, ProfileBuilder};
use crate::selector::Selector;

/// Why a window can't be shown.
#[derive(Debug, Error)]
pub(crate) enum StoredError {
    /// Its file can't be read.
    #[error("{0}")]
    Unreadable(String),
    /// Its file is no profile.
    #[error(transparent)]
    Malformed(#[from] pprof::ReadError),
}

/// A window's profile.
#[derive(Debug)]
pub(crate) struct Stored {
    profile: proto::Profile,
    locations: HashMap<u64, usize>,
    functions: HashMap<u64, usize>,
    mappings: HashMap<u64, usize>,
    /// Which of a sample's values counts samples.
    value: usize,
}

impl Stored {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// [`StoredError::Malformed`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoredError> {
        Ok(Self::new(pprof::read(bytes)?))
    }

    fn new(profile: proto::Profile) -> Self {
        fn places(ids: impl Iterator<Item = u64>) -> HashMap<u64, usize> {
            ids.enumerate().map(|(place, id)| (id, place)).collect()
        }
        let value = profile
            .sample_type
            .iter()
            .position(|of| text(&profile, of.r#type) == "samples")
            .unwrap_or(0);
        Self {
            locations: places(profile.location.iter().map(|location| location.id)),
            functions: places(profile.function.iter().map(|function| function.id)),
            mappings: places(profile.mapping.iter().map(|mapping| mapping.id)),
            value,
            profile,
        }
    }

    fn location(&self, id: u64) -> Option<&proto::Location> {
        self.profile.location.get(*self.locations.get(&id)?)
    }

    fn function(&self, id: u64) -> Option<&proto::Function> {
        self.profile.function.get(*self.functions.get(&id)?)
    }

    fn mapping(&self, id: u64) -> Option<&proto::Mapping> {
        self.profile.mapping.get(*self.mappings.get(&id)?)
    }

    fn text(&self, index: i64) -> &str {
        text(&self.profile, index)
    }

    fn count(&self, sample: &proto::Sample) -> u64 {
        sample
            .value
            .get(self.value)
            .and_then(|value| u64::try_from(*value).ok())
            .unwrap_or(0)
    }

    /// A label's value as text.
    fn label_text(&self, label: &proto::Label) -> Cow<'_, str> {
        if label.str == 0 {
            Cow::Owned(label.num.to_string())
        } else {
            Cow::Borrowed(self.text(label.str))
        }
    }

    fn duration(&self) -> Duration {
        nanos(self.profile.duration_nanos)
    }

    /// The samples in the views' form.
    pub(crate) fn window(&self) -> Profile {
        let period = nanos(self.profile.period);
        let mut builder =
            ProfileBuilder::new(nanos(self.profile.time_nanos), self.duration(), period);
        let stacks = match frames::values(&self.profile).nth(self.value) {
            Some(value) => Frames::with_value(&self.profile, value),
            None => Frames::new(&self.profile),
        };
        let mut label_sets: HashMap<Vec<(&str, LabelValue<'_>)>, u32> = HashMap::new();
        let mut frames: HashMap<(FunctionIndex, &str), u32> = HashMap::new();
        for sample in stacks.samples() {
            let labels = *label_sets
                .entry(sample.labels().collect())
                .or_insert_with_key(|labels| {
                    let labels = labels_of(labels, &mut builder);
                    builder.labels(labels)
                });
            let mut stack: Vec<u32> = Vec::new();
            for frame in sample.stack().rev() {
                let Some(function) = stacks.function(frame.function) else {
                    continue;
                };
                let number = *frames
                    .entry((frame.function, frame.file))
                    .or_insert_with(|| add_frame(function, frame.file, &mut builder));
                // Nameless callers and callees of one module are one box: how many there are says nothing.
                let unnamed = function.kind == frames::FrameKind::Unnamed;
                if !(unnamed && stack.last() == Some(&number)) {
                    stack.push(number);
                }
            }
            let count = u64::try_from(sample.value()).unwrap_or(0);
            builder.sample(labels, stack.into_iter(), count);
        }
        for (reason, frames) in stacks.comments().filter_map(unnamed_because) {
            builder.unnamed_because(reason, frames);
        }
        builder.finish()
    }

    fn takes(&self, sample: &proto::Sample, selector: &Selector) -> bool {
        selector.takes(|name| {
            sample
                .label
                .iter()
                .find(|label| self.text(label.key) == name)
                .map(|label| self.label_text(label))
        })
    }
}

fn text(profile: &proto::Profile, index: i64) -> &str {
    usize::try_from(index)
        .ok()
        .and_then(|index| profile.string_table.get(index))
        .map_or("", String::as_str)
}

fn nanos(count: i64) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(0))
}

/// Reads the shipper's remark `unnamed: N frames: reason`.
fn unnamed_because(comment: &str) -> Option<(&str, u64)> {
    let (count, reason) = comment.strip_prefix("unnamed: ")?.split_once(" frames: ")?;
    Some((reason, count.parse().ok()?))
}

fn labels_of(labels: &[(&str, LabelValue<'_>)], builder: &mut ProfileBuilder) -> Labels {
    let pairs = labels
        .iter()
        .map(|(name, value)| {
            let value = match value {
                LabelValue::Text(text) => builder.string(text),
                LabelValue::Number(number) => builder.string(&number.to_string()),
            };
            (builder.string(name), value)
        })
        .collect();
    Labels::new(pairs)
}

fn add_frame(function: &Function<'_>, file: &str, builder: &mut ProfileBuilder) -> u32 {
    let module = function.module();
    let kind = match function.kind {
        frames::FrameKind::Kernel => FrameKind::Kernel,
        frames::FrameKind::Native => FrameKind::Native,
        frames::FrameKind::Generated => FrameKind::Interpreter,
        frames::FrameKind::Stopped => {
            let reason = function.stop_reason().and_then(StopReason::from_name);
            let explanation = reason.map_or("", StopReason::explanation);
            return builder.frame(&function.name, FrameKind::Stopped, "", explanation);
        }
        // All nameless code of a module is one frame: its addresses would scatter what belongs together.
        frames::FrameKind::Unnamed => {
            let name = match module {
                "" => "[unknown code]".to_owned(),
                module if module.starts_with('[') => module.to_owned(),
                module => format!("[{module}]"),
            };
            return builder.frame(&name, FrameKind::Unnamed, module, "");
        }
    };
    builder.frame(&function.name, kind, module, file)
}

/// The wanted samples of some windows as one profile.
#[derive(Debug, Default)]
pub(crate) struct Export {
    /// The only window's file, if all of it is wanted.
    whole: Option<Vec<u8>>,
    builder: Option<Builder>,
    duration: Duration,
}

impl Export {
    /// Adds the samples of a window that the selector takes. `file` is the window's file.
    pub(crate) fn add(&mut self, stored: &Stored, file: &[u8], selector: &Selector) {
        let first = self.builder.is_none();
        self.whole = (first && selector.takes_all() && !stored.profile.sample.is_empty())
            .then(|| file.to_vec());
        self.duration = self.duration.saturating_add(stored.duration());
        let builder = self.builder.get_or_insert_with(|| {
            Builder::new(Meta {
                time_nanos: stored.profile.time_nanos,
                duration_nanos: 0,
                frequency: frequency(stored.profile.period),
            })
        });
        let mut locations: HashMap<u64, Option<LocationId>> = HashMap::new();
        for sample in &stored.profile.sample {
            if !stored.takes(sample, selector) {
                continue;
            }
            let stack: Vec<LocationId> = sample
                .location_id
                .iter()
                .filter_map(|id| {
                    *locations
                        .entry(*id)
                        .or_insert_with(|| copy_location(stored, *id, builder))
                })
                .collect();
            copy_sample(stored, sample, &stack, builder);
        }
        for comment in &stored.profile.comment {
            builder.comment(stored.text(*comment));
        }
    }

    /// The profile's file; nothing when no sample is in it.
    pub(crate) fn finish(self) -> Option<Vec<u8>> {
        if self.whole.is_some() {
            return self.whole;
        }
        let builder = self.builder?;
        if builder.sample_count() == 0 {
            return None;
        }
        let mut profile = builder.finish();
        profile.duration_nanos = i64::try_from(self.duration.as_nanos()).unwrap_or(i64::MAX);
        Some(pprof::write_gzip(&profile))
    }
}

fn frequency(period: i64) -> u32 {
    let rounded = 1_000_000_000_i64
        .saturating_add(period.checked_div(2).unwrap_or(0))
        .checked_div(period)
        .unwrap_or(0);
    u32::try_from(rounded).unwrap_or(0)
}

fn copy_location(stored: &Stored, id: u64, builder: &mut Builder) -> Option<LocationId> {
    let location = stored.location(id)?;
    let mapping = stored.mapping(location.mapping_id).map(|mapping| {
        builder.mapping(&Mapping {
            start: mapping.memory_start,
            limit: mapping.memory_limit,
            file_offset: mapping.file_offset,
            filename: stored.text(mapping.filename),
            build_id: stored.text(mapping.build_id),
        })
    });
    let lines: Vec<Line> = location
        .line
        .iter()
        .filter_map(|line| {
            let function = stored.function(line.function_id)?;
            Some(Line {
                function: builder.function(
                    stored.text(function.name),
                    stored.text(function.system_name),
                    stored.text(function.filename),
                ),
                line: line.line,
            })
        })
        .collect();
    Some(builder.location(mapping, location.address, &lines))
}

fn copy_sample(
    stored: &Stored,
    sample: &proto::Sample,
    stack: &[LocationId],
    builder: &mut Builder,
) {
    let mut labels = pprof::Labels::default();
    let mut others: Vec<(&str, Cow<'_, str>)> = Vec::new();
    for label in &sample.label {
        let number = u32::try_from(label.num).ok().filter(|_| label.str == 0);
        match (stored.text(label.key), number) {
            ("pid", Some(number)) => labels.pid = Some(number),
            ("thread_id", Some(number)) => labels.thread_id = Some(number),
            ("comm", None) => labels.comm = stored.text(label.str),
            ("thread_name", None) => labels.thread_name = stored.text(label.str),
            (key, _) => others.push((key, stored.label_text(label))),
        }
    }
    let others: Vec<(&str, &str)> = others
        .iter()
        .map(|(key, value)| (*key, value.as_ref()))
        .collect();
    labels.others = &others;
    builder.sample(stack, &labels, stored.count(sample));
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "these bytes are the tests' own"
)]
mod tests;
