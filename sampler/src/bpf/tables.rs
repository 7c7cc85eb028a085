//! The only writer of the maps that hold unwind tables. Keeps them within the budget: whole tables while there is room, then
//! the chunks that walks use, the least recently used going first.
//!
//! A table's chunks are checked here, one by one, before the kernel sees them: they come from a process that parses
//! hostile files.

use std::collections::HashMap as Table;
use std::os::fd::OwnedFd;

use aya::maps::{HashMap, MapData, MapError};
use ipc_endpoint::memfd::{self, MemfdError};
use ipc_proto::ids::ExecutableId;
use ipc_proto::limits::MAX_TABLE;
use ipc_proto::table_file::{TableFault, TableFile};
use leadsman_ebpf::limits::{CHUNK_BYTES, REGION_BITS};
use leadsman_ebpf::table::{Chunk, Region, RegionKey, region_of};
use rustix::io::Errno;
use thiserror::Error;

use crate::bpf::installed::{Installed, Slot, Unit};
use crate::bpf::load::Sizes;
use crate::executables::VDSO;

/// When room is made, it is for so many chunks at least, as a share of all: looking for the idle ones costs more than
/// bringing one back.
const BATCH: u32 = 64;

/// Why a table was not installed.
#[derive(Debug, Error)]
pub(crate) enum InstallError {
    /// The symbolizer sent no sound table.
    #[error("unsound unwind table: {0}")]
    Table(#[from] TableFault),
    /// The symbolizer sent something else than a sealed memfd.
    #[error(transparent)]
    Memfd(#[from] MemfdError),
    /// Its bytes could not be read again.
    #[error("cannot read an unwind table: {0}")]
    Read(#[from] Errno),
    /// The kernel refused.
    #[error("the kernel refused a map update: {0}")]
    Map(#[from] MapError),
}

/// What became of rows that a walk lacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paged {
    /// They are there now, or were already.
    Here,
    /// The executable has no table here: it must be asked for.
    NoTable,
}

/// The maps, and what is in them.
pub(crate) struct Tables {
    regions: HashMap<MapData, RegionKey, Region>,
    chunks: HashMap<MapData, u32, Chunk>,
    installed: Table<ExecutableId, Installed>,
    /// Number of the last chunk: none is used twice, so that a reader notices when its chunk was replaced.
    last_chunk: u32,
    used_chunks: u32,
    max_chunks: u32,
    used_regions: u32,
    max_regions: u32,
    rows: u64,
    /// Counts looks at the clock: what was used last has the greatest.
    now: u32,
    /// Tables given up whole since the last call of [`Tables::take_given_up`].
    given_up: Vec<ExecutableId>,
    /// Chunks given up, and chunks brought back.
    pub(crate) evicted: u64,
    pub(crate) paged_in: u64,
}

impl Tables {
    /// Takes over empty maps of these sizes.
    pub(crate) fn new(
        regions: HashMap<MapData, RegionKey, Region>,
        chunks: HashMap<MapData, u32, Chunk>,
        sizes: Sizes,
    ) -> Self {
        Self {
            regions,
            chunks,
            installed: Table::new(),
            last_chunk: 0,
            used_chunks: 0,
            max_chunks: sizes.chunks,
            used_regions: 0,
            max_regions: sizes.regions,
            rows: 0,
            now: 0,
            given_up: Vec::new(),
            evicted: 0,
            paged_in: 0,
        }
    }

    /// Time passes: uses before and after this are told apart.
    pub(crate) fn tick(&mut self) {
        self.now = self.now.saturating_add(1);
    }

    /// Whether room is scarce: only then it is worth to follow what is used.
    pub(crate) fn is_crowded(&self) -> bool {
        self.is_short() || self.file_bytes() > self.vdso_bytes()
    }

    /// A frame lay there.
    pub(crate) fn touch(&mut self, id: ExecutableId, file_offset: u64) {
        let now = self.now;
        if let Some(table) = self.installed.get_mut(&id) {
            table.used = now;
            if let Some(slot) = table.slot(file_offset) {
                slot.used = now;
            }
        }
    }

    /// Checks a table and makes it the executable's: all of it if there is room, else what walks ask for, piece by piece.
    ///
    /// # Errors
    /// The table stays out, whole.
    pub(crate) fn install_table(
        &mut self,
        id: ExecutableId,
        file: OwnedFd,
        bytes: u64,
    ) -> Result<(), InstallError> {
        self.remove_table(id);
        let content = memfd::read_sealed(&file, bytes, MAX_TABLE)?;
        let table = TableFile::open(&content)?;
        table.check_chunks()?;
        let chunks = (0..table.chunk_count()).filter_map(|nth| table.chunk(nth));
        let rows: Vec<_> = chunks.map(|chunk| chunk.row_count()).collect();
        let new = Installed::new(&table, file, bytes, &rows, self.now);
        self.installed.insert(id, new);
        let fits = table.chunk_count() <= (self.max_chunks - self.used_chunks) as usize
            && table.region_count() <= (self.max_regions - self.used_regions) as usize;
        if !fits {
            return Ok(());
        }
        let result = self.write_table(id, &table);
        if result.is_err() {
            self.remove_table(id);
        } else if !self.is_short()
            // Nobody could be asked for the vDSO's again.
            && id != VDSO
            && let Some(table) = self.installed.get_mut(&id)
        {
            // Should it be given up one day, then whole: its bytes are not kept for that.
            table.file = None;
        }
        result
    }

    fn vdso_bytes(&self) -> u64 {
        self.installed.get(&VDSO).map_or(0, |table| table.bytes)
    }

    fn is_short(&self) -> bool {
        self.used_chunks > self.max_chunks / 4 * 3
    }

    fn write_table(&mut self, id: ExecutableId, table: &TableFile<'_>) -> Result<(), InstallError> {
        let Some(installed) = self.installed.get(&id) else {
            return Ok(());
        };
        let places: Vec<(usize, usize, usize)> = installed.places().collect();
        // Chunks first: what a region names is there.
        for (region, slot, nth) in places {
            if let Some(chunk) = table.chunk(nth) {
                self.write_chunk(id, region, slot, chunk)?;
            }
        }
        for region in 0..table.region_count() {
            self.write_region(id, region)?;
        }
        Ok(())
    }

    fn write_chunk(
        &mut self,
        id: ExecutableId,
        region: usize,
        slot: usize,
        chunk: Chunk,
    ) -> Result<(), InstallError> {
        self.last_chunk = self.last_chunk.wrapping_add(1).max(1);
        let number = self.last_chunk;
        self.chunks.insert(number, chunk.numbered(number), 0)?;
        self.used_chunks += 1;
        self.rows += u64::from(chunk.row_count());
        let now = self.now;
        if let Some(slot) = self.slot(id, region, slot) {
            slot.number = number;
            slot.used = now;
        }
        Ok(())
    }

    fn write_region(&mut self, id: ExecutableId, nth: usize) -> Result<(), InstallError> {
        let Some(region) = self
            .installed
            .get_mut(&id)
            .and_then(|table| table.regions.get_mut(nth))
        else {
            return Ok(());
        };
        let key = RegionKey {
            table: id.0,
            region: region.number,
        };
        self.regions.insert(key, region.directory(), 0)?;
        if !std::mem::replace(&mut region.is_present, true) {
            self.used_regions += 1;
        }
        Ok(())
    }

    fn slot(&mut self, id: ExecutableId, region: usize, slot: usize) -> Option<&mut Slot> {
        let table = self.installed.get_mut(&id)?;
        table.regions.get_mut(region)?.slots.get_mut(slot)
    }

    /// Brings the rows around a file offset into the kernel.
    ///
    /// # Errors
    /// They are not to be had.
    pub(crate) fn page_in(
        &mut self,
        id: ExecutableId,
        file_offset: u64,
    ) -> Result<Paged, InstallError> {
        let Some(table) = self.installed.get(&id) else {
            return Ok(Paged::NoTable);
        };
        let page = file_offset & ((1 << REGION_BITS) - 1);
        let Some(region) = table.region(region_of(file_offset)) else {
            return Ok(Paged::Here);
        };
        let slots = table.regions[region].missing(page);
        if table.regions[region].is_present && slots.is_empty() {
            return Ok(Paged::Here);
        }
        if !table.regions[region].is_present {
            self.make_room_for_region();
        }
        self.make_room(slots.len() as u32);
        let Some(table) = self.installed.get(&id) else {
            return Ok(Paged::NoTable);
        };
        let mut chunks = Vec::new();
        for slot in slots {
            let nth = table.regions[region].first + slot;
            let Some(file) = &table.file else { continue };
            let mut chunk = Chunk([0; CHUNK_BYTES]);
            let at = table.bytes - ((table.chunk_count() - nth) * CHUNK_BYTES) as u64;
            if rustix::io::pread(file, &mut chunk.0, at)? == CHUNK_BYTES {
                chunk
                    .check()
                    .map_err(|fault| TableFault::Chunk { nth, fault })?;
                chunks.push((slot, chunk));
            }
        }
        for (slot, chunk) in chunks {
            self.write_chunk(id, region, slot, chunk)?;
            self.paged_in += 1;
        }
        self.write_region(id, region)?;
        Ok(Paged::Here)
    }

    /// Gives up what was not used for longest, until so many chunks have room.
    fn make_room(&mut self, chunks: u32) {
        let free = self.max_chunks - self.used_chunks;
        if free >= chunks {
            return;
        }
        let wanted = chunks.max(self.max_chunks / BATCH) - free;
        let mut units: Vec<Unit> = self
            .installed
            .iter()
            .flat_map(|(id, table)| table.units(*id))
            .collect();
        units.sort_unstable_by_key(|unit| unit.used);
        let mut freed = 0;
        for unit in units {
            if freed >= wanted {
                break;
            }
            freed += unit.chunks;
            match unit.slot {
                Some((region, slot)) => self.evict_chunk(unit.table, region, slot),
                None => self.give_up(unit.table),
            }
        }
    }

    /// Gives up the region, or the table that can only go whole, that was not used for longest, if there is no room.
    fn make_room_for_region(&mut self) {
        while self.used_regions >= self.max_regions {
            let idle = self
                .installed
                .iter()
                .flat_map(|(id, table)| table.region_units(*id))
                .min_by_key(|(used, ..)| *used);
            match idle {
                Some((_, id, Some(region))) => self.evict_region(id, region),
                Some((_, id, None)) => self.give_up(id),
                None => return,
            }
        }
    }

    fn evict_region(&mut self, id: ExecutableId, nth: usize) {
        let Some(region) = self
            .installed
            .get_mut(&id)
            .and_then(|table| table.regions.get_mut(nth))
        else {
            return;
        };
        let key = RegionKey {
            table: id.0,
            region: region.number,
        };
        region.is_present = false;
        let slots = region.slots.len();
        let _absent = self.regions.remove(&key);
        self.used_regions -= 1;
        for slot in 0..slots {
            self.evict_chunk(id, nth, slot);
        }
    }

    fn evict_chunk(&mut self, id: ExecutableId, region: usize, slot: usize) {
        let Some(slot) = self.slot(id, region, slot) else {
            return;
        };
        // The region goes on naming it: a walk that comes there finds nothing and says so.
        let (number, rows) = (std::mem::take(&mut slot.number), slot.rows);
        if number == 0 {
            return;
        }
        let _absent = self.chunks.remove(&number);
        self.used_chunks -= 1;
        self.rows -= u64::from(rows);
        self.evicted += 1;
    }

    fn give_up(&mut self, id: ExecutableId) {
        let chunks = self.used_chunks;
        self.remove_table(id);
        self.evicted += u64::from(chunks - self.used_chunks);
        self.given_up.push(id);
    }

    /// Tables given up whole since the last call: whoever needs one must ask for it again.
    pub(crate) fn take_given_up(&mut self) -> Vec<ExecutableId> {
        std::mem::take(&mut self.given_up)
    }

    /// Makes the programs forget an executable's table.
    fn remove_table(&mut self, id: ExecutableId) {
        let Some(installed) = self.installed.remove(&id) else {
            return;
        };
        for region in &installed.regions {
            let key = RegionKey {
                table: id.0,
                region: region.number,
            };
            if region.is_present {
                let _absent = self.regions.remove(&key);
                self.used_regions -= 1;
            }
            for slot in region.slots.iter().filter(|slot| slot.number != 0) {
                let _absent = self.chunks.remove(&slot.number);
                self.used_chunks -= 1;
                self.rows -= u64::from(slot.rows);
            }
        }
    }

    /// Tables and rows in the kernel.
    pub(crate) fn sizes(&self) -> (usize, u64) {
        (self.installed.len(), self.rows)
    }

    /// Bytes of tables that are kept outside of the kernel's maps, for their missing pieces.
    pub(crate) fn file_bytes(&self) -> u64 {
        let kept = self.installed.values().filter(|table| table.file.is_some());
        kept.map(|table| table.bytes).sum()
    }
}
