//! Notices that a file changed: written in place, replaced by a rename, or a symlink on the way to it swapped, as
//! Kubernetes does with a ConfigMap. Watches directories, so it sees what takes the file's place.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Links to a file that are followed.
const MAX_LINKS: usize = 8;

/// A watched file. Its descriptor is readable when something happened in a directory it depends on.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    /// The directories that were watched at the start.
    directories: Vec<PathBuf>,
}

impl Watch {
    /// Watches `file`, through whatever links lead to it now.
    ///
    /// # Errors
    /// No inotify, or no right to look into the directory.
    pub fn new(file: &Path) -> Result<Self, Errno> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let directories = directories(file);
        let events = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ONLYDIR;
        let mut watched = Err(Errno::NOENT);
        for (index, directory) in directories.iter().enumerate() {
            let added = inotify::add_watch(&inotify, directory, events);
            // The first is where the file's name stands; the others only matter while links lead there.
            if index == 0 || watched.is_err() {
                watched = added;
            }
        }
        watched.map(|_number| Self {
            inotify,
            directories,
        })
    }

    /// The directories on the way to the file.
    #[must_use]
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Whether anything happened since the last call.
    pub fn changed(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut changed = false;
        while let Ok(_event) = reader.next() {
            changed = true;
        }
        changed
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// The directory of `file`, and those of what it links to.
fn directories(file: &Path) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = Vec::new();
    let mut path = file.to_owned();
    for _ in 0..MAX_LINKS {
        let directory = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => break,
        };
        let target = fs::read_link(&path);
        let next = target.as_ref().ok().map(|target| directory.join(target));
        if !directories.contains(&directory) {
            directories.push(directory);
        }
        match next {
            Some(next) => path = next,
            None => break,
        }
    }
    directories
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn writes_renames_and_swapped_links_are_seen() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("leadsman.yaml");
        fs::write(&file, "a").unwrap();
        let mut watch = Watch::new(&file).unwrap();
        assert!(!watch.changed());
        fs::write(&file, "b").unwrap();
        assert!(watch.changed() && !watch.changed());
        fs::write(root.path().join("new"), "c").unwrap();
        fs::rename(root.path().join("new"), &file).unwrap();
        assert!(watch.changed());
        fs::remove_file(&file).unwrap();
        assert!(watch.changed());
    }

    #[test]
    fn a_config_map_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("..1")).unwrap();
        fs::create_dir(path("..2")).unwrap();
        fs::write(path("..1/leadsman.yaml"), "a").unwrap();
        fs::write(path("..2/leadsman.yaml"), "b").unwrap();
        symlink("..1", path("..data")).unwrap();
        symlink("..data/leadsman.yaml", path("leadsman.yaml")).unwrap();
        let mut watch = Watch::new(&path("leadsman.yaml")).unwrap();
        symlink("..2", path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        assert!(watch.changed());
        assert_eq!(fs::read_to_string(path("leadsman.yaml")).unwrap(), "b");
    }
}
