//! A million samples of a real recording named and built into pprof, beside the same work through blazesym's public API.
//!
//! The recording is of the mixed load but for the thread that is 5,000 frames deep: a pprof file without labels and
//! functions, whose mappings are files that Debian and the workloads have. `LEADSMAN_RECORDING=FILE` takes another, as `leadsman record -o FILE` writes it. It is named window
//! by window, as the symbolizer does, until a million samples are through; each side keeps between windows what it
//! keeps anyway, and both get the distinct addresses of a window, file by file, ascending. Frames of the kernel and of
//! files that the machine has not are left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer as Blazesym};
use criterion::{Criterion, Throughput};
use foldhash::fast::RandomState;
use leadsman_symbolizer::cache::ExecutableKey;
use leadsman_symbolizer::executable::Resolved;
use leadsman_symbolizer::names::NameId;
use leadsman_symbolizer::resolve::Symbolizer;
use leadsman_tests::workloads::programs;
use pprof::{Builder, FunctionId, Labels, Line, LocationId, Mapping, MappingId, Meta};

const SAMPLES: u64 = 1_000_000;
const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/benches/recording/mixed_load.pb.gz"
);
/// Turns of which the fastest is taken for the ratio.
const TURNS: usize = 3;

/// A place in code: a file's number and an offset in it.
type Place = (usize, u64);

/// What was recorded, without any name.
struct Recording {
    /// Files that the machine has.
    files: Vec<PathBuf>,
    /// Samples and frames, leaf first, by number of their place.
    stacks: Vec<(u64, Vec<usize>)>,
    /// All places of the stacks, by file, ascending; numbered in this order.
    places: Vec<Vec<u64>>,
}

impl Recording {
    fn read() -> Result<Self> {
        let path = std::env::var_os("LEADSMAN_RECORDING").map_or(RECORDING.into(), PathBuf::from);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let profile = pprof::read(&bytes)?;
        let text = |index: i64| profile.string_table[usize::try_from(index).unwrap_or(0)].as_str();
        let mut files = Vec::new();
        let mut mappings = HashMap::new();
        for mapping in &profile.mapping {
            let Some(path) = on_this_machine(text(mapping.filename))? else {
                eprintln!("not on this machine: {}", text(mapping.filename));
                continue;
            };
            let known = files.iter().position(|file| *file == path);
            let file = known.unwrap_or_else(|| {
                files.push(path);
                files.len() - 1
            });
            let to_offset = mapping.file_offset.wrapping_sub(mapping.memory_start);
            mappings.insert(mapping.id, (file, to_offset));
        }
        let locations: HashMap<u64, Place> = profile
            .location
            .iter()
            .filter_map(|location| {
                let (file, to_offset) = mappings.get(&location.mapping_id)?;
                Some((
                    location.id,
                    (*file, location.address.wrapping_add(*to_offset)),
                ))
            })
            .collect();
        let mut stacks = Vec::new();
        for sample in &profile.sample {
            let frames = sample.location_id.iter();
            let frames: Vec<_> = frames.filter_map(|id| locations.get(id).copied()).collect();
            let count = sample.value.first().copied().unwrap_or(0);
            if let (Ok(count @ 1..), false) = (u64::try_from(count), frames.is_empty()) {
                stacks.push((count, frames));
            }
        }
        ensure!(
            !stacks.is_empty(),
            "{}: no stack of this machine's files",
            path.display()
        );
        let mut places = vec![BTreeSet::new(); files.len()];
        for (file, offset) in stacks.iter().flat_map(|(_, frames)| frames) {
            places[*file].insert(*offset);
        }
        let places: Vec<_> = places.into_iter().map(Vec::from_iter).collect();
        let ordered = (0..).zip(&places);
        let ordered = ordered.flat_map(|(file, offsets)| offsets.iter().map(move |it| (file, *it)));
        let numbers: HashMap<Place, usize> = ordered.zip(0..).collect();
        let numbered = |frames: Vec<Place>| frames.iter().map(|place| numbers[place]).collect();
        let stacks = stacks.into_iter();
        let stacks = stacks
            .map(|(count, frames)| (count, numbered(frames)))
            .collect();
        Ok(Self {
            files,
            stacks,
            places,
        })
    }

    /// Samples of a window.
    fn samples(&self) -> u64 {
        self.stacks.iter().map(|(count, _)| count).sum()
    }

    /// Windows that make up the samples asked for.
    fn windows(&self) -> u64 {
        SAMPLES.div_ceil(self.samples())
    }
}

/// A file of the machine, or a workload's program of that name.
fn on_this_machine(path: &str) -> Result<Option<PathBuf>> {
    let path = Path::new(path);
    if path.is_absolute() {
        return Ok(path.is_file().then(|| path.to_owned()));
    }
    let built = programs()?.path(&path.to_string_lossy());
    Ok(built.is_file().then_some(built))
}

/// One window's profile in the making.
struct Window<'a> {
    recording: &'a Recording,
    builder: Builder,
    mappings: Vec<MappingId>,
    /// Of each place.
    locations: Vec<LocationId>,
}

impl<'a> Window<'a> {
    fn new(recording: &'a Recording) -> Self {
        let mut builder = Builder::new(Meta::default());
        let paths = recording.files.iter().map(|path| path.to_string_lossy());
        let mappings = paths
            .map(|filename| {
                builder.mapping(&Mapping {
                    filename: &filename,
                    ..Mapping::default()
                })
            })
            .collect();
        Self {
            recording,
            builder,
            mappings,
            locations: Vec::new(),
        }
    }

    /// Adds the next place.
    fn location(&mut self, (file, offset): Place, lines: &[Line]) {
        let mapping = Some(self.mappings[file]);
        self.locations
            .push(self.builder.location(mapping, offset, lines));
    }

    fn finish(mut self) -> Vec<u8> {
        let mut stack = Vec::new();
        for (count, frames) in &self.recording.stacks {
            stack.clear();
            stack.extend(frames.iter().map(|place| self.locations[*place]));
            self.builder.sample(&stack, &Labels::default(), *count);
        }
        pprof::encode(&self.builder.finish())
    }
}

fn key(file: usize) -> ExecutableKey {
    ExecutableKey(file as u64)
}

/// Gives an executable the debug file that the machine has for its build ID, which blazesym finds by itself.
fn attach_debug_file(symbolizer: &mut Symbolizer, key: ExecutableKey) {
    for wanted in symbolizer.debug_files_wanted(key) {
        let path = wanted.build_id_path();
        let path = path.map(|path| Path::new("/usr/lib/debug").join(path));
        if let Some(Ok(file)) = path.map(File::open)
            && symbolizer.attach_debug_file(key, &wanted, file).is_ok()
        {
            return;
        }
    }
    symbolizer.no_debug_file(key);
}

/// All windows by Leadsman; the last one's bytes.
fn leadsman(recording: &Recording) -> Vec<u8> {
    let mut symbolizer = Symbolizer::default();
    for (file, path) in recording.files.iter().enumerate() {
        let opened = File::open(path).expect("the file is there");
        symbolizer
            .add_executable(key(file), opened)
            .expect("an ELF file");
        attach_debug_file(&mut symbolizer, key(file));
    }
    let mut bytes = Vec::new();
    for _ in 0..recording.windows() {
        let mut window = Window::new(recording);
        for (file, offsets) in recording.places.iter().enumerate() {
            let mut functions = HashMap::default();
            for offset in offsets {
                let address = symbolizer.address_of(key(file), *offset);
                let resolved = address.map(|address| symbolizer.frames(key(file), address));
                let lines = resolved.map_or_else(Vec::new, |resolved| {
                    leadsman_lines(&mut window.builder, &mut functions, &resolved)
                });
                window.location((file, *offset), &lines);
            }
        }
        bytes = window.finish();
        symbolizer.end_window();
    }
    bytes
}

/// Functions of a place, innermost first; those of a file that the builder knows already by their names' numbers.
fn leadsman_lines(
    builder: &mut Builder,
    functions: &mut HashMap<(NameId, Option<NameId>), FunctionId, RandomState>,
    resolved: &Resolved<'_>,
) -> Vec<Line> {
    let name = |id| resolved.names.get(id);
    let frames = resolved.frames.iter().map(|frame| Line {
        function: *functions
            .entry((frame.system_name, frame.file))
            .or_insert_with(|| {
                let file = frame.file.map_or("", name);
                builder.function(name(frame.function), name(frame.system_name), file)
            }),
        line: frame.line.into(),
    });
    frames.collect()
}

/// The same by blazesym.
fn blazesym(recording: &Recording) -> Vec<u8> {
    let symbolizer = Blazesym::builder().enable_auto_reload(false).build();
    let sources: Vec<_> = recording
        .files
        .iter()
        .map(|path| Source::Elf(Elf::new(path)))
        .collect();
    let mut bytes = Vec::new();
    for _ in 0..recording.windows() {
        let mut window = Window::new(recording);
        for (file, offsets) in recording.places.iter().enumerate() {
            let named = symbolizer.symbolize(&sources[file], Input::FileOffset(offsets));
            let named = named.expect("the file is symbolized");
            for (offset, symbolized) in offsets.iter().zip(&named) {
                let lines = blazesym_lines(&mut window.builder, symbolized);
                window.location((file, *offset), &lines);
            }
        }
        bytes = window.finish();
    }
    bytes
}

/// Functions of a place, innermost first. blazesym gives them outermost first, and each the place of its own call.
fn blazesym_lines(builder: &mut Builder, symbolized: &Symbolized<'_>) -> Vec<Line> {
    let Symbolized::Sym(symbol) = symbolized else {
        return Vec::new();
    };
    let outer = std::iter::once((&symbol.name, symbol.code_info.as_deref()));
    let inlined = symbol.inlined.iter();
    let inlined = inlined.map(|function| (&function.name, function.code_info.as_ref()));
    let mut lines: Vec<_> = outer
        .chain(inlined)
        .map(|(name, code)| {
            let path = code.map(|code| code.to_path().to_string_lossy().into_owned());
            Line {
                function: builder.function(name, name, path.as_deref().unwrap_or_default()),
                line: code.and_then(|code| code.line).unwrap_or(0).into(),
            }
        })
        .collect();
    lines.reverse();
    lines
}

/// Names of each place of a profile, innermost first.
fn names(bytes: &[u8]) -> Result<BTreeMap<(u64, u64), Vec<String>>> {
    let profile = pprof::read(bytes)?;
    let functions: HashMap<_, _> = profile.function.iter().map(|one| (one.id, one)).collect();
    let places = profile.location.iter().map(|location| {
        let names = location.line.iter().map(|line| {
            let name = functions[&line.function_id].name;
            profile.string_table[usize::try_from(name).unwrap_or(0)].clone()
        });
        ((location.mapping_id, location.address), names.collect())
    });
    Ok(places.collect())
}

/// Says how far the two agree: a comparison of different work would be none.
fn compare(recording: &Recording) -> Result<()> {
    let (ours, theirs) = (names(&leadsman(recording))?, names(&blazesym(recording))?);
    let named = |places: &BTreeMap<_, Vec<String>>| {
        places.values().filter(|names| !names.is_empty()).count()
    };
    let frames = |places: &BTreeMap<_, Vec<String>>| places.values().map(Vec::len).sum::<usize>();
    let equal = ours
        .iter()
        .filter(|(place, names)| theirs[place] == **names);
    let (files, windows) = (recording.files.len(), recording.windows());
    println!(
        "{windows} windows of {} samples in {} stacks, {} places of {files} files",
        recording.samples(),
        recording.stacks.len(),
        ours.len()
    );
    println!(
        "leadsman: {} places named, {} functions",
        named(&ours),
        frames(&ours)
    );
    println!(
        "blazesym: {} places named, {} functions",
        named(&theirs),
        frames(&theirs)
    );
    println!("equal names at {} places", equal.count());
    Ok(())
}

fn fastest(mut act: impl FnMut() -> Vec<u8>) -> Duration {
    let turns = (0..TURNS).map(|_| {
        let start = Instant::now();
        black_box(act());
        start.elapsed()
    });
    turns.min().unwrap_or_default()
}

fn main() -> Result<()> {
    let recording = Recording::read()?;
    compare(&recording)?;
    let (ours, theirs) = (
        fastest(|| leadsman(&recording)),
        fastest(|| blazesym(&recording)),
    );
    println!(
        "leadsman {ours:.1?}, blazesym {theirs:.1?}: {:.1} times as fast",
        theirs.as_secs_f64() / ours.as_secs_f64()
    );
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("symbolize");
    group.sample_size(10);
    group.throughput(Throughput::Elements(
        recording.windows() * recording.samples(),
    ));
    group.bench_function("leadsman", |bencher| bencher.iter(|| leadsman(&recording)));
    group.bench_function("blazesym", |bencher| bencher.iter(|| blazesym(&recording)));
    group.finish();
    criterion.final_summary();
    Ok(())
}
