//! What a request asks for, and the ways to it in the order they are tried. Runs in a worker: it may take its time.

use ipc_proto::opener::{OpenExecutable, OpenStatus, OpenerRequest};

use crate::debug_directories::DebugDirectories;
use crate::engine::Ways;
use crate::files::{self, OpenFile};
use crate::process_directory::ProcessDirectory;

/// Opens what is asked for.
pub(crate) fn open(
    request: &OpenerRequest,
    ways: Ways,
    directories: &DebugDirectories,
) -> Result<OpenFile, OpenStatus> {
    let process = ProcessDirectory::open(request.pid().0, ways.start_time);
    match request {
        OpenerRequest::Sampled(_) => Err(OpenStatus::NotFound),
        OpenerRequest::OpenMaps(_) => files::maps(&process?),
        OpenerRequest::OpenExecutable(wanted) => executable(process, wanted, ways.by_path),
        OpenerRequest::OpenPerfMap(wanted) => files::perf_map(&process?, wanted.pid.0),
        OpenerRequest::OpenDebugFile(wanted) => {
            let places = directories.places(wanted);
            process
                .and_then(|process| files::root_of(&process))
                .and_then(|root| files::debug_file(&root, &places))
                .or_else(|_absent| files::debug_file(&files::initial_root()?, &places))
        }
    }
}

/// The mapped file itself, if it has the name reported; else what its path leads to: from the process's root while it
/// lives, then from the initial one.
/// The asker compares device, inode or build ID: the path may hold another file by now.
fn executable(
    process: Result<ProcessDirectory, OpenStatus>,
    wanted: &OpenExecutable,
    by_path: bool,
) -> Result<OpenFile, OpenStatus> {
    let mapped = process
        .as_ref()
        .map_err(|status| *status)
        .and_then(|process| files::mapped(process, wanted));
    let by_its_path = || {
        let inside = process
            .as_ref()
            .map_err(|status| *status)
            .and_then(files::root_of)
            .and_then(|root| files::by_path(&root, &wanted.path.0));
        inside.or_else(|_absent| files::by_path(&files::initial_root()?, &wanted.path.0))
    };
    match mapped {
        Ok((file, true)) => Ok(file),
        Ok((file, false)) if by_path => Ok(by_its_path().unwrap_or(file)),
        Ok((file, false)) => Ok(file),
        Err(OpenStatus::ProcessGone | OpenStatus::NotFound | OpenStatus::Denied) if by_path => {
            by_its_path()
        }
        Err(status) => Err(status),
    }
}
