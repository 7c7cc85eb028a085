//! Loads the BPF object and attaches it to a timer on every CPU.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::{PerfEvent, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader, GlobalData, VerifierLogLevel};
use leadsman_ebpf::abi::{BlockKey, KernelOffsets, MappingBlock, Process};
use leadsman_ebpf::table::{Chunk, Region, RegionKey};
use object::{Object, ObjectSection};
use thiserror::Error;

use crate::bpf::btf::{Btf, BtfError};
use crate::perf_event::{PerfEventError, Timer};

/// The BPF programs, built from `ebpf/` by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../ebpf/leadsman-bpf.o");

/// The running kernel's type information.
pub(crate) const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// `THREAD_SIZE` without KASAN (arch/x86/include/asm/page_64_types.h), less `struct pt_regs`.
const STACK_TO_REGISTERS: u32 = 16 * 1024 - 168;

/// Why the BPF programs do not run.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    /// No type information.
    #[error("cannot read {BTF_PATH}: {0}: the kernel needs CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf(io::Error),
    /// Type information of another shape.
    #[error("{0}")]
    Btf(#[from] BtfError),
    /// A field that the programs need.
    #[error("this kernel's structs have no member {0}")]
    NoMember(&'static str),
    /// The kernel refused the object's maps.
    #[error("the kernel refused Leadsman's BPF maps: {0}: CAP_BPF is needed")]
    Object(#[from] EbpfError),
    /// The verifier or a capability check refused a program.
    #[error("the kernel refused the BPF program {program}: {source}")]
    Program {
        /// Which one.
        program: &'static str,
        /// What the kernel said.
        source: ProgramError,
    },
    /// The object is not what this program was built with.
    #[error("the BPF object is malformed: {0}")]
    Malformed(String),
    /// A map or program is not in the object, or of another kind.
    #[error("the BPF object lacks {0}: rebuild it with `cargo xtask build-ebpf`")]
    Missing(&'static str),
    /// A timer could not be started.
    #[error("{0}")]
    Timer(#[from] PerfEventError),
    /// The list of CPUs could not be read.
    #[error("cannot read the list of online CPUs: {0}")]
    Cpus(io::Error),
}

/// Sizes of the maps, from the memory budget.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Bytes of the ring buffer, a power of two times the page size.
    pub(crate) ring_bytes: u32,
    /// Most processes known to the programs at once.
    pub(crate) processes: u32,
    /// Most blocks of their mappings.
    pub(crate) blocks: u32,
    /// Most chunks of unwind rows.
    pub(crate) chunks: u32,
    /// Most regions.
    pub(crate) regions: u32,
}

/// The loaded object: dropping it detaches the programs and frees the maps.
pub(crate) struct Loaded {
    /// Programs and their links.
    pub(crate) object: Ebpf,
    /// Samples.
    pub(crate) records: RingBuf<MapData>,
    /// See `ebpf/src/maps.rs`.
    pub(crate) processes: HashMap<MapData, u32, Process>,
    pub(crate) mappings: HashMap<MapData, BlockKey, MappingBlock>,
    pub(crate) regions: HashMap<MapData, RegionKey, Region>,
    pub(crate) chunks: HashMap<MapData, u32, Chunk>,
    pub(crate) counters: PerCpuArray<MapData, u64>,
    /// The tail call's target must outlive the programs' use of it.
    pub(crate) programs: ProgramArray<MapData>,
    /// How long the kernel took over the programs.
    pub(crate) verifier_time: Duration,
}

fn offsets() -> Result<KernelOffsets, LoadError> {
    let bytes = fs::read(BTF_PATH).map_err(LoadError::NoBtf)?;
    let btf = Btf::parse(&bytes)?;
    const MEMBERS: [&str; 10] = [
        "stack",
        "flags",
        "mm",
        "group_leader",
        "tgid",
        "real_parent",
        "start_boottime",
        "self_exec_id",
        "parent_exec_id",
        // Before Linux 5.5 the name of `start_boottime`.
        "real_start_time",
    ];
    let mut found = btf.offsets("task_struct", MEMBERS)?;
    found[6] = found[6].or(found[9]);
    let member = |index: usize| found[index].ok_or(LoadError::NoMember(MEMBERS[index]));
    let [start_stack] = btf.offsets("mm_struct", ["start_stack"])?;
    Ok(KernelOffsets {
        task_stack: member(0)?,
        task_flags: member(1)?,
        task_mm: member(2)?,
        task_group_leader: member(3)?,
        task_tgid: member(4)?,
        task_real_parent: member(5)?,
        task_start_time: member(6)?,
        task_exec_id: member(7)?,
        task_parent_exec_id: member(8)?,
        mm_start_stack: start_stack.ok_or(LoadError::NoMember("start_stack"))?,
        stack_to_registers: STACK_TO_REGISTERS,
    })
}

/// First kernel whose perf events may use hash maps that allocate their elements as they come (kernel/bpf/verifier.c,
/// `check_map_prog_compatibility`).
pub(crate) const GROWING_MAPS: (u32, u32) = (6, 1);

/// Takes the flag `BPF_F_NO_PREALLOC` from all map definitions: `struct bpf_map_def`, seven words with the flags fifth.
fn preallocate(bytes: &mut [u8]) -> Result<(), LoadError> {
    const DEFINITION: usize = 28;
    const FLAGS: usize = 16;
    const NO_PREALLOC: u8 = 1;
    let file =
        object::File::parse(&*bytes).map_err(|error| LoadError::Malformed(error.to_string()))?;
    let section = file.section_by_name("maps");
    let range = section.and_then(|section| section.file_range());
    let (start, length) = range.ok_or(LoadError::Missing("its maps"))?;
    let definitions = bytes
        .get_mut(start as usize..)
        .and_then(|rest| rest.get_mut(..length as usize))
        .ok_or(LoadError::Missing("its maps"))?;
    for definition in definitions.chunks_exact_mut(DEFINITION) {
        definition[FLAGS] &= !NO_PREALLOC;
    }
    Ok(())
}

macro_rules! take {
    ($object:ident, $name:literal) => {
        $object
            .take_map($name)
            .ok_or(LoadError::Missing($name))?
            .try_into()
            .map_err(|_kind| LoadError::Missing($name))?
    };
}

impl Loaded {
    /// Loads and verifies the programs; nothing runs yet.
    ///
    /// Elements of hash maps are allocated as they come; `preallocated`: all at once, for kernels that want it.
    pub(crate) fn load(sizes: Sizes, preallocated: bool) -> Result<Self, LoadError> {
        let offsets = offsets()?;
        let mut bytes = Cow::Borrowed(OBJECT);
        if preallocated {
            preallocate(bytes.to_mut())?;
        }
        let mut object = EbpfLoader::new()
            .override_global("OFFSETS", GlobalData::from(&offsets), true)
            // The full log of a program that passes costs more than its check.
            .verifier_log_level(VerifierLogLevel::STATS)
            .map_max_entries("RECORDS", sizes.ring_bytes)
            .map_max_entries("CHUNKS", sizes.chunks)
            .map_max_entries("REGIONS", sizes.regions)
            .map_max_entries("PROCESSES", sizes.processes)
            .map_max_entries("MAPPINGS", sizes.blocks)
            .load(&bytes)?;
        let start = Instant::now();
        for program in ["sample", "walk"] {
            event_program(&mut object, program)?
                .load()
                .map_err(|source| LoadError::Program { program, source })?;
        }
        let verifier_time = start.elapsed();
        let mut programs: ProgramArray<MapData> = take!(object, "PROGRAMS");
        let walk = object.program("walk").ok_or(LoadError::Missing("walk"))?;
        let walk = walk.fd().map_err(|source| LoadError::Program {
            program: "walk",
            source,
        })?;
        programs
            .set(0, walk, 0)
            .map_err(|_error| LoadError::Missing("PROGRAMS"))?;
        Ok(Self {
            records: take!(object, "RECORDS"),
            processes: take!(object, "PROCESSES"),
            mappings: take!(object, "MAPPINGS"),
            regions: take!(object, "REGIONS"),
            chunks: take!(object, "CHUNKS"),
            counters: take!(object, "COUNTERS"),
            programs,
            object,
            verifier_time,
        })
    }

    /// Starts a timer of `frequency` Hz on each of `cpus`.
    pub(crate) fn attach(&mut self, frequency: u32, cpus: &[u32]) -> Result<Vec<Timer>, LoadError> {
        let program = event_program(&mut self.object, "sample")?;
        let program = program.fd().map_err(|source| LoadError::Program {
            program: "sample",
            source,
        })?;
        let timers = cpus.iter().map(|cpu| -> Result<Timer, LoadError> {
            let timer = Timer::open(*cpu, frequency, program.as_fd())?;
            timer.start()?;
            Ok(timer)
        });
        timers.collect()
    }
}

fn event_program<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut PerfEvent, LoadError> {
    object
        .program_mut(name)
        .ok_or(LoadError::Missing(name))?
        .try_into()
        .map_err(|_kind| LoadError::Missing(name))
}

/// The CPUs that are online.
pub(crate) fn online_cpus() -> Result<Vec<u32>, LoadError> {
    aya::util::online_cpus().map_err(|(_path, error)| LoadError::Cpus(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flags of each map definition of an object.
    fn flags(bytes: &[u8]) -> Vec<u32> {
        let file = object::File::parse(bytes).expect("an object");
        let section = file.section_by_name("maps").expect("maps");
        let data = section.data().expect("its bytes");
        data.chunks_exact(28)
            .map(|definition| {
                u32::from_le_bytes(definition[16..20].try_into().expect("four bytes"))
            })
            .collect()
    }

    #[test]
    fn maps_for_older_kernels_are_allocated_at_once() {
        let before = flags(OBJECT);
        assert!(before.contains(&1), "{before:?}");
        let mut bytes = OBJECT.to_vec();
        preallocate(&mut bytes).expect("patched");
        assert_eq!(flags(&bytes), vec![0; before.len()]);
        let changed = bytes.iter().zip(OBJECT).filter(|(new, old)| new != old);
        assert_eq!(
            changed.count(),
            before.iter().filter(|flags| **flags == 1).count()
        );
    }
}
