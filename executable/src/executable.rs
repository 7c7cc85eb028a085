//! Owns all that is known of one executable: its headers, and, from the first address on that is asked for, its
//! symbols, debuginfo and the answers given. It decides which source of names an answer comes from, best first.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::build_id::BuildId;
use crate::debugdata;
use crate::debuglink::{self, DebugFileWanted};
use crate::demangle::demangle;
use crate::dwarf::{Dwarf, DwarfFrame};
use crate::elf::Elf;
use crate::facts::Facts;
use crate::file_bytes::FileBytes;
use crate::go_pclntab::GoFunctions;
use crate::names::{NameId, Names};
use crate::reason::Reason;
use crate::runtime::Runtime;
use crate::symbols::SymbolTable;
use crate::work::Work;

/// Name of a function that debuginfo describes but does not name, as addr2line shows it.
const UNNAMED: &str = "??";
/// What one remembered answer is estimated to take.
const ANSWER_BYTES: usize = 64;
/// The same for a remembered name for people.
const DEMANGLED_BYTES: usize = 16;

/// A frame with names; the numbers are those of its executable's [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Name for people.
    pub function: NameId,
    /// Name as in the symbol table.
    pub system_name: NameId,
    /// Source file.
    pub file: Option<NameId>,
    /// Line, counted from 1; 0 when unknown.
    pub line: u32,
    /// Whether the compiler inlined the function into the next frame's.
    pub inlined: bool,
}

/// The answer for one address.
#[derive(Clone, Copy, Debug)]
pub struct Resolved<'a> {
    /// Innermost first; empty when there is no name.
    pub frames: &'a [Frame],
    /// What the frames' numbers mean.
    pub names: &'a Names,
    /// Why there are no frames; `None` when there are.
    pub reason: Option<Reason>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    first: u32,
    count: u32,
    reason: Option<Reason>,
}

/// Where an executable's separate debug file is.
#[derive(Debug)]
enum DebugFile {
    /// Nobody looked for it.
    Unknown,
    /// It is not there, or not the right one.
    Missing(Reason),
    /// Its bytes and headers.
    Attached(Arc<FileBytes>, Box<Elf>),
}

/// A source of names that is read when it is first needed.
#[derive(Debug)]
enum Source<T> {
    Unread,
    Absent,
    Failed(Reason),
    Ready(T),
}

impl<T> Source<T> {
    fn of(read: Result<Option<T>, Reason>) -> Self {
        match read {
            Ok(Some(value)) => Self::Ready(value),
            Ok(None) => Self::Absent,
            // There is more work in the next window.
            Err(Reason::WorkLimit) => Self::Unread,
            Err(reason) => Self::Failed(reason),
        }
    }

    fn ready(&self) -> Option<&T> {
        match self {
            Self::Ready(value) => Some(value),
            _ => None,
        }
    }
}

/// Answers are kept by address.
#[derive(Debug, Default)]
struct Answers {
    by_address: HashMap<u64, Answer, RandomState>,
    frames: Vec<Frame>,
    names: Names,
    /// Names for people, by those of the symbol table.
    demangled: HashMap<NameId, NameId, RandomState>,
    /// Addresses whose answer was that the work is used up.
    postponed: Vec<u64>,
}

/// One executable.
#[derive(Debug)]
pub struct Executable {
    file: Arc<FileBytes>,
    elf: Elf,
    debug_file: DebugFile,
    work: Work,
    dwarf: Source<Dwarf>,
    go: Source<GoFunctions>,
    symbols: Source<Vec<SymbolTable>>,
    answers: Answers,
    facts: Option<Arc<Facts>>,
    runtime_version: Option<(Runtime, Option<String>)>,
}

impl Executable {
    /// Reads the headers.
    pub fn read(file: FileBytes) -> Result<Self, Reason> {
        let elf = Elf::read(&file)?;
        Ok(Self {
            file: Arc::new(file),
            elf,
            debug_file: DebugFile::Unknown,
            work: Work::default(),
            dwarf: Source::Unread,
            go: Source::Unread,
            symbols: Source::Unread,
            answers: Answers::default(),
            facts: None,
            runtime_version: None,
        })
    }

    /// What it says of itself; read once.
    pub fn facts(&mut self) -> Arc<Facts> {
        let facts = self
            .facts
            .get_or_insert_with(|| Arc::new(Facts::read(&self.file, &self.elf)));
        Arc::clone(facts)
    }

    /// Whether asking for them reads nothing.
    #[must_use]
    pub fn are_facts_known(&self) -> bool {
        self.facts.is_some()
    }

    /// Whether asking for that runtime's version reads nothing.
    #[must_use]
    pub fn is_runtime_known(&self, runtime: Runtime) -> bool {
        matches!(&self.runtime_version, Some((known, _)) if *known == runtime)
    }

    /// The version of the runtime it is; looked for once.
    pub fn runtime_version(&mut self, runtime: Runtime, path: &str) -> Option<String> {
        match &self.runtime_version {
            Some((known, version)) if *known == runtime => version.clone(),
            _ => match runtime.version(path, &self.file, &self.elf, &self.work) {
                Err(Reason::WorkLimit) => None,
                found => {
                    let version = found.ok().flatten();
                    self.runtime_version = Some((runtime, version.clone()));
                    version
                }
            },
        }
    }

    /// Its headers.
    #[must_use]
    pub fn elf(&self) -> &Elf {
        &self.elf
    }

    /// Its build ID.
    #[must_use]
    pub fn build_id(&self) -> Option<&BuildId> {
        self.elf.build_id()
    }

    /// Its bytes.
    #[must_use]
    pub fn file(&self) -> &Arc<FileBytes> {
        &self.file
    }

    /// Whether it has debuginfo of its own.
    #[must_use]
    pub fn has_debuginfo(&self) -> bool {
        [&b".debug_info"[..], b".zdebug_info"]
            .into_iter()
            .any(|name| self.elf.section(name).is_some())
    }

    /// Debug files that somebody should look for, best first; none when it needs none or they were looked for.
    #[must_use]
    pub fn debug_files_wanted(&self) -> Vec<DebugFileWanted> {
        match self.debug_file {
            DebugFile::Unknown if !self.has_debuginfo() => debuglink::wanted(&self.file, &self.elf),
            _ => Vec::new(),
        }
    }

    /// Takes a debug file that was found. Answers given before are forgotten.
    pub fn attach_debug_file(
        &mut self,
        wanted: &DebugFileWanted,
        file: FileBytes,
    ) -> Result<(), Reason> {
        let checked = Elf::read(&file).and_then(|elf| {
            debuglink::check(wanted, &self.elf, &file, &elf)?;
            Ok(elf)
        });
        match checked {
            Ok(elf) => {
                self.debug_file = DebugFile::Attached(Arc::new(file), Box::new(elf));
                self.shed();
                Ok(())
            }
            Err(reason) => {
                if !matches!(self.debug_file, DebugFile::Attached(..)) {
                    self.debug_file = DebugFile::Missing(reason);
                }
                Err(reason)
            }
        }
    }

    /// Notes that no wanted debug file was found: it is not asked for again.
    pub fn no_debug_file(&mut self) {
        if matches!(self.debug_file, DebugFile::Unknown) {
            self.debug_file = DebugFile::Missing(Reason::MissingDebugFile);
        }
    }

    /// Why functions have no lines although there is debuginfo.
    #[must_use]
    pub fn debuginfo_failure(&self) -> Option<Reason> {
        match &self.dwarf {
            Source::Failed(reason) => Some(*reason),
            _ => None,
        }
    }

    /// The frames at an ELF address, innermost first.
    pub fn frames(&mut self, address: u64) -> Resolved<'_> {
        let known = self.answers.by_address.get(&address).copied();
        let answer = known.or_else(|| self.answer(address));
        let frames = answer.and_then(|answer| {
            let first = answer.first as usize;
            let end = first.checked_add(answer.count as usize)?;
            self.answers.frames.get(first..end)
        });
        Resolved {
            frames: frames.unwrap_or_default(),
            names: &self.answers.names,
            reason: answer.map_or(Some(Reason::TooLarge), |answer| answer.reason),
        }
    }

    /// Finds out and notes what is at an address.
    fn answer(&mut self, address: u64) -> Option<Answer> {
        let first = self.answers.frames.len();
        let reason = match self.resolve(address) {
            Ok(()) => None,
            Err(reason) => {
                self.answers.frames.truncate(first);
                Some(reason)
            }
        };
        if reason == Some(Reason::WorkLimit) {
            self.answers.postponed.push(address);
        }
        let count = self.answers.frames.len().saturating_sub(first);
        // 4 G frames do not fit the budget: the numbers always fit.
        let answer = Answer {
            first: u32::try_from(first).ok()?,
            count: u32::try_from(count).ok()?,
            reason,
        };
        self.answers.by_address.insert(address, answer);
        Some(answer)
    }

    /// Appends the frames at an address.
    fn resolve(&mut self, address: u64) -> Result<(), Reason> {
        if !self.elf.is_text(address) {
            return Err(Reason::AddressOutsideText);
        }
        let (frames, failure) = match self.dwarf_frames(address) {
            Ok(frames) => (frames, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        match frames.as_slice() {
            [] => {}
            [only] if only.function.is_none() && only.start.is_none() => {
                let place = (only.file.as_deref(), only.line.unwrap_or(0));
                if self.symbol_frame(address, place)? {
                    return Ok(());
                }
            }
            _ => return self.push_dwarf(address, &frames),
        }
        if self.go_frames(address)? || self.symbol_frame(address, (None, 0))? {
            return Ok(());
        }
        Err(self.why_unnamed(failure))
    }

    fn dwarf_frames(&mut self, address: u64) -> Result<Vec<DwarfFrame>, Reason> {
        if matches!(self.dwarf, Source::Unread) {
            let (file, elf) = match &self.debug_file {
                DebugFile::Attached(file, elf) => (file, &**elf),
                _ => (&self.file, &self.elf),
            };
            let read = Dwarf::read(file, elf, &self.work);
            let failure = read.as_ref().err().copied();
            self.dwarf = Source::of(read);
            if let Some(reason) = failure {
                return Err(reason);
            }
        }
        match &mut self.dwarf {
            Source::Ready(dwarf) => dwarf.frames(address, &self.work),
            Source::Failed(reason) => Err(*reason),
            Source::Absent | Source::Unread => Ok(Vec::new()),
        }
    }

    fn push_dwarf(&mut self, address: u64, frames: &[DwarfFrame]) -> Result<(), Reason> {
        let last = frames.len().saturating_sub(1);
        for (depth, frame) in frames.iter().enumerate() {
            let outermost = depth == last;
            let mut name = frame.function.as_ref().map(|name| name.text.clone());
            // What the linker called the function says more than a plain name: arguments, clones.
            if outermost && !frame.function.as_ref().is_some_and(|name| name.linkage) {
                let start = frame.start.unwrap_or(address);
                name = self.symbol_name(start, frame.start)?.or(name);
            }
            let name = name.as_deref().unwrap_or(UNNAMED);
            let place = (frame.file.as_deref(), frame.line.unwrap_or(0));
            self.push(name, place, !outermost);
        }
        Ok(())
    }

    /// The name of the symbol that covers an address, if it starts at `start` or that is not known.
    fn symbol_name(&mut self, address: u64, start: Option<u64>) -> Result<Option<String>, Reason> {
        self.read_symbols()?;
        let Some(tables) = self.symbols.ready() else {
            return Ok(None);
        };
        let best = tables
            .iter()
            .filter_map(|table| Some((table.find(address)?, table)))
            .filter(|(symbol, _)| start.is_none_or(|start| symbol.start == start))
            .max_by_key(|(symbol, _)| symbol.start);
        let Some((symbol, table)) = best else {
            return Ok(None);
        };
        // A name outside of the string table is no name.
        let name = table.name(symbol).ok();
        Ok(name
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(&name).into_owned()))
    }

    fn symbol_frame(&mut self, address: u64, place: (Option<&str>, u32)) -> Result<bool, Reason> {
        let Some(name) = self.symbol_name(address, None)? else {
            return Ok(false);
        };
        self.push(&name, place, false);
        Ok(true)
    }

    fn go_frames(&mut self, address: u64) -> Result<bool, Reason> {
        if matches!(self.go, Source::Unread) {
            let read = GoFunctions::read(&self.file, &self.elf, &self.work);
            if read.as_ref().err() == Some(&Reason::WorkLimit) {
                return Err(Reason::WorkLimit);
            }
            self.go = Source::of(read);
        }
        let Some(go) = self.go.ready() else {
            return Ok(false);
        };
        let frames = go.frames(address, &self.work)?;
        for frame in &frames {
            let place = (frame.file.as_deref(), frame.line);
            let function = &frame.function;
            let answers = &mut self.answers;
            let name = answers.names.intern(function);
            let file = place.0.map(|file| answers.names.intern(file));
            answers.frames.push(Frame {
                function: name,
                system_name: name,
                file,
                line: place.1,
                inlined: frame.inlined,
            });
        }
        Ok(!frames.is_empty())
    }

    fn read_symbols(&mut self) -> Result<(), Reason> {
        if matches!(self.symbols, Source::Unread) {
            let read = self.symbol_tables();
            if read.as_ref().err() == Some(&Reason::WorkLimit) {
                return Err(Reason::WorkLimit);
            }
            self.symbols = Source::of(read.map(Some));
        }
        Ok(())
    }

    /// `.symtab` has everything; without it there are the exported functions, and what `.gnu_debugdata` adds to them.
    fn symbol_tables(&self) -> Result<Vec<SymbolTable>, Reason> {
        let own = SymbolTable::read(&self.file, &self.elf, b".symtab", &self.work)?;
        if let Some(own) = own {
            return Ok(vec![own]);
        }
        if let DebugFile::Attached(file, elf) = &self.debug_file
            && let Ok(Some(table)) = SymbolTable::read(file, elf, b".symtab", &self.work)
        {
            return Ok(vec![table]);
        }
        let mut tables = Vec::new();
        tables.extend(SymbolTable::read(
            &self.file, &self.elf, b".dynsym", &self.work,
        )?);
        // Damage in there costs what is in there.
        if let Ok(Some(file)) = debugdata::read(&self.file, &self.elf) {
            self.work.spend(file.len())?;
            let file = Arc::new(file);
            let table = Elf::read(&file)
                .and_then(|elf| SymbolTable::read(&file, &elf, b".symtab", &self.work));
            tables.extend(table.ok().flatten());
        }
        Ok(tables)
    }

    fn why_unnamed(&self, failure: Option<Reason>) -> Reason {
        if let Some(reason) = failure {
            return reason;
        }
        if let Source::Failed(reason) = self.symbols {
            return reason;
        }
        let symbols = self.symbols.ready().map_or(0, |tables| {
            tables
                .iter()
                .map(SymbolTable::len)
                .fold(0, usize::saturating_add)
        });
        let separate = !self.has_debuginfo()
            && (self.build_id().is_some() || self.elf.section(b".gnu_debuglink").is_some());
        match &self.debug_file {
            DebugFile::Missing(Reason::DebugFileMismatch) => Reason::DebugFileMismatch,
            DebugFile::Attached(..) => Reason::NoSymbolCovers,
            _ if separate && self.elf.section(b".symtab").is_none() => Reason::MissingDebugFile,
            _ if symbols == 0 => Reason::NoSymbols,
            _ => Reason::NoSymbolCovers,
        }
    }

    fn push(&mut self, raw: &str, (file, line): (Option<&str>, u32), inlined: bool) {
        let answers = &mut self.answers;
        let system_name = answers.names.intern(raw);
        let function = match answers.demangled.get(&system_name) {
            // A name that was cut or cleaned may be another one's, too.
            Some(function) if answers.names.get(system_name) == raw => *function,
            _ => {
                let function = answers.names.intern(&demangle(raw));
                answers.demangled.insert(system_name, function);
                function
            }
        };
        let file = file.map(|file| answers.names.intern(file));
        answers.frames.push(Frame {
            function,
            system_name,
            file,
            line,
            inlined,
        });
    }

    /// Begins a window: grants work again, and asks again what was postponed.
    pub fn begin_window(&mut self) {
        self.work.renew();
        for address in self.answers.postponed.drain(..) {
            self.answers.by_address.remove(&address);
        }
    }

    /// Forgets everything but the headers; it is read again as needed. Numbers of names given before are void.
    pub fn shed(&mut self) {
        self.dwarf = Source::Unread;
        self.go = Source::Unread;
        self.symbols = Source::Unread;
        self.answers = Answers::default();
    }

    /// Bytes of memory this holds, estimated.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let symbols = self.symbols.ready().map_or(0, |tables| {
            tables
                .iter()
                .map(SymbolTable::heap_bytes)
                .fold(0, usize::saturating_add)
        });
        let answers = self
            .answers
            .by_address
            .len()
            .saturating_mul(ANSWER_BYTES)
            .saturating_add(self.answers.demangled.len().saturating_mul(DEMANGLED_BYTES))
            .saturating_add(size_of_val(self.answers.frames.as_slice()))
            .saturating_add(self.answers.names.heap_bytes());
        [
            size_of::<Self>(),
            self.file.heap_bytes(),
            self.elf.heap_bytes(),
            self.dwarf.ready().map_or(0, Dwarf::heap_bytes),
            self.go.ready().map_or(0, GoFunctions::heap_bytes),
            symbols,
            answers,
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }
}
