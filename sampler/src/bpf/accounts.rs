//! What the maps take of the kernel's memory, by its own account: `memlock` in each map's fdinfo.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use leadsman_ebpf::abi::{MappingBlock, Process};
use leadsman_ebpf::table::{Chunk, Region};
use rustix::io::pread;

/// `BPF_MAP_TYPE_RINGBUF` (include/uapi/linux/bpf.h).
const RINGBUF: u64 = 27;

/// What a map is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapKind {
    Chunks,
    Regions,
    Processes,
    Mappings,
    Ring,
    Other,
}

impl MapKind {
    fn of(fdinfo: &str) -> Option<Self> {
        let value_size = field(fdinfo, "value_size")? as usize;
        Some(if field(fdinfo, "map_type")? == RINGBUF {
            Self::Ring
        } else if value_size == size_of::<Chunk>() {
            Self::Chunks
        } else if value_size == size_of::<Region>() {
            Self::Regions
        } else if value_size == size_of::<Process>() {
            Self::Processes
        } else if value_size == size_of::<MappingBlock>() {
            Self::Mappings
        } else {
            Self::Other
        })
    }
}

/// The fdinfo of each map of this process.
pub(crate) struct MapAccounts(Vec<(MapKind, OwnedFd)>);

impl MapAccounts {
    /// Call once the maps are there and before the lockdown: afterwards this process opens nothing.
    pub(crate) fn open() -> Self {
        let entries = fs::read_dir("/proc/self/fdinfo").into_iter().flatten();
        let maps = entries.flatten().filter_map(|entry| {
            let kind = MapKind::of(&fs::read_to_string(entry.path()).ok()?)?;
            Some((kind, File::open(entry.path()).ok()?.into()))
        });
        Self(maps.collect())
    }

    /// Bytes that the maps of a kind take. Kernels before 6.4 give a hash map's greatest possible size instead.
    pub(crate) fn bytes(&self, kind: MapKind) -> u64 {
        let maps = self.0.iter().filter(|(of, _)| *of == kind);
        maps.filter_map(|(_, fdinfo)| memlock(fdinfo)).sum()
    }
}

fn memlock(fdinfo: &OwnedFd) -> Option<u64> {
    let mut text = [0; 1024];
    let length = pread(fdinfo, &mut text, 0).ok()?;
    field(std::str::from_utf8(text.get(..length)?).ok()?, "memlock")
}

/// `name:\tnumber` on a line of its own.
fn field(text: &str, name: &str) -> Option<u64> {
    let lines = text.lines();
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_told_apart_by_what_they_hold() {
        let fdinfo = |kind: u64, value: usize| {
            format!(
                "pos:\t0\nflags:\t02000002\nmap_type:\t{kind}\nkey_size:\t4\nvalue_size:\t{value}\nmemlock:\t4096\n"
            )
        };
        assert_eq!(
            MapKind::of(&fdinfo(1, size_of::<Chunk>())),
            Some(MapKind::Chunks)
        );
        assert_eq!(MapKind::of(&fdinfo(RINGBUF, 0)), Some(MapKind::Ring));
        assert_eq!(MapKind::of(&fdinfo(6, 8)), Some(MapKind::Other));
        assert_eq!(MapKind::of("pos:\t0\nflags:\t02000000\n"), None, "no map");
        assert_eq!(field(&fdinfo(1, 8), "memlock"), Some(4096));
    }
}
