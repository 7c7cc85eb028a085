//! The part of naming a window that says what its processes run: what the main executable's file says of itself, and
//! which language runtime is among a process's files.

use std::collections::HashMap;

use ipc_proto::sample::Backing;
use ipc_proto::symbolized::{SymbolizedExecutable, SymbolizedProcess};
use leadsman_symbolizer::cache::ExecutableKey;

use super::Naming;
use crate::job::{JobMapping, JobProcess, WindowJob};

/// Executables of the window whose facts were told: the place in the batch's list, counted from 1, and Go's version.
pub(super) type KnownFacts = HashMap<ExecutableKey, (u32, Option<String>)>;

/// A mapping whose file was opened and is no stranger's.
fn readable(job: &WindowJob, index: u32) -> Option<&JobMapping> {
    let mapping = job.mappings.get(index as usize)?;
    (mapping.backing == Backing::File && mapping.reason.is_none()).then_some(mapping)
}

impl Naming<'_> {
    /// Completes what the batch says about a process.
    pub(super) fn add_facts(
        &mut self,
        about: &mut SymbolizedProcess,
        process: &JobProcess,
        job: &WindowJob,
        known: &mut KnownFacts,
    ) {
        let mut go_version = None;
        if let Some(mapping) = readable(job, about.executable) {
            if !known.contains_key(&mapping.key)
                && let Some(listed) = self.executable_facts(mapping)
            {
                known.insert(mapping.key, listed);
            }
            if let Some((place, version)) = known.get(&mapping.key) {
                about.facts = *place;
                go_version.clone_from(version);
            }
        }
        if let Some((runtime, index)) = process.runtime {
            about.runtime = self.string(runtime.name());
            let version = readable(job, index).and_then(|mapping| {
                let executable = self.namer.symbolizer.executable(mapping.key)?;
                let is_read = executable.is_runtime_known(runtime);
                let mut reading = None;
                if !is_read {
                    self.mark(&mut reading, mapping.file_key.as_ref());
                }
                let executable = self.namer.symbolizer.executable(mapping.key)?;
                let version = executable.runtime_version(runtime, &mapping.path.text());
                self.mark(&mut reading, None);
                version
            });
            about.runtime_version = version.map_or(0, |version| self.string(&version));
        } else if let Some(version) = go_version {
            about.runtime = self.string("go");
            about.runtime_version = self.string(&version);
        }
    }

    /// Lists an executable in the batch.
    fn executable_facts(&mut self, mapping: &JobMapping) -> Option<(u32, Option<String>)> {
        let is_read = self
            .namer
            .symbolizer
            .executable(mapping.key)?
            .are_facts_known();
        let mut reading = None;
        if !is_read {
            self.mark(&mut reading, mapping.file_key.as_ref());
        }
        let facts = self.namer.symbolizer.executable(mapping.key)?.facts();
        self.mark(&mut reading, None);
        let compiler = self.string(facts.compiler.as_deref().unwrap_or_default());
        self.batch.executables.0.push(SymbolizedExecutable {
            file_id: facts.file_id,
            compiler,
            is_static: facts.is_static,
            is_stripped: facts.is_stripped,
        });
        self.bytes += 32;
        let place = self.batch.executables.0.len() as u32;
        Some((place, facts.go_version.clone()))
    }
}
