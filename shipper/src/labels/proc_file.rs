//! What the world-readable files of `/proc/PID` say. Parses text; opens nothing.

/// From `stat`: behind the last parenthesis, for the name before it may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The process's name.
    pub(crate) comm: String,
    /// Its parent.
    pub(crate) parent: u32,
    /// When it started, in ticks of 10 ms since the machine did.
    pub(crate) start_ticks: u64,
}

impl Stat {
    /// Parses `stat`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let comm = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        // Field 22; the parent is field 4.
        let start_ticks = fields.nth(17)?.parse().ok()?;
        Some(Self {
            comm,
            parent,
            start_ticks,
        })
    }
}

/// The real user ID from `status`.
pub(crate) fn user_id(status: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(status);
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Lines of `cgroup`: controllers and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cgroups {
    /// The path in the cgroup2 tree.
    pub(crate) unified: Option<String>,
    /// Controllers, or `name=...`, and paths in cgroup1 trees.
    pub(crate) legacy: Vec<(String, String)>,
}

/// cgroup1 trees by who knows best which unit and container a process is in.
const PREFERRED: [&str; 6] = [
    "name=systemd",
    "cpu",
    "cpuacct",
    "memory",
    "pids",
    "freezer",
];

impl Cgroups {
    /// Parses `cgroup`: `number:controllers:path`.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let mut found = Self::default();
        for line in String::from_utf8_lossy(text).lines().take(64) {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            // A removed cgroup that still has a process, a zombie for instance.
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            if controllers.is_empty() {
                found.unified = Some(path.to_owned());
            } else {
                found.legacy.push((controllers.to_owned(), path.to_owned()));
            }
        }
        found
    }

    /// The paths, most telling first: cgroup2's, then cgroup1's by preference, roots left out.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let by_controller = |wanted: &&str| {
            self.legacy.iter().find_map(|(controllers, path)| {
                let is_it = controllers
                    .split(',')
                    .any(|controller| controller == *wanted);
                is_it.then_some(path.as_str())
            })
        };
        self.unified
            .as_deref()
            .into_iter()
            .chain(
                PREFERRED
                    .iter()
                    .filter_map(by_controller)
                    .collect::<Vec<_>>(),
            )
            .chain(self.legacy.iter().map(|(_, path)| path.as_str()))
            .filter(|path| *path != "/")
    }
}

/// `cmdline` as one line: arguments joined by spaces, as `ps` shows them; cut at a character.
pub(crate) fn command_line(text: &[u8], max: usize) -> Option<String> {
    let arguments: Vec<_> = text
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    let mut line = arguments.join(" ").trim_end().to_owned();
    line.truncate(line.floor_char_boundary(max));
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_any_name() {
        let mut text = b"42 (a) S 1 (b)) S 7 42 42 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 ".to_vec();
        text.extend_from_slice(b"123456 1000 2\n");
        let stat = Stat::parse(&text).unwrap();
        assert_eq!(
            (stat.comm.as_str(), stat.parent, stat.start_ticks),
            ("a) S 1 (b)", 7, 123_456)
        );
        for bad in [&b""[..], b"42 (x", b"42 x) S", b"42 (x) S 7", b")("] {
            assert_eq!(Stat::parse(bad), None, "{bad:?}");
        }
        let own = std::fs::read("/proc/self/stat").unwrap();
        assert_eq!(
            Stat::parse(&own).unwrap().parent,
            std::os::unix::process::parent_id()
        );
    }

    #[test]
    fn the_user_is_the_real_one() {
        assert_eq!(user_id(b"Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(1000));
        assert_eq!(user_id(b"Name:\tUid: 7\n"), None);
        assert_eq!(user_id(b""), None);
    }

    #[test]
    fn the_most_telling_path_comes_first() {
        let first = |text: &str| {
            Cgroups::parse(text.as_bytes())
                .paths()
                .next()
                .map(str::to_owned)
        };
        assert_eq!(
            first("0::/system.slice/a.service\n").as_deref(),
            Some("/system.slice/a.service")
        );
        let hybrid =
            "9:name=systemd:/system.slice/a.service\n4:memory:/m\n2:cpu,cpuacct:/c\n0::/\n";
        assert_eq!(first(hybrid).as_deref(), Some("/system.slice/a.service"));
        assert_eq!(
            first("9:name=systemd:/\n4:memory:/m\n2:cpu,cpuacct:/c\n").as_deref(),
            Some("/c")
        );
        assert_eq!(first("7:devices:/d (deleted)\n").as_deref(), Some("/d"));
        assert_eq!(first("0::/\n"), None);
        assert_eq!(first("nonsense\n"), None);
        let colon = "0::/x.slice:cri-containerd:abc\n";
        assert_eq!(first(colon).as_deref(), Some("/x.slice:cri-containerd:abc"));
    }

    #[test]
    fn a_command_line_is_one_line_and_bounded() {
        assert_eq!(
            command_line(b"sleep\x0010\0", 100).as_deref(),
            Some("sleep 10")
        );
        assert_eq!(command_line(b"\0\0", 100), None);
        assert_eq!(
            command_line("\u{e9}\u{e9}".as_bytes(), 3).as_deref(),
            Some("\u{e9}")
        );
    }
}
