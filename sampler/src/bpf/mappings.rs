//! The only writer of the maps by which the BPF programs know processes and their executable mappings.

use std::collections::HashMap as Table;
use std::ops::Range;

use aya::maps::{HashMap, MapData, MapError};
use leadsman_ebpf::abi::{BlockKey, Mapping, MappingBlock, Process};
use leadsman_ebpf::limits::{BLOCK_MAPPINGS, PROCESS_BLOCKS};

use crate::kernel_process::KernelProcess;

/// The maps, and what is in them.
pub(crate) struct Mappings {
    processes: HashMap<MapData, u32, Process>,
    mappings: HashMap<MapData, BlockKey, MappingBlock>,
    /// Blocks of each installed process.
    blocks: Table<u32, Range<u32>>,
}

impl Mappings {
    /// Takes over empty maps.
    pub(crate) fn new(
        processes: HashMap<MapData, u32, Process>,
        mappings: HashMap<MapData, BlockKey, MappingBlock>,
    ) -> Self {
        Self {
            processes,
            mappings,
            blocks: Table::new(),
        }
    }

    /// Makes a process's mappings what the programs walk with.
    ///
    /// # Errors
    /// The kernel's refusal; the process is then unknown to the programs.
    pub(crate) fn install_process(&mut self, process: &KernelProcess) -> Result<(), MapError> {
        let tgid = process.tgid;
        // The programs search the old blocks until the new ones are complete.
        let old = self.blocks.remove(&tgid);
        let first_block = match &old {
            Some(old) if old.start == 0 => PROCESS_BLOCKS as u32,
            _ => 0,
        };
        let mut value = Process {
            start_time: process.start_time,
            exec_id: process.exec_id,
            first_block,
            starts: [u64::MAX; PROCESS_BLOCKS],
        };
        let blocks = process.mappings.chunks(BLOCK_MAPPINGS).take(PROCESS_BLOCKS);
        let new = first_block..first_block + blocks.len() as u32;
        // Known before they are there, so that a failure leaves none behind.
        self.blocks.insert(tgid, new.clone());
        for (nth, (block, mappings)) in new.zip(blocks).enumerate() {
            let mut content = MappingBlock {
                starts: [u64::MAX; BLOCK_MAPPINGS],
                mappings: [Mapping::default(); BLOCK_MAPPINGS],
            };
            for (slot, (start, mapping)) in mappings.iter().enumerate() {
                content.starts[slot] = *start;
                content.mappings[slot] = *mapping;
            }
            value.starts[nth] = content.starts[0];
            let written = self.mappings.insert(BlockKey { tgid, block }, content, 0);
            if let Err(error) = written {
                self.remove_process(tgid);
                if old.is_none() {
                    return Err(error);
                }
                // There may be room for one set of blocks, not for both.
                self.remove_blocks(tgid, old);
                return self.install_process(process);
            }
        }
        let written = self.processes.insert(tgid, value, 0);
        self.remove_blocks(tgid, old);
        if written.is_err() {
            self.remove_process(tgid);
        }
        written
    }

    fn remove_blocks(&mut self, tgid: u32, blocks: Option<Range<u32>>) {
        for block in blocks.unwrap_or_default() {
            let _absent = self.mappings.remove(&BlockKey { tgid, block });
        }
    }

    /// Makes the programs forget a process.
    pub(crate) fn remove_process(&mut self, tgid: u32) {
        let _absent = self.processes.remove(&tgid);
        let blocks = self.blocks.remove(&tgid);
        self.remove_blocks(tgid, blocks);
    }
}
