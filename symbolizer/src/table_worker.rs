//! The thread that finds unwind tables: in the disk cache, or by building them from an executable's file. Owns the
//! cache; decides nothing about who needs a table.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, PoisonError};

use ipc_proto::codec::Bytes;
use ipc_proto::ids::BuildId;
use leadsman_symbolizer::cache::ExecutableKey;
use leadsman_symbolizer::elf::Elf;
use leadsman_symbolizer::file_bytes::FileBytes;
use leadsman_symbolizer::unwind_table;
use object::ReadCache;

use crate::quarantine::{FileKey, Quarantine};
use crate::table_cache::TableCache;

/// What a table is to be made from.
#[derive(Debug)]
pub(crate) enum TableSource {
    /// The disk cache only.
    Cache,
    /// The executable.
    File(File),
    /// An executable in memory: the vDSO.
    Image(Vec<u8>),
}

/// A table that is needed.
#[derive(Debug)]
pub(crate) struct TableJob {
    pub(crate) key: ExecutableKey,
    /// The kernel's build ID; empty when it had none.
    pub(crate) build_id: BuildId,
    pub(crate) file_key: FileKey,
    pub(crate) source: TableSource,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum TableResult {
    /// Here it is, with the build ID found in the file.
    Ready {
        table: Arc<Vec<u8>>,
        build_id: BuildId,
    },
    /// The cache does not have it.
    NotCached,
    /// The file is another build than the one the kernel mapped.
    OtherBuild,
    /// The file is not parsed: it was whenever this process died.
    Quarantined,
    /// There is no table to be had from it.
    Failed(String),
}

/// Counts of what the worker did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TableCounts {
    /// Tables found in the cache.
    pub(crate) cached: u64,
    /// Tables built.
    pub(crate) built: u64,
    /// Rows of these.
    pub(crate) rows: u64,
    /// Files without a table to be had.
    pub(crate) failed: u64,
}

/// The worker's state.
#[derive(Debug)]
pub(crate) struct TableWorker {
    pub(crate) cache: TableCache,
    pub(crate) quarantine: Arc<Mutex<Quarantine>>,
    pub(crate) counts: Arc<Mutex<TableCounts>>,
}

impl TableWorker {
    /// Does one job.
    pub(crate) fn work(&mut self, job: TableJob) -> (ExecutableKey, TableResult) {
        let key = job.key;
        let result = match self.find(job) {
            Ok(result) | Err(result) => result,
        };
        if matches!(result, TableResult::Failed(_)) {
            self.count(|counts| counts.failed += 1);
        }
        (key, result)
    }

    fn find(&mut self, job: TableJob) -> Result<TableResult, TableResult> {
        if let Some(table) = self.cached(&job.build_id.0) {
            let build_id = job.build_id;
            return Ok(TableResult::Ready { table, build_id });
        }
        if matches!(job.source, TableSource::Cache) {
            return Ok(TableResult::NotCached);
        }
        if self.locked_quarantine(|quarantine| quarantine.holds(&job.file_key)) {
            return Err(TableResult::Quarantined);
        }
        self.locked_quarantine(|quarantine| quarantine.mark(&job.file_key));
        let found = self.read(job.source, &job.build_id);
        self.locked_quarantine(|quarantine| quarantine.clear(&job.file_key));
        found
    }

    fn cached(&self, key: &[u8]) -> Option<Arc<Vec<u8>>> {
        let table = self.cache.load(key)?;
        self.count(|counts| counts.cached += 1);
        Some(Arc::new(table))
    }

    /// Builds the table after checking that the file is the build that was mapped, `expected`.
    fn read(
        &mut self,
        source: TableSource,
        expected: &BuildId,
    ) -> Result<TableResult, TableResult> {
        let failed = |error: &dyn std::fmt::Display| TableResult::Failed(error.to_string());
        let (table, build_id, key) = match source {
            TableSource::Cache => return Ok(TableResult::NotCached),
            TableSource::Image(bytes) => {
                let table =
                    unwind_table::build(bytes.as_slice()).map_err(|error| failed(&error))?;
                (table, BuildId::default(), Vec::new())
            }
            TableSource::File(file) => {
                let second = file.try_clone().map_err(|error| failed(&error))?;
                let bytes = FileBytes::of_file(second).map_err(|reason| failed(&reason.name()))?;
                let elf = Elf::read(&bytes).map_err(|reason| failed(&reason.name()))?;
                let found = elf.build_id().map(|id| id.as_bytes()).unwrap_or_default();
                let build_id: BuildId = Bytes::cut(found);
                let mut key = found.to_vec();
                if !expected.0.is_empty() && *expected != build_id {
                    return Err(TableResult::OtherBuild);
                }
                if key.is_empty() {
                    key = identity_of(&file);
                }
                // The kernel told no build ID: what the file says of itself may be known.
                if expected.0.is_empty()
                    && let Some(table) = self.cached(&key)
                {
                    return Ok(TableResult::Ready { table, build_id });
                }
                let contents = ReadCache::new(Positioned {
                    length: bytes.len(),
                    file,
                    position: 0,
                });
                let table = unwind_table::build(&contents).map_err(|error| failed(&error))?;
                (table, build_id, key)
            }
        };
        let bytes = table.encode();
        self.count(|counts| {
            counts.built += 1;
            counts.rows += table.rows();
        });
        self.cache.store(&key, &bytes);
        Ok(TableResult::Ready {
            table: Arc::new(bytes),
            build_id,
        })
    }

    fn locked_quarantine<T>(&self, act: impl FnOnce(&mut Quarantine) -> T) -> T {
        act(&mut self
            .quarantine
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self, act: impl FnOnce(&mut TableCounts)) {
        act(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What identifies a file without a build ID: where it is, how large, when it was written and changed.
fn identity_of(file: &File) -> Vec<u8> {
    let Ok(about) = file.metadata() else {
        return Vec::new();
    };
    let numbers = [
        about.dev(),
        about.ino(),
        about.len(),
        about.mtime() as u64,
        about.mtime_nsec() as u64,
        about.ctime() as u64,
        about.ctime_nsec() as u64,
    ];
    numbers.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// Reads a file by position: its own position is shared with whoever handed the descriptor over.
struct Positioned {
    file: File,
    length: u64,
    position: u64,
}

impl Read for Positioned {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }
}

impl Seek for Positioned {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use ipc_proto::table_file::TableFile;

    use super::*;

    fn own() -> File {
        File::open("/proc/self/exe").unwrap()
    }

    fn worker(cache: TableCache) -> TableWorker {
        TableWorker {
            cache,
            quarantine: Arc::default(),
            counts: Arc::default(),
        }
    }

    fn job(build_id: &[u8], source: TableSource) -> TableJob {
        TableJob {
            key: ExecutableKey(1),
            build_id: Bytes::cut(build_id),
            file_key: FileKey::new(build_id, 0, 0),
            source,
        }
    }

    fn own_build_id() -> Vec<u8> {
        let elf = Elf::read(&FileBytes::of_file(own()).unwrap()).unwrap();
        elf.build_id()
            .map(|id| id.as_bytes().to_vec())
            .unwrap_or_default()
    }

    #[test]
    fn a_table_is_built_once_and_found_again() {
        let root = tempfile::tempdir().unwrap();
        let mut worker = worker(TableCache::open(root.path()).unwrap());
        let build_id = own_build_id();
        assert!(!build_id.is_empty(), "the linker writes one");
        let (_, result) = worker.work(job(&build_id, TableSource::Cache));
        assert!(matches!(result, TableResult::NotCached), "{result:?}");
        let (_, result) = worker.work(job(&build_id, TableSource::File(own())));
        let TableResult::Ready {
            table,
            build_id: found,
        } = result
        else {
            panic!("{result:?}");
        };
        assert_eq!(found.0, build_id);
        assert!(TableFile::open(&table).unwrap().chunk_count() > 0);
        let (_, again) = worker.work(job(&build_id, TableSource::Cache));
        assert!(matches!(again, TableResult::Ready { table: same, .. } if same == table));
        let counts = *worker.counts.lock().unwrap();
        assert_eq!((counts.built, counts.cached), (1, 1));
        assert!(counts.rows > 100);
    }

    #[test]
    fn a_file_without_a_build_id_is_known_again_until_it_changes() {
        let root = tempfile::tempdir().unwrap();
        let mut worker = worker(TableCache::open(&root.path().join("cache")).unwrap());
        let path = root.path().join("executable");
        let mut bytes = std::fs::read("/proc/self/exe").unwrap();
        // Its build ID goes: the note's name is another one.
        let note = bytes
            .windows(8)
            .position(|bytes| bytes == b"\x03\0\0\0GNU\0")
            .unwrap();
        bytes[note + 4] = b'X';
        std::fs::write(&path, &bytes).unwrap();
        let mut find = || worker.work(job(&[], TableSource::File(File::open(&path).unwrap())));
        for _ in 0..2 {
            let (_, result) = find();
            let TableResult::Ready { build_id, .. } = result else {
                panic!("{result:?}");
            };
            assert!(build_id.0.is_empty());
        }
        std::fs::write(&path, &bytes).unwrap();
        find();
        let counts = *worker.counts.lock().unwrap();
        assert_eq!((counts.built, counts.cached), (2, 1));
    }

    #[test]
    fn another_build_and_no_elf_file_are_refused() {
        let mut worker = worker(TableCache::none());
        let (_, result) = worker.work(job(&[1, 2, 3], TableSource::File(own())));
        assert!(matches!(result, TableResult::OtherBuild), "{result:?}");
        let text = tempfile::tempfile().unwrap();
        let (_, result) = worker.work(job(&[], TableSource::File(text)));
        assert!(matches!(result, TableResult::Failed(_)), "{result:?}");
        let (_, result) = worker.work(job(&[], TableSource::Image(vec![0; 100])));
        assert!(matches!(result, TableResult::Failed(_)), "{result:?}");
    }
}
