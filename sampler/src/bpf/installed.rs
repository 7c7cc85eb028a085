//! What of one unwind table is in the kernel, and when it was used last.

use std::os::fd::OwnedFd;

use ipc_proto::ids::ExecutableId;
use ipc_proto::table_file::TableFile;
use leadsman_ebpf::abi::MISSING_SHIFT;
use leadsman_ebpf::limits::REGION_BITS;
use leadsman_ebpf::table::{Region, region_of};

/// A table.
#[derive(Debug)]
pub(crate) struct Installed {
    /// Its bytes, to fetch missing chunks from; `None`: all of it is in the kernel.
    pub(crate) file: Option<OwnedFd>,
    pub(crate) bytes: u64,
    /// When a frame lay in it last.
    pub(crate) used: u32,
    /// Ascending.
    pub(crate) regions: Vec<InstalledRegion>,
}

/// One region of it.
#[derive(Debug)]
pub(crate) struct InstalledRegion {
    pub(crate) number: u32,
    /// Whether its directory is in the kernel.
    pub(crate) is_present: bool,
    /// Index of its first chunk in the table.
    pub(crate) first: usize,
    /// Where each chunk starts, bytes from the region's start.
    starts: Vec<u32>,
    pub(crate) slots: Vec<Slot>,
}

/// One chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Its number in the kernel; 0: it is not there.
    pub(crate) number: u32,
    /// When a frame lay in it last.
    pub(crate) used: u32,
    pub(crate) rows: u16,
}

/// What is given up at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) used: u32,
    pub(crate) table: ExecutableId,
    /// Region and slot of a chunk; `None`: the whole table.
    pub(crate) slot: Option<(usize, usize)>,
    pub(crate) chunks: u32,
}

impl Installed {
    /// A table of which nothing is in the kernel yet; `rows` of each chunk.
    pub(crate) fn new(
        table: &TableFile<'_>,
        file: OwnedFd,
        bytes: u64,
        rows: &[u16],
        now: u32,
    ) -> Self {
        let mut first = 0;
        let regions = table.regions().map(|(number, region)| {
            let count = region.count as usize;
            let rows = rows.iter().skip(first).take(count);
            let new = InstalledRegion {
                number,
                is_present: false,
                first,
                starts: region.starts.iter().take(count).copied().collect(),
                slots: rows
                    .map(|rows| Slot {
                        number: 0,
                        used: now,
                        rows: *rows,
                    })
                    .collect(),
            };
            first += count;
            new
        });
        Self {
            file: Some(file),
            bytes,
            used: now,
            regions: regions.collect(),
        }
    }

    /// Region, slot and number of each chunk.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        self.regions.iter().enumerate().flat_map(|(nth, region)| {
            (0..region.slots.len()).map(move |slot| (nth, slot, region.first + slot))
        })
    }

    /// Chunks of the whole table.
    pub(crate) fn chunk_count(&self) -> usize {
        self.regions
            .last()
            .map_or(0, |region| region.first + region.slots.len())
    }

    /// Index of a region, if the table has it.
    pub(crate) fn region(&self, number: u32) -> Option<usize> {
        self.regions
            .binary_search_by_key(&number, |region| region.number)
            .ok()
    }

    /// The chunk that covers a file offset.
    pub(crate) fn slot(&mut self, file_offset: u64) -> Option<&mut Slot> {
        let nth = self.region(region_of(file_offset))?;
        let region = self.regions.get_mut(nth)?;
        let within = file_offset & ((1 << REGION_BITS) - 1);
        let behind = region.behind(within);
        region.slots.get_mut(behind.checked_sub(1)?)
    }

    /// What of it can be given up: each chunk, or all at once when nothing is kept to fetch them from again.
    pub(crate) fn units(&self, table: ExecutableId) -> Vec<Unit> {
        if self.file.is_none() {
            return vec![Unit {
                used: self.used,
                table,
                slot: None,
                chunks: self.chunk_count() as u32,
            }];
        }
        let slots = self.places().filter_map(|(region, slot, _)| {
            let about = self.regions.get(region)?.slots.get(slot)?;
            (about.number != 0).then_some(Unit {
                used: about.used,
                table,
                slot: Some((region, slot)),
                chunks: 1,
            })
        });
        slots.collect()
    }

    /// What of it can be given up to make room for a region: last use, and which region; `None`: all at once.
    pub(crate) fn region_units(
        &self,
        table: ExecutableId,
    ) -> Vec<(u32, ExecutableId, Option<usize>)> {
        if self.file.is_none() {
            return vec![(self.used, table, None)];
        }
        let present = self.regions.iter().enumerate();
        present
            .filter(|(_, region)| region.is_present)
            .map(|(nth, region)| {
                let used = region.slots.iter().map(|slot| slot.used).max();
                (used.unwrap_or_default(), table, Some(nth))
            })
            .collect()
    }
}

impl InstalledRegion {
    /// The kernel's directory of it.
    pub(crate) fn directory(&self) -> Region {
        let mut region = Region::EMPTY;
        let places = region.starts.iter_mut().zip(region.chunks.iter_mut());
        for ((start, chunk), (from, slot)) in places.zip(self.starts.iter().zip(&self.slots)) {
            *start = *from;
            *chunk = slot.number;
            region.count += 1;
        }
        region
    }

    /// Index behind the last chunk that starts not above `within`.
    fn behind(&self, within: u64) -> usize {
        self.starts
            .partition_point(|start| u64::from(*start) <= within)
    }

    /// The chunks around the page that starts `within` bytes behind the region's start, as far as they are missing.
    pub(crate) fn missing(&self, within: u64) -> Vec<usize> {
        let first = self.behind(within).saturating_sub(1);
        let end = self.behind(within + (1 << MISSING_SHIFT) - 1);
        (first..end)
            .filter(|slot| self.slots.get(*slot).is_some_and(|slot| slot.number == 0))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(starts: &[u32], present: &[bool]) -> InstalledRegion {
        let slots = present.iter().map(|present| Slot {
            number: u32::from(*present),
            used: 0,
            rows: 1,
        });
        InstalledRegion {
            number: 3,
            is_present: true,
            first: 7,
            starts: starts.to_vec(),
            slots: slots.collect(),
        }
    }

    #[test]
    fn a_page_lacks_the_chunks_that_cover_it() {
        let region = region(
            &[0x100, 0x1800, 0x1c00, 0x5000],
            &[false, false, true, false],
        );
        assert_eq!(region.missing(0), [0]);
        assert_eq!(
            region.missing(0x1000),
            [0, 1],
            "all that reach into the page"
        );
        assert_eq!(region.missing(0x3000), [], "what covers it is there");
        assert_eq!(region.missing(0x9000), [3]);
    }

    #[test]
    fn the_kernels_directory_names_what_is_there() {
        let directory = region(&[0x100, 0x1800], &[false, true]).directory();
        assert_eq!(directory.count, 2);
        assert_eq!(directory.starts[..3], [0x100, 0x1800, u32::MAX]);
        assert_eq!(directory.chunks[..2], [0, 1]);
    }

    #[test]
    fn a_table_without_a_file_goes_whole() {
        let mut table = Installed {
            file: None,
            bytes: 0,
            used: 5,
            regions: vec![region(&[0, 0x100], &[true, true])],
        };
        table.regions[0].first = 0;
        let units = table.units(ExecutableId(9));
        assert_eq!(units.len(), 1);
        assert_eq!(
            (units[0].used, units[0].chunks, units[0].slot),
            (5, 2, None)
        );
        let slot = table.slot((3 << REGION_BITS) + 0x150);
        assert!(slot.is_some());
        assert!(table.slot(4 << REGION_BITS).is_none());
    }
}
