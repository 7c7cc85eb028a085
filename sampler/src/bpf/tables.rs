//! The only writer of the maps that the BPF programs walk with: processes, their mappings, unwind tables.
//!
//! A table's chunks are checked here, one by one, before the kernel sees them: they come from a process that parses
//! hostile files.

use std::collections::HashMap as Table;

use aya::maps::{HashMap, MapData, MapError};
use ipc_proto::ids::ExecutableId;
use ipc_proto::table_file::{TableFault, TableFile};
use leadsman_ebpf::abi::{BlockKey, Mapping, MappingBlock, Process};
use leadsman_ebpf::limits::{BLOCK_MAPPINGS, PROCESS_BLOCKS};
use leadsman_ebpf::table::{Chunk, ChunkFault, Region, RegionKey};
use thiserror::Error;

use crate::bpf::load::Sizes;
use crate::engine::KernelProcess;

/// Bytes of kernel memory that a hash element takes beside its key and value (kernel/bpf/hashtab.c: `struct htab_elem`
/// with an eight-byte key).
const ELEMENT_BYTES: u64 = 56;

/// Why a table was not installed.
#[derive(Debug, Error)]
pub(crate) enum InstallError {
    /// The symbolizer sent no sound table.
    #[error("unsound unwind table: {0}")]
    Table(#[from] TableFault),
    /// One of its chunks is unsound.
    #[error("unsound chunk {nth} of an unwind table: {fault:?}")]
    Chunk {
        /// Which.
        nth: usize,
        /// What is wrong.
        fault: ChunkFault,
    },
    /// More than the budget has room for at the moment.
    #[error("no room for {chunks} chunks and {regions} regions of unwind rows")]
    Budget {
        /// Chunks of the table.
        chunks: usize,
        /// Regions of the table.
        regions: usize,
    },
    /// The kernel refused.
    #[error("the kernel refused a map update: {0}")]
    Map(#[from] MapError),
}

/// The maps, and what is in them.
pub(crate) struct Tables {
    processes: HashMap<MapData, u32, Process>,
    mappings: HashMap<MapData, BlockKey, MappingBlock>,
    regions: HashMap<MapData, RegionKey, Region>,
    chunks: HashMap<MapData, u32, Chunk>,
    /// Blocks of each installed process.
    blocks: Table<u32, u32>,
    installed: Table<ExecutableId, Installed>,
    free_chunks: Vec<u32>,
    next_chunk: u32,
    max_chunks: u32,
    max_regions: u32,
    used_regions: u32,
    rows: u64,
    ring_bytes: u32,
}

#[derive(Default)]
struct Installed {
    regions: Vec<u32>,
    chunks: Vec<u32>,
    rows: u64,
}

impl Tables {
    /// Takes over empty maps of these sizes.
    pub(crate) fn new(
        processes: HashMap<MapData, u32, Process>,
        mappings: HashMap<MapData, BlockKey, MappingBlock>,
        regions: HashMap<MapData, RegionKey, Region>,
        chunks: HashMap<MapData, u32, Chunk>,
        sizes: Sizes,
    ) -> Self {
        Self {
            processes,
            mappings,
            regions,
            chunks,
            blocks: Table::new(),
            installed: Table::new(),
            free_chunks: Vec::new(),
            next_chunk: 0,
            max_chunks: sizes.chunks,
            max_regions: sizes.regions,
            used_regions: 0,
            rows: 0,
            ring_bytes: sizes.ring_bytes,
        }
    }

    /// Makes a process's mappings what the programs walk with.
    ///
    /// # Errors
    /// The kernel's refusal; the process is then unknown to the programs.
    pub(crate) fn install_process(&mut self, process: &KernelProcess) -> Result<(), MapError> {
        let tgid = process.tgid;
        let before = self.blocks.get(&tgid).copied().unwrap_or(0);
        if before > 0 {
            // While its blocks change, the programs must not search it: they take a snapshot instead.
            let _absent = self.processes.remove(&tgid);
        }
        let mut value = Process {
            start_time: process.start_time,
            exec_id: process.exec_id,
            blocks: 0,
            starts: [u64::MAX; PROCESS_BLOCKS],
        };
        for (block, mappings) in process
            .mappings
            .chunks(BLOCK_MAPPINGS)
            .take(PROCESS_BLOCKS)
            .enumerate()
        {
            let mut content = MappingBlock {
                starts: [u64::MAX; BLOCK_MAPPINGS],
                mappings: [Mapping::default(); BLOCK_MAPPINGS],
            };
            for (slot, (start, mapping)) in mappings.iter().enumerate() {
                content.starts[slot] = *start;
                content.mappings[slot] = *mapping;
            }
            value.starts[block] = content.starts[0];
            value.blocks = block as u32 + 1;
            self.mappings.insert(
                BlockKey {
                    tgid,
                    block: block as u32,
                },
                content,
                0,
            )?;
            self.blocks.insert(tgid, value.blocks.max(before));
        }
        for block in value.blocks..before {
            let _absent = self.mappings.remove(&BlockKey { tgid, block });
        }
        self.blocks.insert(tgid, value.blocks);
        self.processes.insert(tgid, value, 0)
    }

    /// Makes the programs forget a process.
    pub(crate) fn remove_process(&mut self, tgid: u32) {
        let _absent = self.processes.remove(&tgid);
        for block in 0..self.blocks.remove(&tgid).unwrap_or(0) {
            let _absent = self.mappings.remove(&BlockKey { tgid, block });
        }
    }

    /// Checks a table and makes it the executable's.
    ///
    /// # Errors
    /// [`InstallError::Budget`]: make room and try again. Anything else: the table stays out, whole.
    pub(crate) fn install_table(
        &mut self,
        id: ExecutableId,
        bytes: &[u8],
    ) -> Result<(), InstallError> {
        self.remove_table(id);
        let table = TableFile::open(bytes)?;
        let mut rows = 0;
        for nth in 0..table.chunk_count() {
            let fault = ChunkFault::Counts { rules: 0, rows: 0 };
            let chunk = table.chunk(nth).ok_or(InstallError::Chunk { nth, fault })?;
            chunk
                .check()
                .map_err(|fault| InstallError::Chunk { nth, fault })?;
            rows += u64::from(chunk.row_count());
        }
        let (chunks, regions) = (table.chunk_count(), table.region_count());
        let free = self.free_chunks.len() + (self.max_chunks - self.next_chunk) as usize;
        if chunks > free || regions > (self.max_regions - self.used_regions) as usize {
            return Err(InstallError::Budget { chunks, regions });
        }
        let result = self.write_table(id, &table, rows);
        if result.is_err() {
            self.remove_table(id);
        }
        result
    }

    fn write_table(
        &mut self,
        id: ExecutableId,
        table: &TableFile<'_>,
        rows: u64,
    ) -> Result<(), InstallError> {
        // Chunks first: a region must never lead to a chunk that is not there.
        for nth in 0..table.chunk_count() {
            let Some(chunk) = table.chunk(nth) else {
                continue;
            };
            let number = self.free_chunks.pop().unwrap_or_else(|| {
                self.next_chunk += 1;
                self.next_chunk - 1
            });
            self.installed.entry(id).or_default().chunks.push(number);
            self.chunks.insert(number, chunk, 0)?;
        }
        for (number, mut region) in table.regions() {
            let installed = self.installed.entry(id).or_default();
            for chunk in region.chunks.iter_mut().take(region.count as usize) {
                *chunk = installed
                    .chunks
                    .get(*chunk as usize)
                    .copied()
                    .unwrap_or(u32::MAX);
            }
            installed.regions.push(number);
            self.used_regions += 1;
            self.regions.insert(
                RegionKey {
                    table: id.0,
                    region: number,
                },
                region,
                0,
            )?;
        }
        self.installed.entry(id).or_default().rows = rows;
        self.rows += rows;
        Ok(())
    }

    /// Makes the programs forget an executable's table.
    pub(crate) fn remove_table(&mut self, id: ExecutableId) {
        let Some(installed) = self.installed.remove(&id) else {
            return;
        };
        for region in &installed.regions {
            let _absent = self.regions.remove(&RegionKey {
                table: id.0,
                region: *region,
            });
        }
        for chunk in &installed.chunks {
            let _absent = self.chunks.remove(chunk);
        }
        self.used_regions -= installed.regions.len() as u32;
        self.rows -= installed.rows;
        self.free_chunks.extend(installed.chunks);
    }

    /// Tables, rows, and bytes of kernel memory they take.
    pub(crate) fn sizes(&self) -> (usize, u64, u64) {
        let chunks = u64::from(self.next_chunk) - self.free_chunks.len() as u64;
        let bytes = chunks * (ELEMENT_BYTES + size_of::<Chunk>() as u64)
            + u64::from(self.used_regions) * (ELEMENT_BYTES + size_of::<Region>() as u64);
        (self.installed.len(), self.rows, bytes)
    }

    /// Bytes of the ring buffer.
    pub(crate) fn ring_bytes(&self) -> u32 {
        self.ring_bytes
    }

    /// Bytes of kernel memory that the processes' mappings take.
    pub(crate) fn process_bytes(&self) -> u64 {
        let blocks: u64 = self.blocks.values().map(|blocks| u64::from(*blocks)).sum();
        self.blocks.len() as u64 * (ELEMENT_BYTES + size_of::<Process>() as u64)
            + blocks * (ELEMENT_BYTES + size_of::<MappingBlock>() as u64)
    }
}
