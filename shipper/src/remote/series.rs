//! From a symbolized window to one profile for each label set, as stores want them: addresses are those of the ELF files,
//! each build ID has one mapping without bounds, and code that no store can name carries its name. Checks every reference
//! of the batch; knows no sockets, files or clocks.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use ipc_proto::symbolized::{Location, LocationKind, NONE, SymbolizedBatch, SymbolizedSample};
use pprof::{Builder, Line, LocationId, Mapping, Meta};

use super::parcel::{Label, Series};
use crate::labels::{Labelled, Labels};
use crate::profile::{BatchFault, entry};

/// Name of every series (`__name__`), as dashboards and queries know it.
const PROFILE_NAME: &str = "parca_agent_cpu";
/// Samples with a stack of their own in one profile: a series with more is cut.
const MAX_STACKS: usize = 8192;
/// Mapping of what is no code of a file.
const PSEUDO: &str = "[leadsman]";
/// Function of a sample without a stack.
const NO_STACK: &str = "[no stack]";

/// What the profiles are to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Native functions with their names and lines; without it the store names them from uploaded debug information.
    pub symbolize: bool,
}

/// Builds the series of a batch, sorted by labels.
///
/// # Errors
/// [`BatchFault`].
pub fn build(
    batch: &SymbolizedBatch,
    labelled: &Labelled,
    style: Style,
) -> Result<Vec<Series>, BatchFault> {
    // Samples differ in labels that only the local store keeps: these make no series of their own.
    let mut by_labels: BTreeMap<&Labels, Vec<&SymbolizedSample>> = BTreeMap::new();
    for (sample, series) in batch.samples.0.iter().zip(&labelled.of_sample) {
        let Some(series) = series else { continue };
        let series = entry(&labelled.series, "series", *series)?;
        by_labels.entry(&series.labels).or_default().push(sample);
    }
    let mut series = Vec::new();
    for (labels, samples) in by_labels {
        let labels = series_labels(labels);
        for chunk in samples.chunks(MAX_STACKS) {
            series.push(one(batch, chunk, labels.clone(), style)?);
        }
    }
    Ok(series)
}

/// Sorted by name, each name once.
fn series_labels(labels: &Labels) -> Vec<Label> {
    let pair = |(name, value): (&String, &String)| (name.clone(), value.clone());
    let mut all: BTreeMap<String, String> = labels.iter().map(pair).collect();
    // Never from outside: the store finds the profile's type by it.
    all.insert("__name__".to_owned(), PROFILE_NAME.to_owned());
    // Stores take an empty value for none, and no empty name.
    all.retain(|name, value| !name.is_empty() && !value.is_empty());
    all.into_iter()
        .map(|(name, value)| Label { name, value })
        .collect()
}

fn one(
    batch: &SymbolizedBatch,
    samples: &[&SymbolizedSample],
    labels: Vec<Label>,
    style: Style,
) -> Result<Series, BatchFault> {
    let mut tables = Tables {
        batch,
        style,
        builder: Builder::new(Meta {
            time_nanos: i64::try_from(batch.start).unwrap_or(i64::MAX),
            duration_nanos: i64::try_from(batch.duration).unwrap_or(i64::MAX),
            frequency: batch.frequency,
        }),
        locations: HashMap::new(),
    };
    let (mut stack, mut count) = (Vec::new(), 0u64);
    for sample in samples {
        stack.clear();
        for &index in &sample.locations.0 {
            stack.push(tables.location(index)?);
        }
        if stack.is_empty() {
            // Parca takes a sample without a location and never shows it.
            stack.push(tables.nothing());
        }
        let thread_id = sample.tid.0.to_string();
        let thread_name = entry(&batch.strings.0, "string", sample.thread_name)?.text();
        // As text: stores that keep labels of samples keep no numbers.
        let others = [
            ("thread_id", thread_id.as_str()),
            ("thread_name", &*thread_name),
        ];
        let labels = pprof::Labels {
            others: &others,
            ..pprof::Labels::default()
        };
        tables.builder.sample(&stack, &labels, sample.count);
        count = count.saturating_add(sample.count);
    }
    Ok(Series {
        labels,
        profile: pprof::encode(&tables.builder.finish()).into(),
        samples: count,
    })
}

/// One profile's tables.
struct Tables<'a> {
    batch: &'a SymbolizedBatch,
    style: Style,
    builder: Builder,
    /// Ids of the batch's locations used so far.
    locations: HashMap<u32, LocationId>,
}

impl Tables<'_> {
    fn text(&self, index: u32) -> Result<Cow<'_, str>, BatchFault> {
        Ok(entry(&self.batch.strings.0, "string", index)?.text())
    }

    fn location(&mut self, index: u32) -> Result<LocationId, BatchFault> {
        if let Some(id) = self.locations.get(&index) {
            return Ok(*id);
        }
        let location = entry(&self.batch.locations.0, "location", index)?;
        let id = self.add(location)?;
        self.locations.insert(index, id);
        Ok(id)
    }

    /// The place of a sample whose stack is unknown.
    fn nothing(&mut self) -> LocationId {
        let mapping = self.builder.mapping(&Mapping {
            filename: PSEUDO,
            ..Mapping::default()
        });
        let function = self.builder.function(NO_STACK, NO_STACK, "");
        let lines = [Line { function, line: 0 }];
        self.builder.location(Some(mapping), 0, &lines)
    }

    fn add(&mut self, location: &Location) -> Result<LocationId, BatchFault> {
        let native = location.kind == LocationKind::Native as u8;
        let (mut file, mut build_id) = (PSEUDO.to_owned(), String::new());
        if location.mapping != NONE {
            let mapping = entry(&self.batch.mappings.0, "mapping", location.mapping)?;
            file = self.text(mapping.file)?.into_owned();
            // Only native code is looked up in a file; and one address that is none of the file's would spoil the
            // store's view of the whole build ID.
            if native && location.elf_address != 0 {
                build_id = hexadecimal(&mapping.build_id.0);
            }
        }
        let nameable = !build_id.is_empty();
        let named = !location.lines.0.is_empty() && (self.style.symbolize || !nameable);
        let address = match (nameable, named) {
            (true, _) => location.elf_address,
            // Kernel, vDSO and generated functions are one location each, wherever they lie.
            (false, true) => 0,
            (false, false) => location.address,
        };
        let mapping = self.builder.mapping(&Mapping {
            filename: &file,
            build_id: &build_id,
            ..Mapping::default()
        });
        let mut lines = Vec::new();
        if named {
            for line in &location.lines.0 {
                let function = self.text(line.function)?.into_owned();
                let system_name = self.text(line.system_name)?.into_owned();
                let file = self.text(line.file)?.into_owned();
                lines.push(Line {
                    function: self.builder.function(&function, &system_name, &file),
                    line: line.line.into(),
                });
            }
        }
        Ok(self.builder.location(Some(mapping), address, &lines))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
