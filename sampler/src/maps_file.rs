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
///
/// Anonymous executable memory between two pieces of one file, where that file's own bytes would be, is text that was
/// moved to huge pages: it is reported as the file's.
pub(crate) fn executable_mappings(text: &[u8]) -> Vec<NewMapping> {
    let mut found: Vec<NewMapping> = Vec::new();
    // The last piece of a file, and where in `found` anonymous memory stands right behind it.
    let mut piece: Option<NewMapping> = None;
    let mut behind: Vec<usize> = Vec::new();
    for (mapping, is_executable) in text.split(|byte| *byte == b'\n').filter_map(mapping) {
        let touches = |end: u64| end == mapping.start;
        if mapping.inode == 0 {
            let reached = behind
                .last()
                .and_then(|&index| found.get(index))
                .or(piece.as_ref())
                .map(|before| before.end);
            if !mapping.path.is_empty() || !reached.is_some_and(touches) {
                (piece, behind) = (None, Vec::new());
            } else if is_executable {
                behind.push(found.len());
            }
        } else {
            if let Some(piece) = &piece {
                let end = behind
                    .last()
                    .and_then(|&index| found.get(index))
                    .map_or(piece.end, |last| last.end);
                let continues = touches(end)
                    && (piece.device, piece.inode) == (mapping.device, mapping.inode)
                    && mapping.start.wrapping_sub(piece.start)
                        == mapping.file_offset.wrapping_sub(piece.file_offset);
                for &index in behind.iter().filter(|_| continues) {
                    if let Some(moved) = found.get_mut(index) {
                        let distance = moved.start.wrapping_sub(piece.start);
                        *moved = NewMapping {
                            start: moved.start,
                            end: moved.end,
                            file_offset: piece.file_offset.wrapping_add(distance),
                            ..piece.clone()
                        };
                    }
                }
            }
            (piece, behind) = (Some(mapping.clone()), Vec::new());
        }
        if is_executable {
            found.push(mapping);
        }
    }
    found
}

/// One line: `start-end perms offset major:minor inode path` (fs/proc/task_mmu.c, `show_map_vma`), and whether it is
/// executable.
fn mapping(line: &[u8]) -> Option<(NewMapping, bool)> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut range = fields.next()?.splitn(2, |byte| *byte == b'-');
    let start = hexadecimal(range.next()?)?;
    let end = hexadecimal(range.next()?)?;
    let is_executable = fields.next()?.get(2) == Some(&b'x');
    if end <= start {
        return None;
    }
    let file_offset = hexadecimal(fields.next()?)?;
    let mut device = fields.next()?.splitn(2, |byte| *byte == b':');
    let major = hexadecimal(device.next()?)?;
    let minor = hexadecimal(device.next()?)?;
    let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let mapping = NewMapping {
        start,
        end,
        file_offset,
        build_id: Vec::new(),
        device: major << 32 | minor,
        inode,
        path: path.get(..MAX_PATH).unwrap_or(path).to_vec(),
    };
    Some((mapping, is_executable))
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
    fn text_moved_to_huge_pages_is_the_files() {
        let line = |range: &str, perms: &str, offset: &str, inode: &str| {
            format!("{range} {perms} {offset} 08:02 {inode} /bin/a\n")
        };
        let anonymous = |range: &str| format!("{range} r-xp 00000000 00:00 0 \n");
        let moved = line("1000-2000", "r--p", "00000000", "7")
            + &anonymous("2000-4000")
            + &anonymous("4000-5000")
            + &line("5000-6000", "r--p", "00004000", "7");
        let mappings = executable_mappings(moved.as_bytes());
        let places: Vec<_> = mappings
            .iter()
            .map(|mapping| (mapping.start, mapping.file_offset, mapping.inode))
            .collect();
        assert_eq!(places, [(0x2000, 0x1000, 7), (0x4000, 0x3000, 7)]);

        for other in [
            // Another distance, another file, a hole, the end.
            line("1000-2000", "r--p", "00000000", "7")
                + &anonymous("2000-5000")
                + &line("5000-6000", "r--p", "00003000", "7"),
            line("1000-2000", "r--p", "00000000", "7")
                + &anonymous("2000-5000")
                + &line("5000-6000", "r--p", "00004000", "8"),
            line("1000-2000", "r--p", "00000000", "7")
                + &anonymous("3000-5000")
                + &line("5000-6000", "r--p", "00004000", "7"),
            line("1000-2000", "r--p", "00000000", "7") + &anonymous("2000-5000"),
        ] {
            let mappings = executable_mappings(other.as_bytes());
            assert_eq!(mappings.len(), 1);
            assert_eq!(mappings[0].inode, 0, "{other}");
        }
    }

    #[test]
    fn reads_its_own() {
        let text = std::fs::read("/proc/self/maps").expect("readable");
        assert!(executable_mappings(&text).len() >= 2);
    }
}
