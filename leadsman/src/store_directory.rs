//! Directories that a process keeps from run to run: the profiles, the unwind tables. Made as its user's own.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid, chown};

use crate::error::Failure;
use crate::users::User;

/// Makes `path`, with its parents, a directory that `user` can write to. One that is there already must be `user`'s,
/// or hold nothing but profiles: then it becomes `user`'s. Returns its absolute path.
///
/// # Errors
/// One line with the path.
pub(crate) fn prepare(path: &Path, user: User, option: &str) -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| {
        let advice = match option {
            "" => String::new(),
            option => format!(": choose another {option}"),
        };
        Failure::failed(format!(
            "cannot use the directory {}: {error}{advice}",
            path.display()
        ))
    };
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(failed)?;
    let absolute = path.canonicalize().map_err(failed)?;
    let metadata = fs::metadata(&absolute).map_err(failed)?;
    if metadata.uid() != user.uid {
        if let Some(strange) = strange_entry(&absolute).map_err(failed)? {
            return Err(failed(io::Error::other(format!(
                "it belongs to uid {} and holds {strange}, which is no profile",
                metadata.uid()
            ))));
        }
        // In this order: changing the mode of somebody else's directory takes another capability.
        fs::set_permissions(&absolute, Permissions::from_mode(0o755)).map_err(failed)?;
        chown(
            &absolute,
            Some(Uid::from_raw(user.uid)),
            Some(Gid::from_raw(user.gid)),
        )
        .map_err(|error| failed(error.into()))?;
    }
    Ok(absolute)
}

/// Makes a directory for a process's crash reports, or hands the one of an earlier uid over: all above it is root's. Where that
/// fails, the process says that it will leave none.
pub(crate) fn prepare_for_crashes(path: &Path, user: User) {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    if made.is_ok() && fs::metadata(path).is_ok_and(|found| found.uid() != user.uid) {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        let _said_by_the_process = chown(path, Some(uid), Some(gid));
    }
}

/// The first entry that Leadsman does not write.
fn strange_entry(path: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("leadsman-") && !name.starts_with(".leadsman-") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Makes the directory of the unwind tables. Another user's tables are removed: they are quickly built again.
///
/// # Errors
/// One line with the path.
pub(crate) fn prepare_cache(path: &Path, user: User) -> Result<PathBuf, Failure> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.uid() != user.uid) {
        clear(path).map_err(|error| {
            Failure::failed(format!("cannot clear {}: {error}", path.display()))
        })?;
    }
    prepare(path, user, "")
}

/// Removes what is in a directory; the directory itself may be a mount point.
fn clear(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody() -> User {
        User {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            lasting: true,
        }
    }

    #[test]
    fn a_directory_is_made_with_its_parents() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        assert!(prepare(&path, somebody(), "--x").unwrap().is_dir());
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        fs::write(&path, "").unwrap();
        let error = prepare(&path, somebody(), "--local-store-directory")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("file") && error.contains("--local-store-directory"),
            "{error}"
        );
    }

    #[test]
    fn somebody_elses_files_are_left_to_them() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("leadsman-1.pb.gz"), "").unwrap();
        assert_eq!(strange_entry(root.path()).unwrap(), None);
        fs::write(root.path().join("thesis.tex"), "").unwrap();
        assert_eq!(
            strange_entry(root.path()).unwrap().as_deref(),
            Some("thesis.tex")
        );
    }
}
