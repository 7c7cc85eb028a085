//! A process as the kernel side is to know it: which of its mappings, and how the code in each is unwound.

use ipc_proto::sample::{Backing, Mapping};
use leadsman_ebpf::abi::{self, mapping_kind};
use leadsman_ebpf::limits::MAX_MAPPINGS;

use crate::executables::Executables;
use crate::processes::Process;

/// What is written into the maps of one process.
#[derive(Debug)]
pub(crate) struct KernelProcess {
    pub(crate) tgid: u32,
    pub(crate) start_time: u64,
    pub(crate) exec_id: u32,
    /// First address and mapping, ascending.
    pub(crate) mappings: Vec<(u64, abi::Mapping)>,
}

impl KernelProcess {
    /// With the mappings that may be believed, as far as there is room.
    pub(crate) fn of(process: &Process, executables: &Executables) -> Self {
        let image = &process.image;
        let live = image.mappings.live();
        let settled = live.filter(|mapping| !process.is_unsettled(mapping.start));
        let mappings = settled.take(MAX_MAPPINGS).map(|mapping| {
            let kernel = abi::Mapping {
                end: mapping.end,
                to_file_offset: mapping.file_offset.wrapping_sub(mapping.start),
                table: mapping.executable.0,
                kind: kind(mapping, executables),
            };
            (mapping.start, kernel)
        });
        Self {
            tgid: image.pid,
            start_time: image.start_time,
            exec_id: image.exec_id,
            mappings: mappings.collect(),
        }
    }
}

/// One of [`mapping_kind`].
fn kind(mapping: &Mapping, executables: &Executables) -> u32 {
    let is_file = mapping.backing == Backing::File as u8;
    if is_file && executables.has_no_table(mapping.executable) {
        mapping_kind::UNREADABLE
    } else if is_file || mapping.backing == Backing::Vdso as u8 {
        mapping_kind::TABLE
    } else {
        mapping_kind::FRAME_POINTER
    }
}
