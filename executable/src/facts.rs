//! Owns what an executable's file says of itself as a whole: its identity by content, its compiler, whether it is static
//! and stripped. Labels are made of it; names and tables are not.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::sync::Arc;

use gimli::{EndianSlice, LittleEndian, Reader};
use sha2::{Digest, Sha256};

use crate::elf::{Class, Elf};
use crate::file_bytes::FileBytes;
use crate::section::Section;

/// Bytes at each end of the file that its identity is made of.
const EDGE: u64 = 4096;
/// Bytes of `.comment` that are looked at: one line for each compiler that had a part in it.
const MAX_COMMENT: u64 = 64 << 10;
/// Bytes of a version.
const MAX_VERSION: usize = 64;
/// Entries of `.dynamic` that are looked at.
const MAX_DYNAMIC: u64 = 64 << 10;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;

/// What a file says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// First half of the SHA-256 of the first and last 4,096 bytes and the size as 8 bytes, most significant first: how
    /// other eBPF profilers name a file without a build ID.
    pub file_id: [u8; 16],
    /// Compiler and version, as `GCC 12.2.0`.
    pub compiler: Option<String>,
    /// Whether it needs no shared library.
    pub is_static: bool,
    /// Whether it has no symbol table.
    pub is_stripped: bool,
    /// The version of Go it was built by, as `1.26.1`.
    pub go_version: Option<String>,
}

impl Facts {
    /// Reads a file; what can't be read is left out.
    #[must_use]
    pub fn read(file: &Arc<FileBytes>, elf: &Elf) -> Self {
        let go_version = go_version(file, elf);
        let compiler = match &go_version {
            Some(version) => Some(format!("Go {version}")),
            None => comment_compiler(file, elf),
        };
        Self {
            file_id: file_id(file),
            compiler,
            is_static: !needs_library(file, elf),
            is_stripped: elf.section(b".symtab").is_none(),
            go_version,
        }
    }
}

fn file_id(file: &FileBytes) -> [u8; 16] {
    let mut hash = Sha256::new();
    for offset in [0, file.len().saturating_sub(EDGE)] {
        hash.update(file.read_up_to(offset, EDGE).unwrap_or_default());
    }
    hash.update(file.len().to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let half = digest.first_chunk::<16>();
    half.copied().unwrap_or_default()
}

/// Compilers by what they write into `.comment`, those first that leave the linker and the C library's start files to
/// another one.
const COMPILERS: [(&str, &str); 6] = [
    ("rustc version ", "Rust"),
    ("GHC ", "GHC"),
    ("FPC ", "FPC"),
    ("ldc version ", "LDC"),
    ("clang version ", "Clang"),
    ("GCC: ", "GCC"),
];

fn comment_compiler(file: &Arc<FileBytes>, elf: &Elf) -> Option<String> {
    let header = elf.section(b".comment")?;
    let section = Section::open(file, elf.class(), header, 0).ok()?;
    let comment = section
        .read(0, section.len().min(MAX_COMMENT))
        .ok()?
        .into_owned();
    compiler_of(&comment)
}

fn compiler_of(comment: &[u8]) -> Option<String> {
    let lines: Vec<_> = comment
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    COMPILERS.iter().find_map(|(mark, name)| {
        lines.iter().find_map(|line| {
            let (_, rest) = line.split_once(mark)?;
            // GCC: (Debian 12.2.0-14) 12.2.0
            let version = match name {
                &"GCC" => rest.rsplit_once(") ").map_or(rest, |(_, version)| version),
                _ => rest,
            };
            let version = version.split_ascii_whitespace().next()?;
            is_version(version).then(|| format!("{name} {version}"))
        })
    })
}

/// Whether a word starts with a digit and has only what versions are made of.
pub(crate) fn is_version(word: &str) -> bool {
    word.len() <= MAX_VERSION
        && word.starts_with(|first: char| first.is_ascii_digit())
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-+_~".contains(&byte))
}

fn needs_library(file: &Arc<FileBytes>, elf: &Elf) -> bool {
    let Some(header) = elf.section(b".dynamic") else {
        // Without section headers nothing is known; a file without `.dynamic` can name no library.
        return false;
    };
    let Ok(section) = Section::open(file, elf.class(), header, 0) else {
        return false;
    };
    let Ok(bytes) = section.read(0, section.len().min(MAX_DYNAMIC)) else {
        return false;
    };
    let mut fields = EndianSlice::new(&bytes, LittleEndian);
    let word = |fields: &mut EndianSlice<'_, LittleEndian>| match elf.class() {
        Class::Elf32 => fields.read_u32().map(u64::from),
        Class::Elf64 => fields.read_u64(),
    };
    while let (Ok(tag), Ok(_value)) = (word(&mut fields), word(&mut fields)) {
        match tag {
            DT_NULL => return false,
            DT_NEEDED => return true,
            _ => {}
        }
    }
    false
}

/// The version in `.go.buildinfo` (debug/buildinfo of Go's standard library): since Go 1.18 the string itself, before
/// that the address of its header.
fn go_version(file: &Arc<FileBytes>, elf: &Elf) -> Option<String> {
    let header = elf.section(b".go.buildinfo")?;
    let start = file.read_up_to(header.offset, 256).ok()?;
    let rest = start.strip_prefix(b"\xff Go buildinf:")?;
    let (&[pointer_size, flags], _) = rest.split_first_chunk::<2>()?;
    let version = if flags & 2 != 0 {
        let text = start.get(32..)?;
        let (&length, text) = text.split_first()?;
        // Longer than 127 bytes is no version of Go.
        text.get(..usize::from(length))?.to_vec()
    } else {
        if pointer_size != 8 || flags & 1 != 0 {
            return None;
        }
        let at = |address: u64, length: u64| {
            let offset = elf.file_offset_of(address)?;
            file.read(offset, length).ok()
        };
        let number = |bytes: &[u8], index: usize| {
            let chunk = bytes.chunks_exact(8).nth(index)?;
            Some(u64::from_le_bytes(chunk.try_into().ok()?))
        };
        let string = at(number(start.get(16..)?, 0)?, 16)?;
        let (address, length) = (number(&string, 0)?, number(&string, 1)?);
        at(address, length.min(MAX_VERSION as u64))?.into_owned()
    };
    let version = String::from_utf8(version).ok()?;
    // `go1.26.1 X:nocoverageredesign`, `devel go1.27-abc ...`
    let version = version
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("go"))?;
    is_version(version).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(path: &str) -> Facts {
        let file = std::fs::File::open(path).expect("open");
        let file = Arc::new(FileBytes::of_file(file).expect("file"));
        let elf = Elf::read(&file).expect("ELF");
        Facts::read(&file, &elf)
    }

    #[test]
    fn this_test_was_made_by_rust_and_needs_the_c_library() {
        let own = facts("/proc/self/exe");
        let compiler = own.compiler.expect("rustc says so");
        assert!(compiler.starts_with("Rust 1."), "{compiler}");
        assert!(!own.is_static && !own.is_stripped && own.go_version.is_none());
    }

    #[test]
    fn the_identity_is_made_of_both_ends_and_the_size() {
        // Computed by: (head -c 4096 F; tail -c 4096 F; printf '\0\0\0\0\0\0\x27\x10') | sha256sum
        let mut bytes = vec![b'a'; 5_000];
        bytes.extend(vec![b'b'; 5_000]);
        let id = file_id(&FileBytes::of_memory(bytes));
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "cdde90f23a102957bc93fef3d1335735");
        // A short file's ends overlap.
        assert_ne!(file_id(&FileBytes::of_memory(vec![1])), [0; 16]);
    }

    #[test]
    fn the_compiler_is_the_one_that_did_not_only_link() {
        for (comment, compiler) in [
            (&b"GCC: (Debian 12.2.0-14) 12.2.0\0"[..], Some("GCC 12.2.0")),
            (
                b"GCC: (GNU) 4.8.5 20150623 (Red Hat 4.8.5-44)\0",
                Some("GCC 4.8.5"),
            ),
            (
                b"GCC: (Debian 12.2.0-14) 12.2.0\0Debian clang version 14.0.6\0",
                Some("Clang 14.0.6"),
            ),
            (
                b"\0GCC: (GNU) 13.2.1 20230801\0rustc version 1.95.0 (59807616e 2026-04-14)\0",
                Some("Rust 1.95.0"),
            ),
            (b"GCC: (GNU) 13.2.1 20230801\0", Some("GCC 13.2.1")),
            (b"GCC: \xff\xfe\0", None),
            (b"", None),
        ] {
            let found = compiler_of(comment);
            assert_eq!(found.as_deref(), compiler, "{comment:?}");
        }
    }
}
