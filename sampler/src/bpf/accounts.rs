//! What the maps take of the kernel's memory, by its own account: `memlock` in each map's fdinfo.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

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

/// The kind of a map that nobody named; `None`: no map.
fn kind(fdinfo: &str) -> Option<MapKind> {
    Some(match field(fdinfo, "map_type")? {
        RINGBUF => MapKind::Ring,
        _ => MapKind::Other,
    })
}

/// The fdinfo of each map of this process.
pub(crate) struct MapAccounts(Vec<(MapKind, OwnedFd)>);

impl MapAccounts {
    /// Call once the maps are there and before the lockdown: afterwards this process opens nothing. Maps that are not
    /// among the `named` ones are told by their type.
    pub(crate) fn open(named: &[(MapKind, BorrowedFd<'_>)]) -> Self {
        let entries = fs::read_dir("/proc/self/fdinfo").into_iter().flatten();
        let maps = entries.flatten().filter_map(|entry| {
            let number: RawFd = entry.file_name().to_str()?.parse().ok()?;
            let named = named.iter().find(|(_, fd)| fd.as_raw_fd() == number);
            let kind = match named {
                Some((kind, _)) => *kind,
                None => kind(&fs::read_to_string(entry.path()).ok()?)?,
            };
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
    fn rings_other_maps_and_files_are_told_apart() {
        let fdinfo = |of: u64| {
            format!("pos:\t0\nflags:\t02000002\nmap_type:\t{of}\nkey_size:\t4\nmemlock:\t4096\n")
        };
        assert_eq!(kind(&fdinfo(RINGBUF)), Some(MapKind::Ring));
        assert_eq!(kind(&fdinfo(6)), Some(MapKind::Other));
        assert_eq!(kind("pos:\t0\nflags:\t02000000\n"), None, "no map");
        assert_eq!(field(&fdinfo(1), "memlock"), Some(4096));
    }
}
