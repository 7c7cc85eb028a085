//! A finished window as the naming thread takes it: self-contained, so that images and executables may change meanwhile.
//! Equal code of different processes is made one here: the addresses of the process met first stand for all of them.

use std::collections::HashMap;

use ipc_proto::codec::{Bytes, List};
use ipc_proto::ids::{BuildId, ImageId, Tid, WindowId};
use ipc_proto::limits::MAX_PATH;
use ipc_proto::sample::{Backing, CgroupPath, CountedStack, Drop, Frame, Mapping};
use ipc_proto::symbolized::{NONE, SymbolizedProcess};
use leadsman_ebpf::stop::StopReason;
use leadsman_symbolizer::cache::ExecutableKey;
use leadsman_symbolizer::reason::Reason;
use leadsman_symbolizer::runtime::Runtime;

use crate::executables::{Executables, FileState};
use crate::images::{Image, Images};
use crate::quarantine::FileKey;
use crate::window::Window;

/// A mapping that frames refer to.
#[derive(Clone, Debug)]
pub(crate) struct JobMapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) file_offset: u64,
    pub(crate) backing: Backing,
    /// Path of a file.
    pub(crate) path: Bytes<MAX_PATH>,
    pub(crate) build_id: BuildId,
    /// Who knows the names of a file's code.
    pub(crate) key: ExecutableKey,
    /// Who is to blame if reading that file kills this process.
    pub(crate) file_key: Option<FileKey>,
    /// Why there are no names, when that is known already.
    pub(crate) reason: Option<Reason>,
    /// Whose generated code it is.
    pub(crate) image: ImageId,
}

/// A stack whose frames refer to [`WindowJob::mappings`].
#[derive(Clone, Debug)]
pub(crate) struct JobStack {
    pub(crate) process: u32,
    pub(crate) tid: Tid,
    pub(crate) thread_name: Bytes<16>,
    pub(crate) cgroup: u64,
    pub(crate) count: u64,
    pub(crate) stop: u8,
    pub(crate) kernel: Vec<u64>,
    /// A mapping of [`NONE`] is unknown.
    pub(crate) user: Vec<Frame>,
}

/// A process of a window.
#[derive(Clone, Debug)]
pub(crate) struct JobProcess {
    /// With its mapping by index into [`WindowJob::mappings`]; `comm` is set when strings get their numbers.
    pub(crate) about: SymbolizedProcess,
    pub(crate) comm: Bytes<16>,
    /// The language runtime among its files, and the mapping of that file.
    pub(crate) runtime: Option<(Runtime, u32)>,
}

/// A window to be named.
#[derive(Clone, Debug, Default)]
pub(crate) struct WindowJob {
    pub(crate) window: WindowId,
    /// CLOCK_REALTIME nanoseconds.
    pub(crate) start: u64,
    /// Nanoseconds.
    pub(crate) duration: u64,
    pub(crate) frequency: u32,
    pub(crate) last: bool,
    /// Samples dropped on the way to here, by cause.
    pub(crate) drops: Vec<Drop>,
    /// Where the cgroups of its samples stand, as far as the sampler knew.
    pub(crate) cgroups: Vec<CgroupPath>,
    pub(crate) processes: Vec<JobProcess>,
    pub(crate) mappings: Vec<JobMapping>,
    pub(crate) stacks: Vec<JobStack>,
}

/// What every window of a run has in common.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    /// Which sampler's, counted from this process's start.
    pub(crate) generation: u32,
    pub(crate) frequency: u32,
    /// CLOCK_REALTIME - CLOCK_MONOTONIC, nanoseconds.
    pub(crate) clock_offset: i64,
}

impl Run {
    /// An executable's number within this process.
    pub(crate) fn key(self, executable: ipc_proto::ids::ExecutableId) -> ExecutableKey {
        ExecutableKey(u64::from(self.generation) << 32 | u64::from(executable.0))
    }
}

/// Makes the job of a window; `now`: CLOCK_MONOTONIC nanoseconds, the end of a window whose end was never told.
pub(crate) fn build(
    window: Window,
    run: Run,
    images: &mut Images,
    executables: &Executables,
    now: u64,
) -> WindowJob {
    let mut job = WindowJob {
        window: window.id,
        frequency: run.frequency,
        ..WindowJob::default()
    };
    match &window.end {
        Some((end, _)) => {
            (job.start, job.duration, job.last) = (end.start, end.duration, end.last);
            job.frequency = end.frequency;
            job.drops.clone_from(&end.drops.0);
            job.cgroups.clone_from(&end.cgroups.0);
        }
        None => {
            job.start = window.opened.saturating_add_signed(run.clock_offset);
            job.duration = now.saturating_sub(window.opened).max(1);
        }
    }
    for (cause, samples) in &window.dropped {
        job.drops.push(Drop {
            cause: Bytes::cut(cause.as_bytes()),
            samples: *samples,
        });
    }
    let mut tables = Tables {
        run,
        executables,
        mappings: HashMap::new(),
        processes: HashMap::new(),
        job,
    };
    for stack in window.stacks {
        let image = images.named(stack.image);
        tables.add(stack, image);
    }
    tables.job
}

/// What makes two mappings the same code.
#[derive(PartialEq, Eq, Hash)]
enum Code {
    File(ExecutableKey, u64, u64),
    Vdso,
    Own(ImageId, u64, u64),
}

struct Tables<'a> {
    run: Run,
    executables: &'a Executables,
    mappings: HashMap<Code, u32>,
    processes: HashMap<ImageId, u32>,
    job: WindowJob,
}

impl Tables<'_> {
    fn add(&mut self, stack: CountedStack, image: Option<&Image>) {
        let process = self.process(stack.image, image);
        let mut stop = stack.stop;
        let mut user = stack.user.0;
        match image {
            Some(image) => {
                for frame in &mut user {
                    *frame = self.frame(stack.image, image, frame);
                }
            }
            None => {
                // Its mappings were lost with an earlier symbolizer, or forgotten for want of room.
                for frame in &mut user {
                    frame.mapping = NONE;
                }
                if !user.is_empty() {
                    stop = StopReason::MappingsUnknown as u8;
                }
            }
        }
        self.job.stacks.push(JobStack {
            process,
            tid: stack.tid,
            thread_name: stack.thread_name,
            cgroup: stack.cgroup,
            count: stack.count,
            stop,
            kernel: stack.kernel.0,
            user,
        });
    }

    fn process(&mut self, id: ImageId, image: Option<&Image>) -> u32 {
        if let Some(&index) = self.processes.get(&id) {
            return index;
        }
        let main = image.and_then(|image| {
            let mapping = (0..)
                .map_while(|index| image.get(index))
                .find(|mapping| mapping.backing == Backing::File as u8)?;
            Some(self.mapping(id, mapping))
        });
        let about = SymbolizedProcess {
            pid: image.map(|image| image.pid).unwrap_or_default(),
            start_time: image.map_or(0, |image| image.start_time),
            parent: image.map(|image| image.parent).unwrap_or_default(),
            comm: 0,
            executable: main.unwrap_or(NONE),
            ..SymbolizedProcess::default()
        };
        let runtime = image.and_then(|image| self.runtime(id, image));
        let comm = image.map(|image| image.comm.clone()).unwrap_or_default();
        let index = self.job.processes.len() as u32;
        self.job.processes.push(JobProcess {
            about,
            comm,
            runtime,
        });
        self.processes.insert(id, index);
        index
    }

    /// The first of an image's files that is a language runtime's.
    fn runtime(&mut self, id: ImageId, image: &Image) -> Option<(Runtime, u32)> {
        let (runtime, mapping) = (0..)
            .map_while(|index| image.get(index))
            .filter(|mapping| mapping.backing == Backing::File as u8)
            .find_map(|mapping| {
                let executable = self.executables.get(mapping.executable)?;
                let runtime = Runtime::of_path(&executable.about.path.text())?;
                Some((runtime, mapping))
            })?;
        Some((runtime, self.mapping(id, mapping)))
    }

    /// The frame by the window's mapping, at the address it has there.
    fn frame(&mut self, id: ImageId, image: &Image, frame: &Frame) -> Frame {
        let Some(mapping) = image.get(frame.mapping) else {
            return Frame {
                mapping: NONE,
                address: frame.address,
            };
        };
        let index = self.mapping(id, mapping);
        let start = self
            .job
            .mappings
            .get(index as usize)
            .map_or(mapping.start, |shared| shared.start);
        Frame {
            mapping: index,
            address: frame
                .address
                .wrapping_sub(mapping.start)
                .wrapping_add(start),
        }
    }

    fn mapping(&mut self, id: ImageId, mapping: &Mapping) -> u32 {
        let backing = backing(mapping);
        let key = self.run.key(mapping.executable);
        let length = mapping.end.wrapping_sub(mapping.start);
        let code = match backing {
            Backing::File => Code::File(key, mapping.file_offset, length),
            Backing::Vdso => Code::Vdso,
            Backing::Anonymous | Backing::Special => Code::Own(id, mapping.start, length),
        };
        if let Some(&index) = self.mappings.get(&code) {
            return index;
        }
        let mut shared = JobMapping {
            start: mapping.start,
            end: mapping.end,
            file_offset: mapping.file_offset,
            backing,
            path: Bytes::default(),
            build_id: BuildId::default(),
            key,
            file_key: None,
            reason: None,
            image: id,
        };
        if backing == Backing::File {
            match self.executables.get(mapping.executable) {
                Some(executable) => {
                    shared.path = executable.about.path.clone();
                    shared.build_id = executable.best_build_id().clone();
                    shared.file_key = Some(executable.file_key());
                    shared.reason = match &executable.file {
                        FileState::Given(_) => None,
                        FileState::Refused(reason) => Some(*reason),
                        FileState::Unknown | FileState::Asked => Some(Reason::NotYetOpened),
                    };
                }
                None => shared.reason = Some(Reason::NotYetOpened),
            }
        }
        let index = self.job.mappings.len() as u32;
        self.job.mappings.push(shared);
        self.mappings.insert(code, index);
        index
    }
}

/// What backs a mapping; a number that is none counts as anonymous.
pub(crate) fn backing(mapping: &Mapping) -> Backing {
    let all = Backing::ALL.iter();
    let found = all.copied().find(|one| *one as u8 == mapping.backing);
    found.unwrap_or(Backing::Anonymous)
}

/// The list as a message has it.
pub(crate) fn list<T, const MAX: usize>(mut values: Vec<T>) -> List<T, MAX> {
    values.truncate(MAX);
    List(values)
}
