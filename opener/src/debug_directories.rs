//! Where separate debug files lie: their paths below a root. Looks at no file.

use std::str::FromStr;

use ipc_proto::opener::OpenDebugFile;

/// Directories at most.
const MAX_DIRECTORIES: usize = 16;

/// The directories, without the leading `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DebugDirectories(Vec<String>);

impl Default for DebugDirectories {
    fn default() -> Self {
        Self(vec!["usr/lib/debug".to_owned()])
    }
}

impl FromStr for DebugDirectories {
    type Err = String;

    /// `DIR,...`: absolute paths, as the profiled process sees them.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let directories = parts
            .map(|part| {
                let plain = part.split('/').all(|component| component != "..");
                match part.strip_prefix('/') {
                    Some(rest) if plain => Ok(rest.trim_matches('/').to_owned()),
                    _ => Err(format!("{part:?} is no absolute path without `..`")),
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        if directories.len() > MAX_DIRECTORIES {
            return Err(format!("more than {MAX_DIRECTORIES} directories"));
        }
        Ok(Self(directories))
    }
}

/// A place where a debug file may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its path.
    pub(crate) path: String,
    /// Whether a symbolic link there leads on: distributions link from build IDs to files by name, and only the
    /// directory's owner can make one. Beside an executable anybody may.
    pub(crate) may_be_link: bool,
}

impl DebugDirectories {
    /// Every place for a debug file, in the order in which they are tried: by build ID below the directories; or by debug
    /// link beside the executable, then below the directories (gdb's documented order).
    pub(crate) fn places(&self, wanted: &OpenDebugFile) -> Vec<Place> {
        if let Some((first, rest)) = wanted.build_id.0.split_first() {
            let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
            return self
                .0
                .iter()
                .flat_map(|directory| {
                    [
                        format!("{directory}/.build-id/{first:02x}/{rest}.debug"),
                        format!("{directory}/{first:02x}{rest}/debuginfo"),
                    ]
                })
                .map(|path| Place {
                    path,
                    may_be_link: true,
                })
                .collect();
        }
        let (Ok(name), Ok(path)) = (
            std::str::from_utf8(&wanted.name.0),
            std::str::from_utf8(&wanted.path.0),
        ) else {
            return Vec::new();
        };
        if name.is_empty() || name.contains('/') || name == ".." {
            return Vec::new();
        }
        let beside = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let mut paths = vec![
            format!("{beside}/{name}"),
            format!("{beside}/.debug/{name}"),
        ];
        let below = self.0.iter();
        paths.extend(below.map(|directory| format!("{directory}{beside}/{name}")));
        paths
            .into_iter()
            .map(|path| Place {
                path,
                may_be_link: false,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_proto::codec::Bytes;

    fn paths(directories: &str, wanted: &OpenDebugFile) -> Vec<String> {
        let directories: DebugDirectories = directories.parse().expect("valid");
        let places = directories.places(wanted).into_iter();
        places.map(|place| place.path).collect()
    }

    #[test]
    fn debug_links_stay_in_their_directories() {
        let wanted = |name: &[u8]| OpenDebugFile {
            path: Bytes(b"/usr/bin/x".to_vec()),
            name: Bytes(name.to_vec()),
            ..OpenDebugFile::default()
        };
        assert_eq!(
            paths("/usr/lib/debug,/opt/debug/", &wanted(b"x.debug")),
            [
                "/usr/bin/x.debug",
                "/usr/bin/.debug/x.debug",
                "usr/lib/debug/usr/bin/x.debug",
                "opt/debug/usr/bin/x.debug"
            ]
        );
        assert!(paths("/usr/lib/debug", &wanted(b"../../etc/shadow")).is_empty());
    }

    #[test]
    fn build_ids_are_looked_for_in_each_directory() {
        let by_id = OpenDebugFile {
            build_id: Bytes(vec![0xab, 0xcd]),
            ..OpenDebugFile::default()
        };
        assert_eq!(
            DebugDirectories::default().places(&by_id).first(),
            Some(&Place {
                path: "usr/lib/debug/.build-id/ab/cd.debug".to_owned(),
                may_be_link: true
            })
        );
        assert_eq!(
            paths("/a,/b", &by_id),
            [
                "a/.build-id/ab/cd.debug",
                "a/abcd/debuginfo",
                "b/.build-id/ab/cd.debug",
                "b/abcd/debuginfo"
            ]
        );
    }

    #[test]
    fn directories_are_absolute() {
        for wrong in ["usr/lib/debug", "/usr/../etc", "/a,b"] {
            assert!(wrong.parse::<DebugDirectories>().is_err(), "{wrong}");
        }
        assert_eq!("".parse(), Ok(DebugDirectories(Vec::new())));
    }
}
