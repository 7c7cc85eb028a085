//! Owns one process's perf map (`/tmp/perf-PID.map`; tools/perf/Documentation/jit-interface.txt of the kernel): names
//! of generated code. The process writes the text, so it is bounded and its names are cleaned.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::io::{BufRead, Read};

use crate::names::clean;

/// Bytes of the text that are read.
const MAX_TEXT: u64 = 64 << 20;
/// Bytes of one line that are read; the rest of a longer one is left out.
const MAX_LINE: u64 = 8 << 10;
/// Entries that are kept.
const MAX_ENTRIES: usize = 1 << 20;
/// Entries before an address that are asked whether they cover it.
const MAX_NESTED: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Row {
    start: u64,
    end: u64,
    name: u32,
    length: u32,
}

/// A process's generated code.
#[derive(Debug, Default)]
pub struct PerfMap {
    rows: Vec<Row>,
    names: String,
    skipped: u64,
}

impl PerfMap {
    /// Reads lines of start and size (hexadecimal) and a name that goes on to the line's end. Where an address was
    /// used again, the later line counts. A read error ends the text.
    #[must_use]
    pub fn read(text: impl Read) -> Self {
        let mut map = Self::default();
        let mut reader = std::io::BufReader::with_capacity(64 << 10, text.take(MAX_TEXT));
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
            if !matches!(read, Ok(1..)) {
                break;
            }
            if !line.ends_with(b"\n") && line.len() as u64 >= MAX_LINE {
                let _rest = skip_line(&mut reader);
            }
            if map.rows.len() >= MAX_ENTRIES || map.push(&line).is_none() {
                map.skipped = map.skipped.saturating_add(1);
            }
        }
        // Stable, newest first within one start; then only the newest stays.
        map.rows.reverse();
        map.rows.sort_by_key(|row| row.start);
        map.rows.dedup_by_key(|row| row.start);
        map.rows.shrink_to_fit();
        map.names.shrink_to_fit();
        map
    }

    fn push(&mut self, line: &[u8]) -> Option<()> {
        let line = String::from_utf8_lossy(line);
        let (start, rest) = line.trim_start().split_once(' ')?;
        let (size, name) = rest.trim_start().split_once(' ')?;
        let start = hexadecimal(start)?;
        let size = hexadecimal(size)?;
        let name = clean(name.trim());
        if size == 0 || name.is_empty() {
            return None;
        }
        let row = Row {
            start,
            end: start.checked_add(size)?,
            name: u32::try_from(self.names.len()).ok()?,
            length: u32::try_from(name.len()).ok()?,
        };
        self.names.push_str(&name);
        self.rows.push(row);
        Some(())
    }

    /// The name of the code at an address of the process.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<&str> {
        let behind = self.rows.partition_point(|row| row.start <= address);
        let row = self
            .rows
            .get(..behind)?
            .iter()
            .rev()
            .take(MAX_NESTED)
            .find(|row| address < row.end)?;
        let start = row.name as usize;
        self.names
            .get(start..start.checked_add(row.length as usize)?)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Lines that were no entries, or too many.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Bytes of memory this holds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of_val(self.rows.as_slice()).saturating_add(self.names.len())
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).ok()
}

/// Reads on to the end of the line without keeping it.
fn skip_line(reader: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                reader.consume(at.saturating_add(1));
                return Ok(());
            }
            None => {
                let read = bytes.len();
                reader.consume(read);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_lines_count_and_names_may_have_spaces() {
        let text = "\
1000 20 old
3000 10 LazyCompile:*run /tmp/a b.js:3
0x1000 0x10 new name
zzz 10 bad
2000 0 empty
4000
";
        let map = PerfMap::read(text.as_bytes());
        assert_eq!(map.find(0x1008), Some("new name"));
        assert_eq!(map.find(0x1018), None, "the old line is gone");
        assert_eq!(map.find(0x300f), Some("LazyCompile:*run /tmp/a b.js:3"));
        assert_eq!(map.find(0x3010), None);
        assert_eq!((map.len(), map.skipped()), (2, 3));
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_read() {
        let text = format!("1000 10 {}\n2000 10 next\n", "x".repeat(100_000));
        let map = PerfMap::read(text.as_bytes());
        assert_eq!(map.find(0x2000), Some("next"));
        let name = map.find(0x1000).expect("kept");
        assert!(name.len() < 5000 && name.ends_with('…'));
    }

    #[test]
    fn control_characters_do_not_get_out() {
        let map = PerfMap::read(&b"1000 10 \x1b[2Jevil\xff\n"[..]);
        assert_eq!(map.find(0x1000), Some("\u{fffd}[2Jevil\u{fffd}"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_fatal(text: Vec<u8>, address: u64) {
            let _name = PerfMap::read(text.as_slice()).find(address);
        }
    }
}
