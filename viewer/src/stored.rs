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
use std::path::Path;
use std::time::Duration;

use pprof::proto;
use pprof::{Builder, Line, LocationId, Mapping, Meta};
use thiserror::Error;

use crate::profile::{FrameKind, Labels, Profile, ProfileBuilder};
use crate::selector::Selector;

/// What a frame says that stands for the rest of a stack.
const STOPPED_PREFIX: &str = "[unwind stopped";
/// Source files of languages that are interpreted or compiled while they run.
const INTERPRETED: [&str; 10] = [
    "py", "rb", "js", "mjs", "cjs", "ts", "php", "pl", "lua", "java",
];

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
        let mut builder = ProfileBuilder::new(
            nanos(self.profile.time_nanos),
            self.duration(),
            nanos(self.profile.period),
        );
        let mut label_sets: HashMap<&[proto::Label], u32> = HashMap::new();
        let mut frames: HashMap<u64, Vec<u32>> = HashMap::new();
        for sample in &self.profile.sample {
            let labels = match label_sets.get(sample.label.as_slice()) {
                Some(labels) => *labels,
                None => {
                    let labels = self.labels(sample, &mut builder);
                    let labels = builder.labels(labels);
                    label_sets.insert(&sample.label, labels);
                    labels
                }
            };
            for id in &sample.location_id {
                if !frames.contains_key(id) {
                    frames.insert(*id, self.frames(*id, &mut builder));
                }
            }
            let stack = sample
                .location_id
                .iter()
                .rev()
                .filter_map(|id| frames.get(id))
                .flatten()
                .copied();
            builder.sample(labels, stack, self.count(sample));
        }
        builder.finish()
    }

    fn labels(&self, sample: &proto::Sample, builder: &mut ProfileBuilder) -> Labels {
        Labels::new(
            sample
                .label
                .iter()
                .map(|label| {
                    let name = builder.string(self.text(label.key));
                    (name, builder.string(&self.label_text(label)))
                })
                .collect(),
        )
    }

    /// The frames of a location, outermost first: its inlined functions, or one without a name.
    fn frames(&self, id: u64, builder: &mut ProfileBuilder) -> Vec<u32> {
        let Some(location) = self.location(id) else {
            return Vec::new();
        };
        let path = self
            .mapping(location.mapping_id)
            .map_or("", |mapping| self.text(mapping.filename));
        let module = file_name(path);
        let frames: Vec<u32> = location
            .line
            .iter()
            .rev()
            .filter_map(|line| self.function(line.function_id))
            .map(|function| {
                let name = self.text(function.name);
                let file = self.text(function.filename);
                builder.frame(name, kind_of(name, path, file), module, file)
            })
            .collect();
        if !frames.is_empty() {
            return frames;
        }
        // All nameless code of a module is one frame: its addresses would scatter what belongs together.
        let name = match module {
            "" => "[unknown code]".to_owned(),
            module if module.starts_with('[') => module.to_owned(),
            module => format!("[{module}]"),
        };
        vec![builder.frame(&name, FrameKind::Unnamed, module, "")]
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

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn kind_of(name: &str, mapping: &str, file: &str) -> FrameKind {
    if name.starts_with(STOPPED_PREFIX) {
        return FrameKind::Stopped;
    }
    // [kernel.kallsyms], and modules as perf names them: [nf_tables].
    if mapping.starts_with("[kernel") || mapping.ends_with(".ko") {
        return FrameKind::Kernel;
    }
    let extension = Path::new(file)
        .extension()
        .and_then(|extension| extension.to_str());
    let generated = matches!(mapping, "jit" | "[jit]" | "[anon]" | "//anon");
    if generated || extension.is_some_and(|extension| INTERPRETED.contains(&extension)) {
        return FrameKind::Interpreter;
    }
    FrameKind::Native
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
mod tests;
