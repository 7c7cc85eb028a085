//! Notices when kernel modules come and go, by `/proc/modules`: the kernel's symbols must be read again then.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek};

/// Bytes of the list that are looked at; a machine with all modules loaded has some 500 KB.
const MAX_TEXT: u64 = 4 << 20;

/// The list, and what it said last.
#[derive(Debug)]
pub(crate) struct Modules {
    file: Option<File>,
    last: u64,
}

impl Modules {
    /// Follows this file; without one nothing ever changes.
    pub(crate) fn new(file: Option<File>) -> Self {
        let mut modules = Self { file, last: 0 };
        modules.have_changed();
        modules
    }

    /// Whether other modules are loaded, or elsewhere, than at the last call.
    pub(crate) fn have_changed(&mut self) -> bool {
        let Some(now) = self.file.as_mut().and_then(fingerprint) else {
            return false;
        };
        std::mem::replace(&mut self.last, now) != now
    }
}

/// Of each module's name and address: the rest of a line changes with its use.
fn fingerprint(file: &mut File) -> Option<u64> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(MAX_TEXT).read_to_string(&mut text).ok()?;
    let mut hasher = DefaultHasher::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        // name, size, users, who they are, state, address
        (words.next(), words.nth(4)).hash(&mut hasher);
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn write(mut file: &File, text: &str) {
        file.set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn modules_that_come_and_go_are_noticed_and_their_users_are_not() {
        const TABLES: &str = "nf_tables 303104 7 nft_ct, Live 0xffffffffc0b3a000\n";
        const LOOP: &str = "loop 40960 0 - Live 0xffffffffc0100000\n";
        let file = tempfile::tempfile().unwrap();
        write(&file, TABLES);
        let mut modules = Modules::new(Some(file.try_clone().unwrap()));
        assert!(!modules.have_changed());
        write(&file, &TABLES.replace("7 nft_ct,", "9 nft_ct,nft_nat,"));
        assert!(!modules.have_changed(), "more users are no other module");
        write(&file, &format!("{TABLES}{LOOP}"));
        assert!(modules.have_changed());
        assert!(!modules.have_changed());
        write(&file, LOOP);
        assert!(modules.have_changed());
        assert!(!Modules::new(None).have_changed());
    }
}
