//! Owns the symbolizer's face: executables go in as descriptors, addresses come out as frames or as the reason why
//! they have no name. It opens nothing and never waits.

use std::fs::File;

use crate::cache::{Cache, CacheCounts, ExecutableKey};
use crate::debuglink::DebugFileWanted;
use crate::executable::{Executable, Resolved};
use crate::file_bytes::FileBytes;
use crate::names::Names;
use crate::reason::Reason;

/// Bytes of memory for all executables together when nobody says otherwise.
pub const DEFAULT_BUDGET: usize = 24 << 20;

/// Turns addresses of executables into frames.
///
/// A window is symbolized by asking for its distinct addresses executable by executable, ascending: neighbours share
/// the unit and function that were read last. Numbers of names hold until [`Symbolizer::end_window`] or
/// [`Symbolizer::attach_debug_file`].
#[derive(Debug)]
pub struct Symbolizer {
    cache: Cache,
    /// Names of nothing.
    none: Names,
}

impl Symbolizer {
    /// Holds at most `budget` bytes between windows.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self {
            cache: Cache::new(budget),
            none: Names::default(),
        }
    }

    /// Takes an executable's file. Only its headers are read now.
    pub fn add_executable(
        &mut self,
        key: ExecutableKey,
        file: File,
    ) -> Result<&mut Executable, Reason> {
        let executable = Executable::read(FileBytes::of_file(file)?)?;
        Ok(self.cache.insert(key, executable))
    }

    /// Takes an executable that is in memory: the vDSO.
    pub fn add_image(
        &mut self,
        key: ExecutableKey,
        bytes: Vec<u8>,
    ) -> Result<&mut Executable, Reason> {
        let executable = Executable::read(FileBytes::of_memory(bytes))?;
        Ok(self.cache.insert(key, executable))
    }

    /// Whether the executable is there. It may be forgotten when there are very many: then add it again.
    #[must_use]
    pub fn contains(&self, key: ExecutableKey) -> bool {
        self.cache.contains(key)
    }

    /// The executable.
    pub fn executable(&mut self, key: ExecutableKey) -> Option<&mut Executable> {
        self.cache.get(key)
    }

    /// Forgets an executable: it is no longer mapped, or quarantined.
    pub fn remove_executable(&mut self, key: ExecutableKey) {
        self.cache.remove(key);
    }

    /// Debug files that the opener should be asked for on behalf of an executable, best first; answer with
    /// [`Symbolizer::attach_debug_file`] or [`Symbolizer::no_debug_file`].
    pub fn debug_files_wanted(&mut self, key: ExecutableKey) -> Vec<DebugFileWanted> {
        self.cache
            .get(key)
            .map(|executable| executable.debug_files_wanted())
            .unwrap_or_default()
    }

    /// Takes a debug file that was found, if it belongs to the executable.
    pub fn attach_debug_file(
        &mut self,
        key: ExecutableKey,
        wanted: &DebugFileWanted,
        file: File,
    ) -> Result<(), Reason> {
        let executable = self.cache.get(key).ok_or(Reason::NotYetOpened)?;
        executable.attach_debug_file(wanted, FileBytes::of_file(file)?)
    }

    /// Notes that none of the wanted debug files was found.
    pub fn no_debug_file(&mut self, key: ExecutableKey) {
        if let Some(executable) = self.cache.get(key) {
            executable.no_debug_file();
        }
    }

    /// The frames at an ELF address.
    pub fn frames(&mut self, key: ExecutableKey, address: u64) -> Resolved<'_> {
        match self.cache.get(key) {
            Some(executable) => executable.frames(address),
            None => Resolved {
                frames: &[],
                names: &self.none,
                reason: Some(Reason::NotYetOpened),
            },
        }
    }

    /// The ELF address of a place in the executable's file.
    pub fn address_of(&mut self, key: ExecutableKey, file_offset: u64) -> Option<u64> {
        self.cache.get(key)?.elf().address_of(file_offset)
    }

    /// Ends a window: keeps the budget, and grants every file its work again.
    pub fn end_window(&mut self) {
        self.cache.trim();
        self.cache.begin_window();
    }

    /// Bytes of memory this holds, estimated.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.cache.heap_bytes()
    }

    /// How many executables there are.
    #[must_use]
    pub fn executables(&self) -> usize {
        self.cache.len()
    }

    /// How often what happened in the cache.
    #[must_use]
    pub fn counts(&self) -> CacheCounts {
        self.cache.counts()
    }
}

impl Default for Symbolizer {
    fn default() -> Self {
        Self::new(DEFAULT_BUDGET)
    }
}
