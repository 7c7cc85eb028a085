//! The configuration file's copy in the runtime directory, where the shipper reads and watches it: the file itself may lie
//! where only root looks. Follows the file; reads nothing of it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use config::watch::Watch;
use rustix::fs::{Gid, chown};

use crate::error::Failure;
use crate::runtime_directory::CONFIGURATION;
use crate::users::User;

/// Bytes copied: one more than a document may have, so that a larger one is refused.
const MAX_BYTES: u64 = (1 << 20) + 1;
const NAME: &str = "leadsman.yaml";

/// The file and its copy.
#[derive(Debug)]
pub(crate) struct ConfigurationCopy {
    file: PathBuf,
    copy: PathBuf,
    reader: User,
    watch: Option<Watch>,
    /// What was last said of a failure.
    said: String,
}

impl ConfigurationCopy {
    /// Copies `file` for `reader`, who alone may read it besides root: there may be a secret in it.
    ///
    /// # Errors
    /// It can't be copied.
    pub(crate) fn make(file: PathBuf, directory: &Path, reader: User) -> Result<Self, Failure> {
        let failed =
            |error: io::Error| Failure::failed(format!("cannot copy {}: {error}", file.display()));
        let directory = directory.join(CONFIGURATION);
        DirBuilder::new()
            .mode(0o750)
            .create(&directory)
            .and_then(|()| Ok(chown(&directory, None, Some(Gid::from_raw(reader.gid)))?))
            .map_err(failed)?;
        // Watched before it is read: what changes meanwhile is seen.
        let watch = Watch::new(&file).ok();
        let copy = directory.join(NAME);
        write(&file, &copy, reader).map_err(failed)?;
        Ok(Self {
            file,
            copy,
            reader,
            watch,
            said: String::new(),
        })
    }

    /// Where the copy is.
    pub(crate) fn path(&self) -> &Path {
        &self.copy
    }

    /// What to poll.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Copies again if the file may have changed, or when `asked` to.
    pub(crate) fn follow(&mut self, asked: bool) {
        let changed = self.watch.as_mut().is_some_and(Watch::changed);
        if !(asked || changed) {
            return;
        }
        let said = match write(&self.file, &self.copy, self.reader) {
            Ok(()) => String::new(),
            Err(error) => format!("cannot copy {}: {error}", self.file.display()),
        };
        if !said.is_empty() && said != self.said {
            eprintln!("leadsman: {said}: the settings stay as they were");
        }
        self.said = said;
    }
}

/// Whole or not at all.
fn write(from: &Path, to: &Path, reader: User) -> io::Result<()> {
    let mut bytes = Vec::new();
    File::open(from)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let temporary = to.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&temporary)?;
    file.write_all(&bytes)?;
    chown(&temporary, None, Some(Gid::from_raw(reader.gid)))?;
    fs::rename(&temporary, to)
}
