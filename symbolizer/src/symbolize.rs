//! Gives a window its names: each distinct place in code once, then the stacks by reference. Owns the sources of names;
//! knows no sockets and no requests.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use ipc_proto::codec::Bytes;
use ipc_proto::ids::BuildId;
use ipc_proto::limits::{MAX_STRING, MAX_TABLE_ENTRIES};
use ipc_proto::sample::{Backing, Drop};
use ipc_proto::symbolized::{
    Line, Location, LocationKind, NONE, SymbolizedBatch, SymbolizedMapping, SymbolizedSample,
};
use leadsman_ebpf::stop::StopReason;
use leadsman_symbolizer::cache::ExecutableKey;
use leadsman_symbolizer::kernel::KernelSymbols;
use leadsman_symbolizer::perf_map::PerfMap;
use leadsman_symbolizer::reason::Reason;
use leadsman_symbolizer::resolve::Symbolizer;

use crate::job::{JobMapping, JobStack, WindowJob, list};
use crate::quarantine::{FileKey, Quarantine};

mod about;

use about::KnownFacts;

/// Bytes of a batch, estimated: less than a message's body may have. The stacks beyond are dropped and counted.
const MAX_BATCH_BYTES: usize = 48 << 20;
/// Bytes of all executables' names between windows; what was used longest ago is read again when it is needed.
const MAX_NAME_BYTES: usize = 12 << 20;
/// Bytes of all perf maps; beyond it the one used longest ago goes.
const MAX_PERF_MAP_BYTES: usize = 8 << 20;
/// Inlined functions of one location; the message's bound.
const MAX_LINES: usize = 256;
/// What the kernel's mapping is called, as by perf and Go's pprof.
const KERNEL_MAPPING: &str = "[kernel.kallsyms]";

/// A window with names and what is to be counted of it.
#[derive(Debug)]
pub(crate) struct NamedWindow {
    pub(crate) batch: SymbolizedBatch,
    /// Samples dropped here, because the batch would have been too large.
    pub(crate) dropped: u64,
    /// Samples by the number of their stop reason.
    pub(crate) stops: BTreeMap<u8, u64>,
    /// Frames without a name, by reason.
    pub(crate) unnamed: BTreeMap<Reason, u64>,
    /// Executables whose files are not known here any more: they must be opened anew.
    pub(crate) forgotten: Vec<ExecutableKey>,
}

/// All sources of names.
#[derive(Debug)]
pub(crate) struct Namer {
    pub(crate) symbolizer: Symbolizer,
    pub(crate) kernel: Result<KernelSymbols, Reason>,
    pub(crate) kernel_build_id: BuildId,
    /// The vDSO's code, when there is an image of it.
    pub(crate) vdso: Option<ExecutableKey>,
    /// Marks the executables while they are read.
    pub(crate) quarantine: Arc<Mutex<Quarantine>>,
    perf_maps: HashMap<u64, (PerfMap, u64)>,
    clock: u64,
}

impl Namer {
    /// Without kernel symbols, vDSO and executables yet.
    pub(crate) fn new(quarantine: Arc<Mutex<Quarantine>>) -> Self {
        Self {
            symbolizer: Symbolizer::new(MAX_NAME_BYTES),
            kernel: Err(Reason::KallsymsMissing),
            kernel_build_id: BuildId::default(),
            vdso: None,
            quarantine,
            perf_maps: HashMap::new(),
            clock: 0,
        }
    }

    /// Reads an image's perf map, in place of an older one.
    pub(crate) fn add_perf_map(&mut self, image: u64, file: &File) {
        self.clock += 1;
        self.perf_maps
            .insert(image, (PerfMap::read(file), self.clock));
        let total = |maps: &HashMap<u64, (PerfMap, u64)>| -> usize {
            maps.values().map(|(map, _)| map.heap_bytes()).sum()
        };
        while total(&self.perf_maps) > MAX_PERF_MAP_BYTES && self.perf_maps.len() > 1 {
            let oldest = self.perf_maps.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(image, _)| *image) else {
                return;
            };
            self.perf_maps.remove(&oldest);
        }
    }

    /// Forgets what a former sampler numbered.
    pub(crate) fn forget_images(&mut self) {
        self.perf_maps.clear();
    }

    /// Names a window.
    pub(crate) fn name(&mut self, job: WindowJob) -> NamedWindow {
        let mut naming = Naming::new(self, &job);
        naming.name_places(&job);
        for stack in &job.stacks {
            naming.add_stack(stack);
        }
        let named = naming.finish(job);
        self.symbolizer.end_window();
        named
    }

    /// Bytes of memory held between windows, estimated.
    pub(crate) fn heap_bytes(&self) -> usize {
        let kernel = self.kernel.as_ref().map_or(0, KernelSymbols::heap_bytes);
        let perf_maps: usize = self
            .perf_maps
            .values()
            .map(|(map, _)| map.heap_bytes())
            .sum();
        self.symbolizer.heap_bytes() + kernel + perf_maps
    }
}

/// A place in code: a mapping's index ([`NONE`]: unknown, [`KERNEL`]: the kernel) and an address.
type Place = (u32, u64);
const KERNEL: u32 = NONE - 1;

/// One window being named.
struct Naming<'a> {
    namer: &'a mut Namer,
    strings: HashMap<Box<str>, u32>,
    batch: SymbolizedBatch,
    places: HashMap<Place, u32>,
    stop_locations: HashMap<u8, u32>,
    samples: HashMap<SampleKey, u32>,
    kernel_mapping: u32,
    bytes: usize,
    dropped: u64,
    stops: BTreeMap<u8, u64>,
    unnamed: BTreeMap<Reason, u64>,
    reasons: HashMap<u32, Reason>,
    forgotten: Vec<ExecutableKey>,
}

#[derive(PartialEq, Eq, Hash)]
struct SampleKey {
    process: u32,
    tid: u32,
    thread_name: u32,
    cgroup: u64,
    stop: u8,
    locations: Vec<u32>,
}

impl<'a> Naming<'a> {
    fn new(namer: &'a mut Namer, job: &WindowJob) -> Self {
        let mut naming = Self {
            namer,
            strings: HashMap::new(),
            batch: SymbolizedBatch::default(),
            places: HashMap::new(),
            stop_locations: HashMap::new(),
            samples: HashMap::new(),
            kernel_mapping: NONE,
            bytes: 0,
            dropped: 0,
            stops: BTreeMap::new(),
            unnamed: BTreeMap::new(),
            reasons: HashMap::new(),
            forgotten: Vec::new(),
        };
        naming.string("");
        for mapping in &job.mappings {
            let name = match mapping.backing {
                Backing::File => mapping.path.text().into_owned(),
                Backing::Anonymous => "jit".to_owned(),
                Backing::Vdso => "[vdso]".to_owned(),
                Backing::Special => "[special]".to_owned(),
            };
            let file = naming.string(&name);
            naming.batch.mappings.0.push(SymbolizedMapping {
                start: mapping.start,
                end: mapping.end,
                file_offset: mapping.file_offset,
                file,
                build_id: mapping.build_id.clone(),
            });
            naming.bytes += 64;
        }
        let mut facts = KnownFacts::default();
        for process in &job.processes {
            let mut about = process.about.clone();
            about.comm = naming.string(&process.comm.text());
            naming.add_facts(&mut about, process, job, &mut facts);
            naming.batch.processes.0.push(about);
            naming.bytes += 48;
        }
        naming
    }

    /// The number of a string.
    fn string(&mut self, text: &str) -> u32 {
        if let Some(&index) = self.strings.get(text) {
            return index;
        }
        let index = self.batch.strings.0.len() as u32;
        self.batch.strings.0.push(cut(text));
        self.bytes += text.len().min(MAX_STRING) + 8;
        self.strings.insert(text.into(), index);
        index
    }

    /// Names every distinct place, executable by executable, ascending: neighbours share what was read last.
    fn name_places(&mut self, job: &WindowJob) {
        let mut places: Vec<Place> = Vec::new();
        for stack in &job.stacks {
            places.extend(kernel_places(stack));
            places.extend(
                stack
                    .user
                    .iter()
                    .map(|frame| (frame.mapping, frame.address)),
            );
        }
        let key = |place: &Place| {
            let mapping = job.mappings.get(place.0 as usize);
            (mapping.map(|mapping| mapping.key), *place)
        };
        places.sort_unstable_by_key(key);
        places.dedup();
        let mut reading = None;
        for place in places {
            let mapping = job.mappings.get(place.0 as usize);
            self.mark(
                &mut reading,
                mapping.and_then(|mapping| mapping.file_key.as_ref()),
            );
            let location = self.name_place(place, job);
            let index = self.batch.locations.0.len() as u32;
            self.bytes += 64 + 16 * location.lines.0.len();
            self.batch.locations.0.push(location);
            self.places.insert(place, index);
        }
        self.mark(&mut reading, None);
    }

    /// Moves the quarantine's mark to the executable that is read next.
    fn mark(&self, reading: &mut Option<FileKey>, next: Option<&FileKey>) {
        if reading.as_ref() == next {
            return;
        }
        let mut quarantine = self
            .namer
            .quarantine
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = reading.take() {
            quarantine.clear(&done);
        }
        if let Some(next) = next {
            quarantine.mark(next);
        }
        *reading = next.cloned();
    }

    fn name_place(&mut self, place: Place, job: &WindowJob) -> Location {
        let (index, address) = place;
        if index == KERNEL {
            return self.name_kernel(address);
        }
        let Some(mapping) = job.mappings.get(index as usize) else {
            return self.unnamed(
                LocationKind::Native,
                NONE,
                address,
                address,
                Reason::NoMapping,
            );
        };
        match mapping.backing {
            Backing::File => self.name_native(index, mapping, address),
            Backing::Vdso => match self.namer.vdso {
                Some(key) => self.name_executable(LocationKind::Vdso, index, mapping, key, address),
                None => self.unnamed(LocationKind::Vdso, index, address, address, Reason::NoVdso),
            },
            Backing::Anonymous => self.name_generated(index, mapping, address),
            Backing::Special => {
                let reason = Reason::NoSymbols;
                self.unnamed(LocationKind::Native, index, address, 0, reason)
            }
        }
    }

    fn name_native(&mut self, index: u32, mapping: &JobMapping, address: u64) -> Location {
        if let Some(reason) = mapping.reason {
            return self.unnamed(LocationKind::Native, index, address, 0, reason);
        }
        if !self.namer.symbolizer.contains(mapping.key) {
            if self.forgotten.last() != Some(&mapping.key) {
                self.forgotten.push(mapping.key);
            }
            let reason = Reason::NotYetOpened;
            return self.unnamed(LocationKind::Native, index, address, 0, reason);
        }
        self.name_executable(LocationKind::Native, index, mapping, mapping.key, address)
    }

    fn name_executable(
        &mut self,
        kind: LocationKind,
        index: u32,
        mapping: &JobMapping,
        key: ExecutableKey,
        address: u64,
    ) -> Location {
        let file_offset = address
            .wrapping_sub(mapping.start)
            .wrapping_add(mapping.file_offset);
        let Some(elf_address) = self.namer.symbolizer.address_of(key, file_offset) else {
            let reason = Reason::AddressOutsideText;
            return self.unnamed(kind, index, address, 0, reason);
        };
        let resolved = self.namer.symbolizer.frames(key, elf_address);
        let reason = resolved.reason;
        // The names end with the borrow of their source: copied before they get numbers of this window.
        let frames: Vec<_> = resolved
            .frames
            .iter()
            .take(MAX_LINES)
            .map(|frame| {
                (
                    resolved.names.get(frame.function).to_owned(),
                    resolved.names.get(frame.system_name).to_owned(),
                    frame.file.map(|file| resolved.names.get(file).to_owned()),
                    frame.line,
                )
            })
            .collect();
        if frames.is_empty() {
            let reason = reason.unwrap_or(Reason::NoSymbolCovers);
            return self.unnamed(kind, index, address, elf_address, reason);
        }
        let lines = frames
            .into_iter()
            .map(|(function, system_name, file, line)| Line {
                function: self.string(&function),
                system_name: self.string(&system_name),
                file: file.map_or(0, |file| self.string(&file)),
                line,
            })
            .collect();
        Location {
            kind: kind as u8,
            mapping: index,
            address,
            elf_address,
            lines: list(lines),
            reason: 0,
        }
    }

    fn name_generated(&mut self, index: u32, mapping: &JobMapping, address: u64) -> Location {
        self.namer.clock += 1;
        let clock = self.namer.clock;
        let name = match self.namer.perf_maps.get_mut(&mapping.image.0) {
            None => Err(Reason::JitWithoutPerfMap),
            Some((map, used)) => {
                *used = clock;
                map.find(address)
                    .map(str::to_owned)
                    .ok_or(Reason::NotInPerfMap)
            }
        };
        match name {
            Ok(name) => self.named(LocationKind::Jit, index, address, &name),
            Err(reason) => self.unnamed(LocationKind::Jit, index, address, address, reason),
        }
    }

    fn name_kernel(&mut self, address: u64) -> Location {
        let mapping = self.kernel_mapping();
        let found = match &self.namer.kernel {
            Ok(kernel) => kernel
                .find(address)
                .map(|function| function.name.to_owned())
                .ok_or(Reason::NoSymbolCovers),
            Err(reason) => Err(*reason),
        };
        match found {
            Ok(name) => self.named(LocationKind::Kernel, mapping, address, &name),
            Err(reason) => self.unnamed(LocationKind::Kernel, mapping, address, address, reason),
        }
    }

    fn kernel_mapping(&mut self) -> u32 {
        if self.kernel_mapping == NONE {
            self.kernel_mapping = self.batch.mappings.0.len() as u32;
            let file = self.string(KERNEL_MAPPING);
            let start = self.namer.kernel.as_ref().map_or(0, KernelSymbols::start);
            self.batch.mappings.0.push(SymbolizedMapping {
                start: if start == 0 { 1 << 63 } else { start },
                end: u64::MAX,
                file_offset: 0,
                file,
                build_id: self.namer.kernel_build_id.clone(),
            });
        }
        self.kernel_mapping
    }

    fn named(&mut self, kind: LocationKind, mapping: u32, address: u64, name: &str) -> Location {
        let function = self.string(name);
        Location {
            kind: kind as u8,
            mapping,
            address,
            elf_address: address,
            lines: list(vec![Line {
                function,
                system_name: function,
                file: 0,
                line: 0,
            }]),
            reason: 0,
        }
    }

    fn unnamed(
        &mut self,
        kind: LocationKind,
        mapping: u32,
        address: u64,
        elf_address: u64,
        reason: Reason,
    ) -> Location {
        let text = self.string(&format!("{}: {reason}", reason.name()));
        self.reasons.insert(text, reason);
        Location {
            kind: kind as u8,
            mapping,
            address,
            elf_address,
            lines: list(Vec::new()),
            reason: text,
        }
    }

    /// The location that ends a stack which is not whole.
    fn stop_location(&mut self, stop: StopReason) -> u32 {
        if let Some(&index) = self.stop_locations.get(&(stop as u8)) {
            return index;
        }
        let name = format!("[unwind stopped: {}]", stop.name());
        let location = self.named(LocationKind::Stop, NONE, 0, &name);
        let index = self.batch.locations.0.len() as u32;
        self.batch.locations.0.push(location);
        self.stop_locations.insert(stop as u8, index);
        index
    }

    fn add_stack(&mut self, stack: &JobStack) {
        let places = kernel_places(stack).chain(
            stack
                .user
                .iter()
                .map(|frame| (frame.mapping, frame.address)),
        );
        let mut locations: Vec<u32> = places
            .filter_map(|place| self.places.get(&place).copied())
            .collect();
        if let Some(stop) = StopReason::from_number(stack.stop)
            && !stop.is_complete()
        {
            locations.push(self.stop_location(stop));
        }
        let thread_name = self.string(&stack.thread_name.text());
        let key = SampleKey {
            process: stack.process,
            tid: stack.tid.0,
            thread_name,
            cgroup: stack.cgroup,
            stop: stack.stop,
            locations,
        };
        if let Some(&index) = self.samples.get(&key) {
            if let Some(sample) = self.batch.samples.0.get_mut(index as usize) {
                sample.count = sample.count.saturating_add(stack.count);
            }
        } else {
            let bytes = 48 + 4 * key.locations.len();
            if self.bytes + bytes > MAX_BATCH_BYTES || self.samples.len() >= MAX_TABLE_ENTRIES {
                self.dropped = self.dropped.saturating_add(stack.count);
                return;
            }
            self.bytes += bytes;
            self.batch.samples.0.push(SymbolizedSample {
                process: key.process,
                tid: stack.tid,
                thread_name,
                cgroup: key.cgroup,
                count: stack.count,
                stop: key.stop,
                locations: list(key.locations.clone()),
            });
            self.samples
                .insert(key, self.batch.samples.0.len() as u32 - 1);
        }
        *self.stops.entry(stack.stop).or_default() += stack.count;
    }

    fn finish(mut self, job: WindowJob) -> NamedWindow {
        for sample in &self.batch.samples.0 {
            for &location in &sample.locations.0 {
                let location = self.batch.locations.0.get(location as usize);
                let reason = location.and_then(|location| self.reasons.get(&location.reason));
                if let Some(reason) = reason {
                    *self.unnamed.entry(*reason).or_default() += sample.count;
                }
            }
        }
        let mut drops = job.drops;
        if self.dropped > 0 {
            drops.push(Drop {
                cause: Bytes::cut(b"window_too_large"),
                samples: self.dropped,
            });
        }
        self.batch.window = job.window;
        self.batch.start = job.start;
        self.batch.duration = job.duration;
        self.batch.frequency = job.frequency;
        self.batch.last = job.last;
        self.batch.drops = list(drops);
        self.batch.cgroups = list(job.cgroups);
        NamedWindow {
            batch: self.batch,
            dropped: self.dropped,
            stops: self.stops,
            unnamed: self.unnamed,
            forgotten: self.forgotten,
        }
    }
}

/// The kernel frames, leaf first: where the leaf stands, and for callers the address of the call.
fn kernel_places(stack: &JobStack) -> impl Iterator<Item = Place> {
    let frames = stack.kernel.iter().enumerate();
    frames.map(|(nth, address)| (KERNEL, address.wrapping_sub(u64::from(nth > 0))))
}

/// The text, cut between characters.
fn cut(text: &str) -> Bytes<MAX_STRING> {
    let end = text.floor_char_boundary(MAX_STRING);
    Bytes::cut(text.get(..end).unwrap_or(text).as_bytes())
}

#[cfg(test)]
mod tests;
