//! Parses `/proc/PID/maps` of processes that are older than the sampler. The text is the kernel's, the names in it
//! are anybody's: they are bytes, bounded, and never part of a path that this process opens.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

use ipc_proto::limits::MAX_PATH;

use crate::sideband::NewMapping;

/// Bytes of a maps file that are read: some 100,000 mappings.
pub(crate) const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The executable mappings in a maps file, in address order; lines that do not parse are left out.
pub(crate) fn executable_mappings(text: &[u8]) -> Vec<NewMapping> {
    text.split(|byte| *byte == b'\n')
        .filter_map(mapping)
        .collect()
}

/// One line: `start-end perms offset major:minor inode path` (fs/proc/task_mmu.c, `show_map_vma`).
fn mapping(line: &[u8]) -> Option<NewMapping> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut range = fields.next()?.splitn(2, |byte| *byte == b'-');
    let start = hexadecimal(range.next()?)?;
    let end = hexadecimal(range.next()?)?;
    if fields.next()?.get(2) != Some(&b'x') || end <= start {
        return None;
    }
    let file_offset = hexadecimal(fields.next()?)?;
    let mut device = fields.next()?.splitn(2, |byte| *byte == b':');
    let major = hexadecimal(device.next()?)?;
    let minor = hexadecimal(device.next()?)?;
    let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    Some(NewMapping {
        start,
        end,
        file_offset,
        build_id: Vec::new(),
        device: major << 32 | minor,
        inode,
        path: path.get(..MAX_PATH).unwrap_or(path).to_vec(),
    })
}

fn hexadecimal(text: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_lines_are_kept_whatever_their_names() {
        let text = b"00400000-00452000 r-xp 00001000 08:02 173521      /usr/bin/a name (deleted)\n\
            00651000-00652000 r--p 00051000 08:02 173521      /usr/bin/dbus-daemon\n\
            7f0000000000-7f0000001000 rwxp 00000000 00:00 0 \n\
            garbage\n\
            7ffe1000-7ffe2000 r-xp 00000000 00:00 0 [vdso]\n";
        let mappings = executable_mappings(text);
        assert_eq!(mappings.len(), 3);
        assert_eq!(mappings[0].path, b"/usr/bin/a name");
        assert_eq!(
            (mappings[0].start, mappings[0].end, mappings[0].file_offset),
            (0x40_0000, 0x45_2000, 0x1000)
        );
        assert_eq!(
            (mappings[0].device, mappings[0].inode),
            (8 << 32 | 2, 173_521)
        );
        assert!(mappings[1].path.is_empty());
        assert_eq!(mappings[2].path, b"[vdso]");
    }

    #[test]
    fn reads_its_own() {
        let text = std::fs::read("/proc/self/maps").expect("readable");
        assert!(executable_mappings(&text).len() >= 2);
    }
}
