//! Opens files of sampled processes, read-only, and never reads more of them than the four bytes that say ELF.
//!
//! A file is first opened with O_PATH, which runs no driver and follows no symbolic link, then looked at, then
//! reopened for reading through `/proc/self/fd`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ipc_proto::limits::MAX_PATH;
use ipc_proto::opener::{OpenExecutable, OpenStatus, Opened};
use rustix::fs::{
    CWD, Dir, FileType, Mode, OFlags, Stat, fstat, fstatfs, open, openat, readlinkat,
};
use rustix::io::{Errno, pread};

use crate::debug_directories::Place;
use crate::process_directory::{ProcessDirectory, status};

/// Largest executable or debug file handed out: 4 GiB.
const MAX_ELF_BYTES: u64 = 4 << 30;
/// Largest perf map handed out: 64 MiB.
const MAX_PERF_MAP_BYTES: u64 = 64 << 20;
/// Mappings looked at to find one by its address: the kernel's own default bound (vm.max_map_count).
const MAX_MAPPINGS: usize = 65_530;

/// Magic numbers of file systems (include/uapi/linux/magic.h) whose files may never answer, because a user-space
/// server or a network stands behind them: FUSE, NFS, CIFS, SMB2, 9P, autofs, Ceph, AFS.
const MAY_BLOCK: [i64; 8] = [
    0x6573_5546,
    0x6969,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
    0x0187,
    0x00c3_6400,
    0x5346_414f,
];

/// A file with what is known of it.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) fd: OwnedFd,
    stat: Stat,
}

impl OpenFile {
    /// The reply's numbers.
    pub(crate) fn describe(&self, request: u64) -> Opened {
        Opened {
            request,
            status: OpenStatus::Opened as u8,
            device: self.stat.st_dev,
            inode: self.stat.st_ino,
            size: self.stat.st_size as u64,
            modified: (self.stat.st_mtime as u64)
                .wrapping_mul(1_000_000_000)
                .wrapping_add(self.stat.st_mtime_nsec),
        }
    }
}

const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// `/proc/PID/maps`.
pub(crate) fn maps(process: &ProcessDirectory) -> Result<OpenFile, OpenStatus> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = openat(process, "maps", flags, Mode::empty()).map_err(status)?;
    let stat = fstat(&fd).map_err(status)?;
    Ok(OpenFile { fd, stat })
}

/// The file behind an executable mapping, by `map_files`: it is the mapped one, whatever its path holds now. And whether it
/// has the name that the kernel reported: else it was renamed, or another file is mapped there by now (`dlclose`, `dlopen`).
pub(crate) fn mapped(
    process: &ProcessDirectory,
    wanted: &OpenExecutable,
) -> Result<(OpenFile, bool), OpenStatus> {
    let (start, end) = (wanted.mapping_start, wanted.mapping_end);
    // The last component is a magic link to the file itself: following it walks no path.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let open = |start: u64, end: u64| {
        openat(
            process,
            format!("map_files/{start:x}-{end:x}"),
            flags,
            Mode::empty(),
        )
    };
    let found = match open(start, end) {
        Err(Errno::NOENT) => {
            let (start, end) = mapping_at(process, start)?;
            open(start, end)
        }
        result => result,
    };
    let found = found.map_err(status)?;
    let path = readlinkat(CWD, own_link(&found), Vec::new()).map_err(status)?;
    let is_named = name(path.as_bytes()) == name(&wanted.path.0);
    Ok((elf(&found)?, is_named))
}

/// The last component of a path, as of a file that was not deleted: mount namespaces have different ones before it.
fn name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// The mapping that holds `address` now: the kernel splits and merges mappings after it reported them.
fn mapping_at(process: &ProcessDirectory, address: u64) -> Result<(u64, u64), OpenStatus> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(process, "map_files", flags, Mode::empty()).map_err(status)?;
    for entry in Dir::new(directory).map_err(status)?.take(MAX_MAPPINGS) {
        let entry = entry.map_err(status)?;
        let range = entry.file_name().to_str().ok().and_then(|name| {
            let (start, end) = name.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            Some((number(start)?, number(end)?))
        });
        match range {
            Some((start, end)) if (start..end).contains(&address) => return Ok((start, end)),
            _ => {}
        }
    }
    Err(OpenStatus::NotFound)
}

/// A file by the path that the kernel reported for it, below `root` (a process's, or the initial one).
pub(crate) fn by_path(root: &impl AsFd, path: &[u8]) -> Result<OpenFile, OpenStatus> {
    elf(&walk(root, path)?)
}

/// The initial mount namespace's root, as this process sees it.
pub(crate) fn initial_root() -> Result<OwnedFd, OpenStatus> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open("/", flags, Mode::empty()).map_err(status)
}

/// The root directory that a process sees.
pub(crate) fn root_of(process: &ProcessDirectory) -> Result<OwnedFd, OpenStatus> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(process, "root", flags, Mode::empty()).map_err(status)
}

/// Walks a path component by component. The kernel reports mapped files by their real paths, so no component is a
/// symbolic link; a link found there, or a `..`, was put there by somebody else.
fn walk(root: &impl AsFd, path: &[u8]) -> Result<OwnedFd, OpenStatus> {
    let mut components = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .peekable();
    let mut directory: Option<OwnedFd> = None;
    while let Some(component) = components.next() {
        if component == b".." || component.contains(&0) {
            return Err(OpenStatus::Refused);
        }
        let flags = if components.peek().is_some() {
            LOOK | OFlags::DIRECTORY
        } else {
            LOOK
        };
        let at = directory.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        directory = Some(openat(at, component, flags, Mode::empty()).map_err(status)?);
    }
    directory.ok_or(OpenStatus::NotFound)
}

/// A separate debug file: the first of its places that holds one.
pub(crate) fn debug_file(root: &impl AsFd, places: &[Place]) -> Result<OpenFile, OpenStatus> {
    for place in places {
        let path = place.path.as_bytes();
        let found = match by_path(root, path) {
            Err(OpenStatus::Refused) if place.may_be_link => {
                link_target(root, path).and_then(|target| by_path(root, &target))
            }
            result => result,
        };
        match found {
            Err(OpenStatus::NotFound | OpenStatus::Refused) => {}
            result => return result,
        }
    }
    Err(OpenStatus::NotFound)
}

/// Where the symbolic link at `path` leads to, as a path below the same root: one step, by its text. What it leads to is
/// walked as any other path, so a second link is not followed.
fn link_target(root: &impl AsFd, path: &[u8]) -> Result<Vec<u8>, OpenStatus> {
    let link = walk(root, path)?;
    let target = readlinkat(&link, "", Vec::new()).map_err(status)?;
    let target = target.as_bytes();
    if target.len() > MAX_PATH {
        return Err(OpenStatus::Refused);
    }
    let start: &[u8] = match (target.first(), path.iter().rposition(|byte| *byte == b'/')) {
        (Some(b'/'), _) | (_, None) => &[],
        (_, Some(end)) => path.get(..end).unwrap_or_default(),
    };
    let mut components: Vec<&[u8]> = Vec::new();
    for part in [start, target] {
        for component in part.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => drop(components.pop()),
                component => components.push(component),
            }
        }
    }
    Ok(components.join(&b'/'))
}

/// `/tmp/perf-PID.map` as the process sees it. It must belong to the process's user or root: anybody may write to
/// `/tmp`, and whoever names a file so decides what functions are called.
pub(crate) fn perf_map(process: &ProcessDirectory, pid: u32) -> Result<OpenFile, OpenStatus> {
    let root = root_of(process)?;
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let tmp = openat(&root, "tmp", directory, Mode::empty()).map_err(status)?;
    let (owner, inner_pid) = identity(process, pid)?;
    let found =
        openat(&tmp, format!("perf-{inner_pid}.map"), LOOK, Mode::empty()).map_err(status)?;
    let stat = fstat(&found).map_err(status)?;
    if stat.st_nlink != 1 || (stat.st_uid != owner && stat.st_uid != 0) {
        return Err(OpenStatus::Refused);
    }
    reopen(&found, MAX_PERF_MAP_BYTES)
}

/// The process's user, and its number in its own PID namespace.
fn identity(process: &ProcessDirectory, pid: u32) -> Result<(u32, u32), OpenStatus> {
    let fd = openat(
        process,
        "status",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let mut text = [0; 4096];
    let length = pread(fd.map_err(status)?, &mut text, 0).map_err(status)?;
    let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    // Uid: real, effective, saved, file system. NSpid: outermost first.
    let owner = field("Uid:").and_then(|uids| uids.split_ascii_whitespace().nth(1)?.parse().ok());
    let inner = field("NSpid:").and_then(|pids| pids.split_ascii_whitespace().last()?.parse().ok());
    Ok((owner.ok_or(OpenStatus::ProcessGone)?, inner.unwrap_or(pid)))
}

fn elf(found: &OwnedFd) -> Result<OpenFile, OpenStatus> {
    let file = reopen(found, MAX_ELF_BYTES)?;
    let mut magic = [0; 4];
    match pread(&file.fd, &mut magic, 0) {
        Ok(4) if magic == *b"\x7fELF" => Ok(file),
        Ok(_) => Err(OpenStatus::Refused),
        Err(error) => Err(status(error)),
    }
}

/// The magic link to what a descriptor of this process stands for.
fn own_link(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens for reading what an O_PATH descriptor stands for, if it is a regular file that can't block.
fn reopen(found: &OwnedFd, max: u64) -> Result<OpenFile, OpenStatus> {
    let seen = fstat(found).map_err(status)?;
    if FileType::from_raw_mode(seen.st_mode) != FileType::RegularFile {
        return Err(OpenStatus::Refused);
    }
    if seen.st_size as u64 > max {
        return Err(OpenStatus::TooLarge);
    }
    if MAY_BLOCK.contains(&(fstatfs(found).map_err(status)?.f_type)) {
        return Err(OpenStatus::Refused);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = open(own_link(found), flags, Mode::empty()).map_err(status)?;
    let stat = fstat(&fd).map_err(status)?;
    if (stat.st_dev, stat.st_ino) != (seen.st_dev, seen.st_ino) {
        return Err(OpenStatus::Refused);
    }
    Ok(OpenFile { fd, stat })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_proto::codec::Bytes;
    use std::os::unix::fs::symlink;

    fn root() -> OwnedFd {
        initial_root().expect("there is one")
    }

    #[test]
    fn a_mapped_file_tells_whether_it_is_the_reported_one() {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("read");
        let line = maps
            .lines()
            .find(|line| line.contains(" r-xp ") && line.contains("/libc.so"));
        let mut fields = line.expect("libc is mapped").split_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-'));
        let (start, end) = range.expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("a number");
        let process = ProcessDirectory::open(std::process::id(), 0).expect("opened");
        for (path, expected) in [
            ("/elsewhere/libc.so.6", true),
            ("/elsewhere/libc.so.6 (deleted)", true),
            ("/usr/lib/x86_64-linux-gnu/libm.so.6", false),
        ] {
            let wanted = OpenExecutable {
                mapping_start: number(start),
                mapping_end: number(end),
                path: Bytes::cut(path.as_bytes()),
                ..OpenExecutable::default()
            };
            let (_file, is_named) = mapped(&process, &wanted).expect("opened");
            assert_eq!(is_named, expected, "{path}");
        }
    }

    #[test]
    fn elf_files_are_opened_by_their_real_path_only() {
        let exe = std::fs::read_link("/proc/self/exe").expect("known");
        let path = exe.to_str().expect("plain").as_bytes();
        assert!(by_path(&root(), path).is_ok());
        let directory =
            std::env::temp_dir().join(format!("leadsman-opener-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("made");
        let link = directory.join("link");
        symlink(&exe, &link).expect("made");
        let linked = by_path(&root(), link.to_str().expect("plain").as_bytes());
        assert_eq!(linked.map(|_| ()), Err(OpenStatus::Refused));
        let text = directory.join("text");
        std::fs::write(&text, "no ELF").expect("written");
        let refused = by_path(&root(), text.to_str().expect("plain").as_bytes());
        assert_eq!(refused.map(|_| ()), Err(OpenStatus::Refused));
        std::fs::remove_dir_all(&directory).expect("removed");
        assert_eq!(
            by_path(&root(), b"/no/such/file").map(|_| ()),
            Err(OpenStatus::NotFound)
        );
        assert_eq!(
            by_path(&root(), b"/usr/../bin/sh").map(|_| ()),
            Err(OpenStatus::Refused)
        );
        assert_eq!(
            by_path(&root(), b"/dev/null").map(|_| ()),
            Err(OpenStatus::Refused)
        );
    }

    #[test]
    fn a_process_is_its_number_and_its_start() {
        let own = std::process::id();
        let directory = ProcessDirectory::open(own, 0).expect("runs");
        assert!(maps(&directory).is_ok());
        assert_eq!(
            ProcessDirectory::open(own, 1).map(|_| ()),
            Err(OpenStatus::ProcessGone)
        );
        assert_eq!(
            ProcessDirectory::open(u32::MAX, 0).map(|_| ()),
            Err(OpenStatus::ProcessGone)
        );
    }

    #[test]
    fn a_link_by_build_id_leads_on_inside_the_root_only() {
        let exe = std::fs::read("/proc/self/exe").expect("readable");
        let directory = tempfile::tempdir().expect("made");
        let path = directory.path();
        std::fs::create_dir_all(path.join("debug/.build-id/ab")).expect("made");
        std::fs::write(path.join("debug/x.debug"), &exe).expect("written");
        let root = open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("opened");
        let place = |may_be_link| Place {
            path: "debug/.build-id/ab/cd.debug".to_owned(),
            may_be_link,
        };
        let link = path.join("debug/.build-id/ab/cd.debug");
        for (target, found) in [
            ("../../x.debug", true),
            ("/debug/x.debug", true),
            // More steps up than there are stay at the root, as they do for the process.
            ("../../../../../debug/x.debug", true),
            ("../../missing", false),
            ("/proc/self/exe", false),
        ] {
            symlink(target, &link).expect("made");
            assert_eq!(debug_file(&root, &[place(true)]).is_ok(), found, "{target}");
            assert!(debug_file(&root, &[place(false)]).is_err(), "{target}");
            std::fs::remove_file(&link).expect("removed");
        }
        symlink("../../second", &link).expect("made");
        symlink("x.debug", path.join("debug/second")).expect("made");
        assert!(debug_file(&root, &[place(true)]).is_err(), "a second link");
    }
}
