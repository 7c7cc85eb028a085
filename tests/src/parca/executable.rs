//! An uploaded file as the server reads it: its program headers turn sampled addresses into its own, its DWARF, Go line
//! table or symbols name them. Only the uploaded bytes count: nothing is looked up on this machine.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use gimli::{EndianArcSlice, LittleEndian, SectionId};
use object::elf::{ET_DYN, ET_EXEC, FileType, PT_LOAD, SHT_NOBITS, SHT_PROGBITS};
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use crate::require_command;

type Reader = EndianArcSlice<LittleEndian>;

/// What a file has to name addresses with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quality {
    pub dwarf: bool,
    pub go_line_table: bool,
    pub symbols: bool,
}

/// A pprof mapping's addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipe {
    pub start: u64,
    pub limit: u64,
    pub offset: u64,
}

/// One function at an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub function: String,
    pub file: String,
    pub line: i64,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
}

/// A parsed file.
pub struct Executable {
    elf_type: FileType,
    segments: Vec<Segment>,
    text: Option<Segment>,
    quality: Quality,
    dwarf: Option<Mutex<addr2line::Context<Reader>>>,
    /// End and name of each function, by its start.
    symbols: BTreeMap<u64, (u64, String)>,
    bytes: Arc<Vec<u8>>,
}

impl std::fmt::Debug for Executable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Executable")
            .field("segments", &self.segments)
            .field("quality", &self.quality)
            .finish_non_exhaustive()
    }
}

impl Executable {
    /// Reads an ELF file; anything else is an error.
    pub fn parse(bytes: &Arc<Vec<u8>>) -> Result<Self, String> {
        let file = ElfFile64::<Endianness>::parse(bytes.as_slice())
            .map_err(|error| format!("no ELF file: {error}"))?;
        let endian = file.endian();
        let elf_type = file.elf_header().e_type(endian);
        let segments: Vec<Segment> = file
            .elf_program_headers()
            .iter()
            .filter(|segment| segment.p_type(endian) == PT_LOAD)
            .map(|segment| Segment {
                offset: segment.p_offset(endian),
                address: segment.p_vaddr(endian),
                file_size: segment.p_filesz(endian),
                memory_size: segment.p_memsz(endian),
            })
            .collect();
        let text = file.section_by_name(".text").and_then(|text| {
            segments
                .iter()
                .find(|segment| {
                    segment.address <= text.address()
                        && text.address() < segment.address + segment.memory_size
                })
                .copied()
        });
        // A section whose content was left out is SHT_NOBITS.
        let has_content = |name: &str| {
            file.section_by_name(name)
                .is_some_and(|section| section.elf_section_header().sh_type(endian) == SHT_PROGBITS)
        };
        let quality = Quality {
            dwarf: [".debug_info", ".debug_abbrev", ".debug_line"]
                .iter()
                .any(|name| has_content(name)),
            go_line_table: has_content(".gopclntab"),
            symbols: file
                .symbols()
                .chain(file.dynamic_symbols())
                .next()
                .is_some(),
        };
        let dwarf = if quality.dwarf {
            Some(Mutex::new(context(&file)?))
        } else {
            None
        };
        // Parca names PLT entries too (pkg/symbol/addr2line/symtab.go): where their relocations' content was left out it
        // reads no symbols at all.
        let lacks_relocations = file.section_by_name(".plt").is_some()
            && file
                .section_by_name(".rela.plt")
                .is_some_and(|section| section.elf_section_header().sh_type(endian) == SHT_NOBITS);
        let symbols = file
            .symbols()
            .chain(file.dynamic_symbols())
            .filter(|_| !lacks_relocations)
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.address() != 0)
            .filter_map(|symbol| {
                let name = symbol.name().ok()?.to_owned();
                Some((
                    symbol.address(),
                    (symbol.address() + symbol.size().max(1), name),
                ))
            })
            .collect();
        Ok(Self {
            elf_type,
            segments,
            text,
            quality,
            dwarf,
            symbols,
            bytes: Arc::clone(bytes),
        })
    }

    #[must_use]
    pub fn quality(&self) -> Quality {
        self.quality
    }

    #[must_use]
    pub fn has_load_segments(&self) -> bool {
        !self.segments.is_empty()
    }

    /// The file's own address of a sampled one. An error costs the whole build ID its names.
    pub fn own_address(&self, address: u64, recipe: Recipe) -> Result<u64, String> {
        let Recipe {
            start,
            limit,
            offset,
        } = recipe;
        let segment = if start >= limit || limit >= 1 << 63 {
            self.text
        } else if self.segments.is_empty() {
            None
        } else {
            let in_file = address.wrapping_sub(start).wrapping_add(offset);
            let of_mapping: Vec<Segment> = self
                .segments
                .iter()
                .filter(|segment| {
                    segment.file_size > 0
                        && offset < segment.offset + segment.memory_size
                        && segment.offset < offset + (limit - start)
                })
                .copied()
                .collect();
            let exact = of_mapping.iter().find(|segment| {
                segment.offset <= in_file && in_file < segment.offset + segment.memory_size
            });
            match (of_mapping.as_slice(), exact) {
                ([], _) => return Err("no program header fits the mapping".to_owned()),
                ([only], _) => Some(*only),
                (_, Some(exact)) => Some(*exact),
                (_, None) => return Err("no program header holds the address".to_owned()),
            }
        };
        let Some(segment) = segment else {
            return Ok(address);
        };
        if start == 0 && offset == 0 && (limit == 0 || limit == u64::MAX) {
            return Ok(address);
        }
        match self.elf_type {
            ET_EXEC | ET_DYN => Ok(address.wrapping_sub(
                start
                    .wrapping_sub(offset)
                    .wrapping_add(segment.offset)
                    .wrapping_sub(segment.address),
            )),
            other => Err(format!("ELF type {other:?} can't be rebased")),
        }
    }

    /// The functions at one of the file's own addresses, the outermost first. Where there is DWARF nothing else is asked.
    #[must_use]
    pub fn lines(&self, address: u64) -> Vec<Line> {
        if let Some(dwarf) = &self.dwarf {
            let Ok(context) = dwarf.lock() else {
                return Vec::new();
            };
            return dwarf_lines(&context, address);
        }
        if self.quality.go_line_table {
            return go_lines(&self.bytes, address).unwrap_or_default();
        }
        let symbol = self.symbols.range(..=address).next_back();
        symbol
            .filter(|(_, (end, _))| address < *end)
            .map(|(_, (_, name))| Line {
                function: demangled(name),
                file: "?".to_owned(),
                line: 0,
            })
            .into_iter()
            .collect()
    }
}

fn context(file: &ElfFile64<'_, Endianness>) -> Result<addr2line::Context<Reader>, String> {
    let dwarf = gimli::Dwarf::load(|id: SectionId| {
        let data = match file.section_by_name(id.name()) {
            Some(section) => section
                .uncompressed_data()
                .map_err(|error| format!("{}: {error}", id.name()))?
                .into_owned(),
            None => Vec::new(),
        };
        Ok::<_, String>(Reader::new(data.into(), LittleEndian))
    })?;
    addr2line::Context::from_dwarf(dwarf).map_err(|error| error.to_string())
}

fn dwarf_lines(context: &addr2line::Context<Reader>, address: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    let Ok(mut frames) = context.find_frames(address).skip_all_loads() else {
        return lines;
    };
    while let Ok(Some(frame)) = frames.next() {
        let Some(function) = frame.function else {
            continue;
        };
        let name = function.demangle().map(|name| name.into_owned());
        let location = frame.location;
        lines.push(Line {
            function: name.unwrap_or_default(),
            file: location
                .as_ref()
                .and_then(|location| location.file)
                .unwrap_or("?")
                .to_owned(),
            line: location
                .and_then(|location| location.line)
                .map_or(0, i64::from),
        });
    }
    lines.reverse();
    lines
}

/// Go's own tool reads Go's line table.
fn go_lines(bytes: &[u8], address: u64) -> Option<Vec<Line>> {
    let mut file = tempfile::NamedTempFile::new().ok()?;
    file.write_all(bytes).ok()?;
    let mut child = Command::new(require_command("go").ok()?)
        .args(["tool", "addr2line"])
        .arg(file.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    writeln!(child.stdin.take()?, "{address:#x}").ok()?;
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut words = text.lines();
    let function = words.next()?.trim();
    let (path, line) = words.next()?.rsplit_once(':')?;
    (function != "?").then(|| {
        vec![Line {
            function: function.to_owned(),
            file: path.to_owned(),
            line: line.trim().parse().unwrap_or(0),
        }]
    })
}

fn demangled(name: &str) -> String {
    addr2line::demangle_auto(name.into(), None).into_owned()
}
