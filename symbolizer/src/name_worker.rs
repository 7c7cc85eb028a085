//! The thread that names windows. Takes files as they come, so that a window finds its executables open; decides nothing
//! about what is asked for.

use std::fs::File;
use std::io::Seek;
use std::sync::{Arc, Mutex, PoisonError};

use ipc_proto::codec::Bytes;
use ipc_proto::ids::BuildId;
use leadsman_symbolizer::build_id;
use leadsman_symbolizer::cache::ExecutableKey;
use leadsman_symbolizer::debuglink::DebugFileWanted;
use leadsman_symbolizer::kernel::KernelSymbols;
use leadsman_symbolizer::reason::Reason;

use crate::job::WindowJob;
use crate::modules::Modules;
use crate::quarantine::{FileKey, Quarantine};
use crate::symbolize::{NamedWindow, Namer};

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum NameRequest {
    /// A new sampler: its numbers mean other things; the kernel's symbols and the vDSO.
    Run {
        kallsyms: Option<File>,
        kernel_build_id: BuildId,
        vdso_key: ExecutableKey,
        vdso: Vec<u8>,
    },
    /// An executable's file.
    Executable {
        key: ExecutableKey,
        file: File,
        /// The kernel's build ID; empty when it had none.
        build_id: BuildId,
        file_key: FileKey,
    },
    /// A separate debug file that was found.
    DebugFile {
        key: ExecutableKey,
        wanted: DebugFileWanted,
        file: File,
    },
    /// No separate debug file was found.
    NoDebugFile { key: ExecutableKey },
    /// A process's perf map.
    PerfMap { image: u64, file: File },
    /// A window to be named.
    Window(Box<WindowJob>),
}

/// What the thread answers.
#[derive(Debug)]
pub(crate) enum NameAnswer {
    /// An executable was taken; it wants one of these debug files.
    Executable {
        key: ExecutableKey,
        build_id: BuildId,
        wanted: Vec<DebugFileWanted>,
    },
    /// An executable's file is of no use.
    Refused { key: ExecutableKey, reason: Reason },
    /// Whether a debug file was the right one.
    DebugFile { key: ExecutableKey, taken: bool },
    /// A named window.
    Window(Box<NamedWindow>),
}

/// The worker's state.
#[derive(Debug)]
pub(crate) struct NameWorker {
    pub(crate) namer: Namer,
    /// `/proc/kallsyms` of the current run.
    kallsyms: Option<File>,
    /// The kernel's modules when it was read.
    modules: Modules,
    /// Bytes of memory held, estimated.
    pub(crate) heap_bytes: Arc<Mutex<usize>>,
}

impl NameWorker {
    /// Will name with `namer`; `modules` is `/proc/modules`.
    pub(crate) fn new(namer: Namer, modules: Option<File>, heap_bytes: Arc<Mutex<usize>>) -> Self {
        Self {
            namer,
            kallsyms: None,
            modules: Modules::new(modules),
            heap_bytes,
        }
    }

    /// Does one thing.
    pub(crate) fn work(&mut self, request: NameRequest) -> Option<NameAnswer> {
        match request {
            NameRequest::Run {
                kallsyms,
                kernel_build_id,
                vdso_key,
                vdso,
            } => {
                self.begin_run(kallsyms, kernel_build_id, vdso_key, vdso);
                None
            }
            NameRequest::Executable {
                key,
                file,
                build_id,
                file_key,
            } => Some(self.add_executable(key, file, &build_id, &file_key)),
            NameRequest::DebugFile { key, wanted, file } => {
                let attached = self.namer.symbolizer.attach_debug_file(key, &wanted, file);
                Some(NameAnswer::DebugFile {
                    key,
                    taken: attached.is_ok(),
                })
            }
            NameRequest::NoDebugFile { key } => {
                self.namer.symbolizer.no_debug_file(key);
                None
            }
            NameRequest::PerfMap { image, file } => {
                self.namer.add_perf_map(image, &file);
                None
            }
            NameRequest::Window(job) => {
                self.follow_modules();
                let named = self.namer.name(*job);
                let bytes = self.namer.heap_bytes();
                *self
                    .heap_bytes
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = bytes;
                Some(NameAnswer::Window(Box::new(named)))
            }
        }
    }

    fn begin_run(
        &mut self,
        kallsyms: Option<File>,
        kernel_build_id: BuildId,
        vdso_key: ExecutableKey,
        vdso: Vec<u8>,
    ) {
        self.namer.forget_images();
        self.kallsyms = kallsyms;
        self.modules.have_changed();
        self.read_kernel_symbols();
        self.namer.kernel_build_id = kernel_build_id;
        self.namer.vdso = match self.namer.symbolizer.add_image(vdso_key, vdso) {
            Ok(_executable) => Some(vdso_key),
            Err(_reason) => None,
        };
    }

    /// Reads the kernel's symbols again when modules came or went.
    fn follow_modules(&mut self) {
        if self.modules.have_changed() {
            self.read_kernel_symbols();
        }
    }

    fn read_kernel_symbols(&mut self) {
        self.namer.kernel = match &mut self.kallsyms {
            // The position is shared with the sampler, and with an earlier symbolizer that read all of it.
            Some(file) => match file.rewind() {
                Ok(()) => KernelSymbols::read(file),
                Err(_error) => Err(Reason::KallsymsMissing),
            },
            None => Err(Reason::KallsymsMissing),
        };
        if let Err(reason) = &self.namer.kernel {
            log::warn!("kernel functions stay unnamed: {reason}");
        }
    }

    fn add_executable(
        &mut self,
        key: ExecutableKey,
        file: File,
        build_id: &BuildId,
        file_key: &FileKey,
    ) -> NameAnswer {
        if self.locked(|quarantine| quarantine.holds(file_key)) {
            let reason = Reason::Quarantined;
            return NameAnswer::Refused { key, reason };
        }
        self.locked(|quarantine| quarantine.mark(file_key));
        let found = self
            .namer
            .symbolizer
            .add_executable(key, file)
            .map(|executable| {
                // The kernel knows no other than the GNU note's.
                let id = match build_id.0.is_empty() {
                    true => build_id::of(executable.file(), executable.elf()),
                    false => executable.build_id().cloned(),
                };
                let id: BuildId = Bytes::cut(id.as_ref().map_or(&[], |id| id.as_bytes()));
                (id, executable.debug_files_wanted())
            });
        self.locked(|quarantine| quarantine.clear(file_key));
        match found {
            Ok((found, _)) if !build_id.0.is_empty() && found != *build_id => {
                self.namer.symbolizer.remove_executable(key);
                // Another file stands at its path now.
                let reason = Reason::AddressOutsideText;
                NameAnswer::Refused { key, reason }
            }
            Ok((build_id, wanted)) => NameAnswer::Executable {
                key,
                build_id,
                wanted,
            },
            Err(reason) => NameAnswer::Refused { key, reason },
        }
    }

    fn locked<T>(&self, act: impl FnOnce(&mut Quarantine) -> T) -> T {
        act(&mut self
            .namer
            .quarantine
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn worker() -> NameWorker {
        NameWorker::new(Namer::new(Arc::default()), None, Arc::default())
    }

    fn own() -> File {
        File::open("/proc/self/exe").unwrap()
    }

    fn add(worker: &mut NameWorker, file: File, build_id: &[u8]) -> NameAnswer {
        let request = NameRequest::Executable {
            key: ExecutableKey(1),
            file,
            build_id: Bytes::cut(build_id),
            file_key: FileKey::new(build_id, 1, 2),
        };
        worker.work(request).unwrap()
    }

    #[test]
    fn the_kernels_symbols_are_read_again_for_each_sampler() {
        let mut kallsyms = tempfile::tempfile().unwrap();
        kallsyms.write_all(b"ffffffff80000000 T first\n").unwrap();
        let mut worker = worker();
        for _ in 0..2 {
            let run = NameRequest::Run {
                kallsyms: Some(kallsyms.try_clone().unwrap()),
                kernel_build_id: BuildId::default(),
                vdso_key: ExecutableKey(0),
                vdso: Vec::new(),
            };
            assert!(worker.work(run).is_none());
            assert_eq!(worker.namer.kernel.as_ref().map(KernelSymbols::len), Ok(1));
        }
    }

    #[test]
    fn a_module_that_came_has_names() {
        let mut kallsyms = tempfile::tempfile().unwrap();
        let mut modules = tempfile::tempfile().unwrap();
        kallsyms.write_all(b"ffffffff80000000 T first\n").unwrap();
        let list = Some(modules.try_clone().unwrap());
        let mut worker = NameWorker::new(Namer::new(Arc::default()), list, Arc::default());
        worker.kallsyms = Some(kallsyms.try_clone().unwrap());
        worker.read_kernel_symbols();
        kallsyms
            .write_all(b"ffffffffc0000000 t of_module\t[loop]\n")
            .unwrap();
        worker.follow_modules();
        let functions = |worker: &NameWorker| {
            let kernel = worker.namer.kernel.as_ref();
            kernel.map(KernelSymbols::len).ok()
        };
        assert_eq!(functions(&worker), Some(1), "no module came");
        modules
            .write_all(b"loop 40960 0 - Live 0xffffffffc0000000\n")
            .unwrap();
        worker.follow_modules();
        assert_eq!(functions(&worker), Some(2));
    }

    #[test]
    fn a_file_of_another_build_is_refused() {
        let mut worker = worker();
        let NameAnswer::Executable { build_id, .. } = add(&mut worker, own(), &[]) else {
            panic!("own executable is taken");
        };
        assert!(!build_id.0.is_empty());
        assert!(matches!(
            add(&mut worker, own(), &build_id.0),
            NameAnswer::Executable { .. }
        ));
        assert!(matches!(
            add(&mut worker, own(), &[1, 2]),
            NameAnswer::Refused { .. }
        ));
        assert!(!worker.namer.symbolizer.contains(ExecutableKey(1)));
    }
}
