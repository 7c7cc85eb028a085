//! A uid for each process: the user that its rights name where it was created, else an unused one of the range that systemd
//! takes for DynamicUser, always the same one for the same role as long as nobody else has it.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;

use ipc_endpoint::rights;
use ipc_proto::hello::Role;

use crate::error::Failure;

/// The range of systemd's dynamic users (systemd UIDS-GIDS.md).
const DYNAMIC: std::ops::RangeInclusive<u32> = 61_184..=65_519;

/// Who a process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Whether it is the role's first choice: one that keeps its files from run to run.
    pub(crate) lasting: bool,
}

/// What of the machine decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    /// Lines of `/etc/passwd`.
    passwd: String,
    /// Uids that processes run as.
    running: HashSet<u32>,
}

impl Taken {
    /// This machine, now.
    ///
    /// # Errors
    /// `/proc` can't be listed.
    pub(crate) fn read() -> Result<Self, Failure> {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let processes = std::fs::read_dir("/proc")
            .map_err(|error| Failure::failed(format!("cannot list /proc: {error}")))?;
        let running = processes
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .map(|metadata| metadata.uid())
            .collect();
        Ok(Self { passwd, running })
    }

    fn named(&self, name: &str) -> Option<User> {
        let line = self
            .passwd
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2);
        Some(User {
            uid: numbers.next()?.parse().ok()?,
            gid: numbers.next()?.parse().ok()?,
            lasting: true,
        })
    }

    fn is_taken(&self, uid: u32) -> bool {
        let known = |line: &str| line.split(':').nth(2).and_then(|text| text.parse().ok());
        self.running.contains(&uid) || self.passwd.lines().any(|line| known(line) == Some(uid))
    }
}

/// Chooses a user for each of `roles`, no two alike.
///
/// # Errors
/// The range is used up.
pub(crate) fn choose(roles: &[Role], taken: &Taken) -> Result<Vec<(Role, User)>, Failure> {
    let mut chosen: Vec<(Role, User)> = Vec::new();
    for role in roles {
        let name = rights::of(*role).map_or("leadsman", |rights| rights.user);
        let user = taken.named(name).filter(|user| user.uid != 0);
        let user = match user {
            Some(user) => user,
            None => {
                let given: HashSet<u32> = chosen.iter().map(|(_, user)| user.uid).collect();
                free(name, |uid| taken.is_taken(uid) || given.contains(&uid))?
            }
        };
        chosen.push((*role, user));
    }
    Ok(chosen)
}

fn free(name: &str, is_taken: impl Fn(u32) -> bool) -> Result<User, Failure> {
    let size = DYNAMIC.end() - DYNAMIC.start() + 1;
    let first = hash(name) % size;
    (0..size)
        .map(|step| (step, DYNAMIC.start() + (first + step) % size))
        .find(|(_, uid)| !is_taken(*uid))
        .map(|(step, uid)| User {
            uid,
            gid: uid,
            lasting: step == 0,
        })
        .ok_or_else(|| {
            Failure::failed(format!(
                "no unused uid between {} and {}: create a user {name}",
                DYNAMIC.start(),
                DYNAMIC.end()
            ))
        })
}

/// FNV-1a: the same on every machine and in every version.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::ALL;

    #[test]
    fn every_role_has_its_own_uid_in_the_range() {
        let users = choose(&ALL, &Taken::default()).expect("free");
        let uids: HashSet<u32> = users.iter().map(|(_, user)| user.uid).collect();
        assert_eq!(uids.len(), ALL.len());
        assert!(uids.iter().all(|uid| DYNAMIC.contains(uid)));
        assert!(users.iter().all(|(_, user)| user.lasting), "{users:?}");
    }

    #[test]
    fn a_uid_in_use_is_passed_over_and_a_created_user_taken() {
        let usual = choose(&[Role::Sampler], &Taken::default()).expect("free")[0]
            .1
            .uid;
        let taken = Taken {
            passwd: "leadsman-opener:x:321:322::/:/bin/false\nroot:x:0:0::/:/bin/sh\n".to_owned(),
            running: HashSet::from([usual]),
        };
        let users = choose(&[Role::Sampler, Role::Opener], &taken).expect("free");
        assert_ne!(users[0].1.uid, usual);
        assert!(!users[0].1.lasting);
        let opener = User {
            uid: 321,
            gid: 322,
            lasting: true,
        };
        assert_eq!(users[1].1, opener);
    }
}
