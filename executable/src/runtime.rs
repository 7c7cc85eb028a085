//! Owns what language runtimes look like from outside: which file of a process is one, and where it says its version.
//! It walks no interpreter's frames.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use gimli::{EndianSlice, LittleEndian, Reader};

use crate::elf::{Class, Elf};
use crate::facts::is_version;
use crate::file_bytes::FileBytes;
use crate::reason::Reason;
use crate::work::Work;

/// Bytes of `.rodata` that are searched for a version.
const MAX_SEARCH: u64 = 96 << 20;
/// Bytes searched at a time, and how far two of these overlap.
const CHUNK: u64 = 1 << 20;
const OVERLAP: u64 = 128;
/// Bytes of a symbol table and of its names.
const MAX_SYMBOLS: u64 = 4 << 20;

/// A language runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// CPython.
    Python,
    /// CRuby.
    Ruby,
    /// Node.js.
    Node,
    /// HotSpot.
    Java,
    /// Erlang's BEAM.
    Erlang,
    /// Perl.
    Perl,
    /// PHP.
    Php,
    /// .NET's CoreCLR.
    Dotnet,
}

/// Runtimes by how the name of their program or library starts; what follows are digits, points and `.so`.
const NAMES: [(&str, Runtime); 15] = [
    ("libpython", Runtime::Python),
    ("python", Runtime::Python),
    ("libruby", Runtime::Ruby),
    ("ruby", Runtime::Ruby),
    ("libnode", Runtime::Node),
    ("nodejs", Runtime::Node),
    ("node", Runtime::Node),
    ("libjvm", Runtime::Java),
    ("beam.smp", Runtime::Erlang),
    ("libperl", Runtime::Perl),
    ("perl", Runtime::Perl),
    ("libphp", Runtime::Php),
    ("php-fpm", Runtime::Php),
    ("php", Runtime::Php),
    ("libcoreclr", Runtime::Dotnet),
];

impl Runtime {
    /// What the label says.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Ruby => "ruby",
            Self::Node => "nodejs",
            Self::Java => "java",
            Self::Erlang => "erlang",
            Self::Perl => "perl",
            Self::Php => "php",
            Self::Dotnet => "dotnet",
        }
    }

    /// The runtime that a file is, by its path.
    #[must_use]
    pub fn of_path(path: &str) -> Option<Self> {
        let name = file_name(path);
        let found = NAMES.iter().find(|(start, _)| {
            name.strip_prefix(start).is_some_and(|rest| {
                let rest = rest.split_once(".so").map_or(rest, |(version, _)| version);
                rest.bytes()
                    .all(|byte| byte.is_ascii_digit() || b".-_mdut".contains(&byte))
            })
        });
        found.map(|(_, runtime)| *runtime)
    }

    /// The version that such a file says it is.
    pub(crate) fn version(
        self,
        path: &str,
        file: &FileBytes,
        elf: &Elf,
        work: &Work,
    ) -> Result<Option<String>, Reason> {
        let search = |needle: &[u8], end: &[u8]| find_version(file, elf, work, needle, end);
        let found = match self {
            Self::Python => match symbol_bytes(file, elf, work, b"Py_Version", 8)? {
                Some(hex) => python_version(&hex),
                None => {
                    let name = name_version(file_name(path));
                    match name.as_deref().filter(|name| name.contains('.')) {
                        Some(name) => {
                            let exact = search(format!("\0{name}.").as_bytes(), b"\0")?;
                            exact
                                .map(|patch| format!("{name}.{patch}"))
                                .or(name_version(file_name(path)))
                        }
                        None => None,
                    }
                }
            },
            Self::Ruby => search(b"\0ruby ", b"p (")?,
            Self::Node => search(b"/node-v", b"/")?
                .and_then(|found| Some(found.strip_suffix(".tar.gz")?.to_owned()))
                .or(search(b"node-v", b".tar")?),
            Self::Java => search(b" JRE (", b")")?,
            Self::Perl => search(b"\0v5.", b"\0")?.map(|rest| format!("5.{rest}")),
            Self::Php => search(b"\0X-Powered-By: PHP/", b"\0")?,
            Self::Erlang => directory_version(path, "erts-"),
            Self::Dotnet => directory_version(path, ""),
        };
        Ok(found.or_else(|| name_version(file_name(path))))
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The version in a file name: `python3.11`, `libruby-3.1.so.3.1.2`.
fn name_version(name: &str) -> Option<String> {
    let start = name.find(|character: char| character.is_ascii_digit())?;
    let rest = name.get(start..)?;
    let end = rest
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(rest.len());
    let version = rest.get(..end)?.trim_matches('.');
    is_version(version).then(|| version.to_owned())
}

/// The version that a directory on the way is called by.
fn directory_version(path: &str, before: &str) -> Option<String> {
    path.split('/')
        .rev()
        .skip(1)
        .filter_map(|directory| directory.strip_prefix(before))
        .find(|version| is_version(version))
        .map(str::to_owned)
}

/// `PY_VERSION_HEX`: major, minor, micro, level and serial, as 8, 8, 8, 4 and 4 bits.
fn python_version(bytes: &[u8]) -> Option<String> {
    let number = u64::from_le_bytes(bytes.try_into().ok()?);
    let [0, 0, 0, 0, major, minor, micro, level] = number.to_be_bytes() else {
        return None;
    };
    let level = match (level >> 4, level & 15) {
        (0xa, serial) => format!("a{serial}"),
        (0xb, serial) => format!("b{serial}"),
        (0xc, serial) => format!("rc{serial}"),
        (0xf, _) => String::new(),
        _ => return None,
    };
    Some(format!("{major}.{minor}.{micro}{level}"))
}

/// The version behind `needle` in `.rodata`, up to one of the bytes `end`.
fn find_version(
    file: &FileBytes,
    elf: &Elf,
    work: &Work,
    needle: &[u8],
    end: &[u8],
) -> Result<Option<String>, Reason> {
    let Some(header) = elf.section(b".rodata") else {
        return Ok(None);
    };
    let finder = memchr::memmem::Finder::new(needle);
    let limit = header.size.min(MAX_SEARCH);
    let mut offset = 0u64;
    while offset < limit {
        let length = CHUNK
            .saturating_add(OVERLAP)
            .min(limit.saturating_sub(offset));
        // A search is cheap beside the reading of debuginfo that the unit of work was chosen for.
        work.spend(length >> 3)?;
        let chunk = file.read_up_to(header.offset.saturating_add(offset), length)?;
        for at in finder.find_iter(&chunk) {
            let rest = chunk
                .get(at.saturating_add(needle.len())..)
                .unwrap_or_default();
            let length = rest
                .iter()
                .position(|byte| end.contains(byte))
                .unwrap_or(rest.len());
            let text = rest.get(..length).map(str::from_utf8);
            if let Some(Ok(version)) = text
                && is_version(version)
            {
                return Ok(Some(version.to_owned()));
            }
        }
        offset = offset.saturating_add(CHUNK);
    }
    Ok(None)
}

/// The first bytes of an exported object.
fn symbol_bytes(
    file: &FileBytes,
    elf: &Elf,
    work: &Work,
    name: &[u8],
    length: u64,
) -> Result<Option<Vec<u8>>, Reason> {
    let Some(header) = elf.section(b".dynsym") else {
        return Ok(None);
    };
    let Some(names) = elf.section_at(header.link) else {
        return Ok(None);
    };
    if elf.class() != Class::Elf64 {
        return Ok(None);
    }
    let (symbols, strings) = (header.size.min(MAX_SYMBOLS), names.size.min(MAX_SYMBOLS));
    work.spend(symbols.saturating_add(strings))?;
    let symbols = file.read_up_to(header.offset, symbols)?;
    let strings = file.read_up_to(names.offset, strings)?;
    for symbol in symbols.chunks_exact(24) {
        let mut fields = EndianSlice::new(symbol, LittleEndian);
        let (Ok(at), Ok(_info), Ok(value)) =
            (fields.read_u32(), fields.read_u32(), fields.read_u64())
        else {
            return Ok(None);
        };
        let found = strings.get(at as usize..).unwrap_or_default();
        if found
            .strip_prefix(name)
            .is_some_and(|rest| rest.first() == Some(&0))
            && value != 0
        {
            let Some(offset) = elf.file_offset_of(value) else {
                return Ok(None);
            };
            return Ok(Some(file.read(offset, length)?.into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_their_files() {
        for (path, runtime) in [
            ("/usr/bin/python3.11", Some("python")),
            ("/usr/lib/libpython3.6m.so.1.0", Some("python")),
            ("/usr/bin/python", Some("python")),
            (
                "/usr/lib/x86_64-linux-gnu/libruby-3.1.so.3.1.2",
                Some("ruby"),
            ),
            ("/usr/bin/node", Some("nodejs")),
            ("/usr/lib/libnode.so.108", Some("nodejs")),
            ("/usr/lib/jvm/lib/server/libjvm.so", Some("java")),
            ("/usr/lib/erlang/erts-13.1.5/bin/beam.smp", Some("erlang")),
            ("/usr/sbin/php-fpm8.2", Some("php")),
            ("/usr/bin/node_exporter", None),
            ("/usr/bin/pythonista", None),
            ("/usr/bin/java", None),
            ("", None),
        ] {
            assert_eq!(Runtime::of_path(path).map(Runtime::name), runtime, "{path}");
        }
    }

    #[test]
    fn versions_are_read_from_names_directories_and_numbers() {
        assert_eq!(name_version("python3.11").as_deref(), Some("3.11"));
        assert_eq!(name_version("libperl.so.5.36").as_deref(), Some("5.36"));
        assert_eq!(name_version("node"), None);
        let erlang = directory_version("/usr/lib/erlang/erts-13.1.5/bin/beam.smp", "erts-");
        assert_eq!(erlang.as_deref(), Some("13.1.5"));
        let dotnet = "/usr/share/dotnet/shared/Microsoft.NETCore.App/8.0.11/libcoreclr.so";
        assert_eq!(directory_version(dotnet, "").as_deref(), Some("8.0.11"));
        let number = |hex: u64| python_version(&hex.to_le_bytes());
        assert_eq!(number(0x030b_07f0).as_deref(), Some("3.11.7"));
        assert_eq!(number(0x030d_00c2).as_deref(), Some("3.13.0rc2"));
        assert_eq!(number(u64::MAX).as_deref(), None);
    }

    #[test]
    fn a_version_is_found_across_chunks_and_damage_is_none() {
        let own = std::fs::File::open("/proc/self/exe").expect("own executable");
        let own = FileBytes::of_file(own).expect("file");
        let elf = Elf::read(&own).expect("ELF");
        let work = Work::default();
        let mark = concat!("\0probe ", "17.0.9+9\0");
        let needle = std::hint::black_box(mark)
            .as_bytes()
            .get(..7)
            .expect("mark");
        let found = find_version(&own, &elf, &work, needle, b"\0");
        assert_eq!(found, Ok(Some("17.0.9+9".to_owned())));
        assert_eq!(
            symbol_bytes(&own, &elf, &work, b"no_such_symbol", 8),
            Ok(None)
        );
        assert_eq!(
            find_version(&own, &elf, &Work::of(0), needle, b"\0"),
            Err(Reason::WorkLimit)
        );
    }
}
