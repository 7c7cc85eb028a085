//! From a symbolized window to a pprof profile of the whole machine. Checks every reference of the batch; knows no
//! sockets, files or clocks.

use std::collections::BTreeMap;

use ipc_proto::symbolized::{Location, LocationKind, NONE, SymbolizedBatch};
use pprof::{Builder, Line, LocationId, Mapping, MappingId, Meta};
use thiserror::Error;

use crate::labels::Labelled;

/// A batch that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchFault {
    /// Something refers to an entry that is not there.
    #[error("refers to {table} {index}, which is not in it")]
    Reference {
        /// Which table.
        table: &'static str,
        /// The index.
        index: u32,
    },
}

/// Builds the profile of a batch as gzip bytes. Kernel frames stand first, then user frames, leaf first; a stack that is
/// not whole ends in its `[unwind stopped: REASON]`. Samples without a series are left out.
///
/// # Errors
/// [`BatchFault`].
pub fn build(batch: &SymbolizedBatch, labels: &Labelled) -> Result<Vec<u8>, BatchFault> {
    let mut tables = Tables {
        batch,
        builder: Builder::new(Meta {
            time_nanos: i64::try_from(batch.start).unwrap_or(i64::MAX),
            duration_nanos: i64::try_from(batch.duration).unwrap_or(i64::MAX),
            frequency: batch.frequency,
        }),
        mappings: Vec::new(),
        locations: Vec::new(),
        unnamed: BTreeMap::new(),
    };
    tables.add_mappings()?;
    tables.add_locations()?;
    tables.add_samples(labels)?;
    tables.add_comments(labels)?;
    Ok(pprof::write_gzip(&tables.builder.finish()))
}

/// The batch's tables, and the profile's ids for their entries.
struct Tables<'a> {
    batch: &'a SymbolizedBatch,
    builder: Builder,
    mappings: Vec<MappingId>,
    locations: Vec<LocationId>,
    /// Samples that hit a place without a name, by the string that says why.
    unnamed: BTreeMap<u32, u64>,
}

/// The entry that an index refers to.
pub(crate) fn entry<'a, T>(
    entries: &'a [T],
    table: &'static str,
    index: u32,
) -> Result<&'a T, BatchFault> {
    let found = entries.get(index as usize);
    found.ok_or(BatchFault::Reference { table, index })
}

impl Tables<'_> {
    fn text(&self, index: u32) -> Result<std::borrow::Cow<'_, str>, BatchFault> {
        Ok(entry(&self.batch.strings.0, "string", index)?.text())
    }

    fn add_mappings(&mut self) -> Result<(), BatchFault> {
        for mapping in &self.batch.mappings.0 {
            let build_id: String = mapping
                .build_id
                .0
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let filename = self.text(mapping.file)?.into_owned();
            let id = self.builder.mapping(&Mapping {
                start: mapping.start,
                limit: mapping.end,
                file_offset: mapping.file_offset,
                filename: &filename,
                build_id: &build_id,
            });
            self.mappings.push(id);
        }
        Ok(())
    }

    fn add_locations(&mut self) -> Result<(), BatchFault> {
        for location in &self.batch.locations.0 {
            let id = self.location(location)?;
            self.locations.push(id);
        }
        Ok(())
    }

    fn location(&mut self, location: &Location) -> Result<LocationId, BatchFault> {
        let mapping = match location.mapping {
            NONE => None,
            index => Some(*entry(&self.mappings, "mapping", index)?),
        };
        let mut lines = Vec::with_capacity(location.lines.0.len());
        for line in &location.lines.0 {
            let function = self.text(line.function)?.into_owned();
            let system_name = self.text(line.system_name)?.into_owned();
            let file = self.text(line.file)?.into_owned();
            lines.push(Line {
                function: self.builder.function(&function, &system_name, &file),
                line: line.line.into(),
            });
        }
        let address = if location.kind == LocationKind::Stop as u8 {
            0
        } else {
            location.address
        };
        Ok(self.builder.location(mapping, address, &lines))
    }

    fn add_samples(&mut self, labelled: &Labelled) -> Result<(), BatchFault> {
        let mut stack = Vec::new();
        let series = labelled.of_sample.iter();
        for (sample, series) in self.batch.samples.0.iter().zip(series) {
            let Some(series) = series.and_then(|index| labelled.series.get(index as usize)) else {
                continue;
            };
            let process = entry(&self.batch.processes.0, "process", sample.process)?;
            // The name of the process as relabelling left it, the others beside it.
            let comm = series.labels.get("comm").map_or("", String::as_str);
            let others: Vec<(&str, &str)> = series
                .labels
                .iter()
                .chain(&series.more)
                .filter(|(name, _)| name.as_str() != "comm")
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let thread_name = self.text(sample.thread_name)?.into_owned();
            stack.clear();
            for &index in &sample.locations.0 {
                stack.push(*entry(&self.locations, "location", index)?);
                let reason = entry(&self.batch.locations.0, "location", index)?.reason;
                if reason != 0 {
                    let samples = self.unnamed.entry(reason).or_default();
                    *samples = samples.saturating_add(sample.count);
                }
            }
            let labels = pprof::Labels {
                pid: Some(process.pid.0),
                thread_id: Some(sample.tid.0),
                comm,
                thread_name: &thread_name,
                others: &others,
            };
            self.builder.sample(&stack, &labels, sample.count);
        }
        Ok(())
    }

    fn add_comments(&mut self, labelled: &Labelled) -> Result<(), BatchFault> {
        let mut comments = vec![
            concat!("leadsman ", env!("CARGO_PKG_VERSION")).to_owned(),
            format!("window: {}", self.batch.window.0),
        ];
        for drop in &self.batch.drops.0 {
            comments.push(format!("dropped: {}: {}", drop.cause.text(), drop.samples));
        }
        let samples = self.batch.samples.0.iter().zip(&labelled.of_sample);
        let dropped = samples
            .filter(|(_, series)| series.is_none())
            .fold(0u64, |sum, (sample, _)| sum.saturating_add(sample.count));
        if dropped > 0 {
            comments.push(format!("dropped: relabelling: {dropped}"));
        }
        for (&reason, frames) in &self.unnamed {
            comments.push(format!("unnamed: {frames} frames: {}", self.text(reason)?));
        }
        for comment in comments {
            self.builder.comment(&comment);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
