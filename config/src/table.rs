//! The one table of settings. Names and defaults of parca-agent's are its own, so that its arguments work unchanged.

mod inherited;
mod own;

use ipc_proto::hello::Role;

use crate::kind::Kind;

pub(crate) use inherited::{DEBUGINFO, METADATA, PROFILING, RUNTIME, STORE};
pub(crate) use own::GENERAL;

/// A heading in `--help` and the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Where things are, how much is said.
    General,
    /// What is sampled, how often.
    Profiling,
    /// What each profile is labelled with.
    Metadata,
    /// Profiles on this machine.
    LocalStore,
    /// Profiles elsewhere.
    RemoteStore,
    /// Debug information for the remote store.
    Debuginfo,
    /// What Leadsman says about itself.
    Telemetry,
    /// Settings of parca-agent that Leadsman has no use for.
    Accepted,
}

impl Group {
    /// All groups in their order.
    pub const ALL: [Self; 8] = [
        Self::General,
        Self::Profiling,
        Self::Metadata,
        Self::LocalStore,
        Self::RemoteStore,
        Self::Debuginfo,
        Self::Telemetry,
        Self::Accepted,
    ];

    /// Its heading.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Self::General => "General",
            Self::Profiling => "Profiling",
            Self::Metadata => "Labels",
            Self::LocalStore => "Local store",
            Self::RemoteStore => "Remote store",
            Self::Debuginfo => "Debug information",
            Self::Telemetry => "Telemetry",
            Self::Accepted => "Accepted from parca-agent without effect",
        }
    }
}

/// What becomes of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It works.
    Works,
    /// It is accepted and does nothing, for this reason.
    Nothing(&'static str),
    /// It is an old name of that one.
    Renamed(&'static str),
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name as flag and in the file.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its value when nobody sets it; empty: none.
    pub default: &'static str,
    /// One line on it.
    pub help: &'static str,
    /// Under which heading it stands.
    pub group: Group,
    /// What becomes of it.
    pub effect: Use,
    /// Which processes get it as an argument.
    pub roles: &'static [Role],
    /// Whether a change in the file takes effect at once.
    pub reloads: bool,
    /// Whether its value is never shown.
    pub secret: bool,
    /// Whether it stands in a file; one that says where the file is can't.
    pub in_file: bool,
}

impl Setting {
    const fn new(
        group: Group,
        name: &'static str,
        kind: Kind,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            default,
            help,
            group,
            effect: Use::Works,
            roles: &[],
            reloads: false,
            secret: false,
            in_file: true,
        }
    }

    const fn to(mut self, roles: &'static [Role]) -> Self {
        self.roles = roles;
        self
    }

    const fn reloads(mut self) -> Self {
        self.reloads = true;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn not_in_file(mut self) -> Self {
        self.in_file = false;
        self
    }

    /// A setting of parca-agent that does nothing here.
    const fn idle(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        why: &'static str,
    ) -> Self {
        let mut setting = Self::new(Group::Accepted, name, kind, default, why);
        setting.effect = Use::Nothing(why);
        setting
    }

    const fn renamed(name: &'static str, kind: Kind, to: &'static str) -> Self {
        let mut setting = Self::new(Group::Accepted, name, kind, "", "old name");
        setting.effect = Use::Renamed(to);
        setting
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!(
            "LEADSMAN_{}",
            self.name.to_ascii_uppercase().replace('-', "_")
        )
    }
}

const PARTS: [&[Setting]; 6] = [GENERAL, PROFILING, METADATA, STORE, DEBUGINFO, RUNTIME];
const COUNT: usize = {
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        count += PARTS[part].len();
        part += 1;
    }
    count
};

/// Every setting.
pub static SETTINGS: [Setting; COUNT] = {
    let mut all = [PARTS[0][0]; COUNT];
    let (mut at, mut part) = (0, 0);
    while part < PARTS.len() {
        let mut index = 0;
        while index < PARTS[part].len() {
            all[at] = PARTS[part][index];
            at += 1;
            index += 1;
        }
        part += 1;
    }
    all
};

/// The setting of that name. `_` is as good as `-`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    let same = |known: &str| {
        known.len() == name.len()
            && known
                .bytes()
                .zip(name.bytes())
                .all(|(known, given)| known == given || (known == b'-' && given == b'_'))
    };
    SETTINGS.iter().find(|setting| same(setting.name))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_defaults_sound() {
        let mut names = HashSet::new();
        for setting in &SETTINGS {
            let name = setting.name;
            assert!(names.insert(name), "{name} stands twice");
            if !setting.default.is_empty() {
                let canonical = setting.kind.canonical(setting.default);
                assert_eq!(canonical.as_deref(), Ok(setting.default), "{name}");
            }
            if let Use::Renamed(to) = setting.effect {
                assert_eq!(
                    find(to).map(|found| found.kind),
                    Some(setting.kind),
                    "{name}"
                );
            }
            if !matches!(setting.effect, Use::Works) {
                assert!(
                    setting.roles.is_empty(),
                    "{name} does nothing, so nobody is told"
                );
            }
            assert!(
                !setting.secret || setting.roles.is_empty(),
                "{name}: no secret as argument"
            );
            assert!(
                !setting.help.is_empty() && !setting.help.contains('\n'),
                "{name}"
            );
        }
        assert!(find("log_level").is_some() && find("log-levels").is_none());
    }

    #[test]
    fn whoever_reads_is_told_by_the_name() {
        let level = find("log-level").unwrap();
        assert_eq!(level.variable(), "LEADSMAN_LOG_LEVEL");
    }
}
