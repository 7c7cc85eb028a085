//! A profile seen as stacks of named frames: what every view and converter reads. Changes nothing; a name that is missing
//! is made from the address here and nowhere else.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use indexmap::IndexSet;

use crate::proto;
use crate::proto::Profile;

/// How the function is called that stands for the missing root side of a stack: this, the stop reason's name, `]`.
pub const STOPPED_PREFIX: &str = "[unwind stopped: ";

/// What the symbolizer calls the mapping of code that is in no file.
const GENERATED: &str = "jit";

/// What a frame's code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// Kernel code.
    Kernel,
    /// Machine code of a file.
    Native,
    /// A function of a just-in-time compiled or interpreted language: its code is in no file.
    Generated,
    /// Code whose function has no name.
    Unnamed,
    /// No code: says why the walk ended before the thread's root.
    Stopped,
}

impl FrameKind {
    /// One lower-case word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Native => "native",
            Self::Generated => "generated",
            Self::Unnamed => "unnamed",
            Self::Stopped => "stopped",
        }
    }
}

/// A function as views name it: frames with equal ones belong together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Function<'a> {
    /// Its name, or `0x1234 [libfoo.so]` when there is none. Foreign text: anything can stand in it.
    pub name: Cow<'a, str>,
    /// The mapping's file as the profile has it, or "".
    pub mapping: &'a str,
    /// What its code is.
    pub kind: FrameKind,
}

impl Function<'_> {
    /// The last part of the mapping's path.
    #[must_use]
    pub fn module(&self) -> &str {
        basename(self.mapping)
    }

    /// The stop reason, for [`FrameKind::Stopped`].
    #[must_use]
    pub fn stop_reason(&self) -> Option<&str> {
        stop_reason(&self.name)
    }
}

/// Which function: an index of [`Frames::functions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionIndex(pub u32);

/// One level of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its function.
    pub function: FunctionIndex,
    /// Source file, or "".
    pub file: &'a str,
    /// Source line, or 0.
    pub line: i64,
    /// Address, or 0.
    pub address: u64,
    /// Whether it was inlined into the next frame towards the root.
    pub inlined: bool,
}

/// Which of a sample's values counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueChoice<'a> {
    /// Its index.
    pub index: usize,
    /// Its meaning, as `samples`.
    pub kind: &'a str,
    /// Its unit, as `count`.
    pub unit: &'a str,
}

/// A profile's stacks.
#[derive(Debug)]
pub struct Frames<'a> {
    profile: &'a Profile,
    value: ValueChoice<'a>,
    frames: Vec<Frame<'a>>,
    functions: IndexSet<Function<'a>>,
    /// Location id -> its frames, innermost first.
    locations: HashMap<u64, Range<usize>>,
}

impl<'a> Frames<'a> {
    /// The stacks with the value that pprof would show: the default sample type, else the last.
    #[must_use]
    pub fn new(profile: &'a Profile) -> Self {
        let named = text(profile, profile.default_sample_type);
        let value = values(profile)
            .find(|value| !named.is_empty() && value.kind == named)
            .or_else(|| values(profile).last())
            .unwrap_or(ValueChoice {
                index: 0,
                kind: "",
                unit: "",
            });
        Self::with_value(profile, value)
    }

    /// The stacks with one of [`values`].
    #[must_use]
    pub fn with_value(profile: &'a Profile, value: ValueChoice<'a>) -> Self {
        let mut this = Self {
            profile,
            value,
            frames: Vec::new(),
            functions: IndexSet::new(),
            locations: HashMap::with_capacity(profile.location.len()),
        };
        let functions: HashMap<u64, &proto::Function> = profile
            .function
            .iter()
            .map(|function| (function.id, function))
            .collect();
        let mappings: HashMap<u64, &str> = profile
            .mapping
            .iter()
            .map(|mapping| (mapping.id, text(profile, mapping.filename)))
            .collect();
        for location in &profile.location {
            let mapping = mappings.get(&location.mapping_id).copied().unwrap_or("");
            let first = this.frames.len();
            if location.line.is_empty() {
                this.push(location, None, None, mapping, false);
            }
            for (index, line) in location.line.iter().enumerate() {
                let function = functions.get(&line.function_id).copied();
                let inlined = index + 1 < location.line.len();
                this.push(location, function, Some(line), mapping, inlined);
            }
            this.locations.insert(location.id, first..this.frames.len());
        }
        this
    }

    fn push(
        &mut self,
        location: &proto::Location,
        function: Option<&proto::Function>,
        line: Option<&proto::Line>,
        mapping: &'a str,
        inlined: bool,
    ) {
        let string = |index: Option<i64>| text(self.profile, index.unwrap_or(0));
        let name = [
            string(function.map(|function| function.name)),
            string(function.map(|function| function.system_name)),
        ]
        .into_iter()
        .find(|name| !name.is_empty());
        let named = Function {
            kind: kind(name, mapping, location.address),
            name: name.map_or_else(|| address_name(location.address, mapping), Cow::Borrowed),
            mapping,
        };
        let file = string(function.map(|function| function.filename));
        let (index, _) = self.functions.insert_full(named);
        self.frames.push(Frame {
            function: FunctionIndex(index as u32),
            file,
            line: line.map_or(0, |line| line.line),
            address: location.address,
            inlined,
        });
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> &'a Profile {
        self.profile
    }

    /// Which of the samples' values counts here.
    #[must_use]
    pub fn value(&self) -> ValueChoice<'a> {
        self.value
    }

    /// All functions, each once.
    pub fn functions(&self) -> impl ExactSizeIterator<Item = &Function<'a>> {
        self.functions.iter()
    }

    /// One of the functions.
    #[must_use]
    pub fn function(&self, index: FunctionIndex) -> Option<&Function<'a>> {
        self.functions.get_index(index.0 as usize)
    }

    /// The samples, in the profile's order.
    pub fn samples(&self) -> impl Iterator<Item = Sample<'_, 'a>> {
        self.profile.sample.iter().map(|sample| Sample {
            frames: self,
            sample,
        })
    }

    /// A string of the profile by its index; "" for one that is not there.
    #[must_use]
    pub fn text(&self, index: i64) -> &'a str {
        text(self.profile, index)
    }

    /// The remarks.
    pub fn comments(&self) -> impl Iterator<Item = &'a str> {
        let profile = self.profile;
        profile
            .comment
            .iter()
            .map(move |comment| text(profile, *comment))
    }

    /// What one sample stands for in CPU time, when the profile says so: nanoseconds.
    #[must_use]
    pub fn cpu_period(&self) -> Option<i64> {
        let period_type = self.profile.period_type.as_ref()?;
        let is_cpu = text(self.profile, period_type.r#type) == "cpu"
            && text(self.profile, period_type.unit) == "nanoseconds";
        (is_cpu && self.profile.period > 0).then_some(self.profile.period)
    }
}

/// Equal stacks under equal labels.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'f, 'a> {
    frames: &'f Frames<'a>,
    sample: &'a proto::Sample,
}

/// A label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LabelValue<'a> {
    /// Text.
    Text(&'a str),
    /// A number.
    Number(i64),
}

/// Whom a sample belongs to, as far as its labels say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner<'a> {
    /// Label `comm`, or "".
    pub comm: &'a str,
    /// Label `pid`.
    pub pid: Option<i64>,
}

impl<'f, 'a> Sample<'f, 'a> {
    /// Its value.
    #[must_use]
    pub fn value(&self) -> i64 {
        let value = self.sample.value.get(self.frames.value.index);
        value.copied().unwrap_or(0)
    }

    /// Its frames, leaf first; reversed, root first.
    pub fn stack(&self) -> impl DoubleEndedIterator<Item = &'f Frame<'a>> + use<'f, 'a> {
        let frames = self.frames;
        self.sample.location_id.iter().flat_map(move |id| {
            let range = frames.locations.get(id).cloned();
            range
                .and_then(|range| frames.frames.get(range))
                .unwrap_or_default()
                .iter()
        })
    }

    /// Its labels, in the profile's order.
    pub fn labels(&self) -> impl Iterator<Item = (&'a str, LabelValue<'a>)> + use<'a> {
        let profile = self.frames.profile;
        self.sample.label.iter().map(move |label| {
            let value = match label.str {
                0 => LabelValue::Number(label.num),
                index => LabelValue::Text(text(profile, index)),
            };
            (text(profile, label.key), value)
        })
    }

    /// A text label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&'a str> {
        self.labels().find_map(|(key, value)| match value {
            LabelValue::Text(text) if key == name => Some(text),
            _ => None,
        })
    }

    /// A numeric label.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.labels().find_map(|(key, value)| match value {
            LabelValue::Number(number) if key == name => Some(number),
            _ => None,
        })
    }

    /// Its process.
    #[must_use]
    pub fn owner(&self) -> Owner<'a> {
        Owner {
            comm: self.label("comm").unwrap_or(""),
            pid: self.number("pid"),
        }
    }
}

/// The values that each sample has.
pub fn values(profile: &Profile) -> impl Iterator<Item = ValueChoice<'_>> {
    profile
        .sample_type
        .iter()
        .enumerate()
        .map(|(index, value_type)| ValueChoice {
            index,
            kind: text(profile, value_type.r#type),
            unit: text(profile, value_type.unit),
        })
}

/// A string of the profile; "" for an index that is not there.
fn text(profile: &Profile, index: i64) -> &str {
    usize::try_from(index)
        .ok()
        .and_then(|index| profile.string_table.get(index))
        .map_or("", String::as_str)
}

fn kind(name: Option<&str>, mapping: &str, address: u64) -> FrameKind {
    match name {
        Some(name) if stop_reason(name).is_some() => FrameKind::Stopped,
        // x86-64 and arm64 kernels live in the upper half of the addresses.
        _ if mapping.starts_with("[kernel") || address >> 63 == 1 => FrameKind::Kernel,
        None => FrameKind::Unnamed,
        Some(_) if mapping == GENERATED => FrameKind::Generated,
        Some(_) => FrameKind::Native,
    }
}

fn stop_reason(name: &str) -> Option<&str> {
    name.strip_prefix(STOPPED_PREFIX)?.strip_suffix(']')
}

fn address_name(address: u64, mapping: &str) -> Cow<'static, str> {
    let module = basename(mapping);
    match (address, module) {
        (0, "") => "[unknown]".into(),
        (_, "") => format!("{address:#x}").into(),
        (_, module) if module.starts_with('[') => format!("{address:#x} {module}").into(),
        (_, module) => format!("{address:#x} [{module}]").into(),
    }
}

fn basename(path: &str) -> &str {
    // "/memfd:x (deleted)" and "[anon: a/b]" are names, not paths, from their first character on.
    if path.starts_with('[') {
        return path;
    }
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests;
