//! The only writer of the maps by which the BPF programs know processes and their executable mappings.

use std::collections::HashMap as Table;

use aya::maps::{HashMap, MapData, MapError};
use leadsman_ebpf::abi::{BlockKey, Mapping, MappingBlock, Process};
use leadsman_ebpf::limits::{BLOCK_MAPPINGS, PROCESS_BLOCKS};

use crate::engine::KernelProcess;

/// The maps, and what is in them.
pub(crate) struct Mappings {
    processes: HashMap<MapData, u32, Process>,
    mappings: HashMap<MapData, BlockKey, MappingBlock>,
    /// Blocks of each installed process.
    blocks: Table<u32, u32>,
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
}
