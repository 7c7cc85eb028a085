//! Who asked: under sudo the user behind it, who gets the output file and runs the recorded command.

use rustix::process::{Gid, Uid, getegid, geteuid};

/// A user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invoker {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
}

impl Invoker {
    /// From `SUDO_UID` and `SUDO_GID` when root runs us; else ourselves.
    pub(crate) fn read() -> Self {
        let number = |name| std::env::var(name).ok()?.parse().ok();
        Self::decide(
            geteuid().as_raw(),
            getegid().as_raw(),
            number("SUDO_UID"),
            number("SUDO_GID"),
        )
    }

    fn decide(uid: u32, gid: u32, sudo_uid: Option<u32>, sudo_gid: Option<u32>) -> Self {
        match (sudo_uid, sudo_gid) {
            (Some(uid_behind), Some(gid_behind)) if uid == 0 => Self {
                uid: uid_behind,
                gid: gid_behind,
            },
            _ => Self { uid, gid },
        }
    }

    /// The ids, typed.
    pub(crate) fn ids(self) -> (Uid, Gid) {
        (Uid::from_raw(self.uid), Gid::from_raw(self.gid))
    }

    /// The groups that `/etc/group` lists the user in, for initgroups(3) without a C library's lookup.
    pub(crate) fn groups(self) -> Vec<Gid> {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let group = std::fs::read_to_string("/etc/group").unwrap_or_default();
        groups_of(self, &passwd, &group)
            .into_iter()
            .map(Gid::from_raw)
            .collect()
    }
}

fn groups_of(invoker: Invoker, passwd: &str, group: &str) -> Vec<u32> {
    let uid = invoker.uid.to_string();
    let name = passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some(&uid))
        .and_then(|line| line.split(':').next());
    let mut gids = vec![invoker.gid];
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [_, _, gid, members] = fields.as_slice()
            && name.is_some_and(|name| members.split(',').any(|member| member == name))
            && let Ok(gid) = gid.parse()
            && !gids.contains(&gid)
        {
            gids.push(gid);
        }
    }
    gids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_names_the_user_only_to_root() {
        let behind = Invoker {
            uid: 1000,
            gid: 1001,
        };
        assert_eq!(Invoker::decide(0, 0, Some(1000), Some(1001)), behind);
        assert_eq!(
            Invoker::decide(5, 6, Some(1000), Some(1001)),
            Invoker { uid: 5, gid: 6 }
        );
        assert_eq!(
            Invoker::decide(0, 0, None, None),
            Invoker { uid: 0, gid: 0 }
        );
    }

    #[test]
    fn groups_are_the_own_one_and_those_that_list_the_user() {
        let passwd = "root:x:0:0::/:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        let group = "sudo:x:27:bob,ann\nadm:x:4:annabel\nann:x:1000:\n";
        let ann = Invoker {
            uid: 1000,
            gid: 1000,
        };
        assert_eq!(groups_of(ann, passwd, group), [1000, 27]);
        let unknown = Invoker { uid: 77, gid: 78 };
        assert_eq!(groups_of(unknown, passwd, group), [78]);
    }
}
