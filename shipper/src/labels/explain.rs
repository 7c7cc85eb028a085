//! Says at log level `debug`, once for each process, why it has no labels from a provider.

use std::collections::HashSet;

use super::Sources;
use super::meta::{About, Found};
use super::processes::Identity;

/// Processes that are remembered as explained.
const MAX_EXPLAINED: usize = 16 * 1024;

/// Who was explained already.
#[derive(Debug, Default)]
pub(super) struct Explainer {
    explained: HashSet<Identity>,
}

impl Explainer {
    /// Logs what a process lacks.
    pub(super) fn explain(
        &mut self,
        identity: &Identity,
        about: &About,
        is_read: bool,
        found: &Found,
        sources: &Sources,
    ) {
        if !log::log_enabled!(log::Level::Debug) || self.explained.contains(identity) {
            return;
        }
        if self.explained.len() >= MAX_EXPLAINED {
            self.explained.clear();
        }
        self.explained.insert(identity.clone());
        let missing = reasons(identity, about, is_read, found, sources);
        if !missing.is_empty() {
            log::debug!(
                "labels that process {} ({}) lacks: {}",
                identity.pid,
                identity.comm,
                missing.join("; ")
            );
        }
    }
}

fn reasons(
    identity: &Identity,
    about: &About,
    is_read: bool,
    found: &Found,
    sources: &Sources,
) -> Vec<String> {
    let mut missing = Vec::new();
    if !is_read {
        missing.push(match identity.start_time {
            0 => "user and cgroup1 paths: its samples carry no start time, so /proc/PID may be another process's".to_owned(),
            _ => "user and cgroup1 paths: it ended, or /proc hides it, before /proc/PID was read".to_owned(),
        });
    }
    if about.executable.file_id.is_empty() {
        missing.push(
            "what its executable says of itself: the file was not opened (yet), or is no ELF file"
                .to_owned(),
        );
    }
    match about.cgroups.first() {
        None => missing.push(
            "unit, container and pod: it is in the root cgroup, or its cgroup is unknown"
                .to_owned(),
        ),
        Some(cgroup) => {
            let (uid, container) = about.pod();
            if about.container().is_none() {
                missing.push(format!(
                    "container: cgroup {} is that of no container engine known",
                    cgroup.path
                ));
            }
            match (&sources.pods, uid) {
                (None, Some(uid)) => missing.push(format!(
                    "pod {uid}'s name: the Kubernetes API is not configured"
                )),
                (Some(pods), Some(uid)) if found.pod.is_none() => missing.push(format!(
                    "pod {uid}'s name: it is not among the {} pods that the Kubernetes API named",
                    pods.len()
                )),
                (Some(_), Some(uid))
                    if found
                        .pod
                        .as_ref()
                        .is_some_and(|pod| pod.container.is_none()) =>
                {
                    missing.push(format!(
                        "container name: pod {uid} has no container {}",
                        container.unwrap_or_default()
                    ));
                }
                _ => {}
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::cgroups::Cgroup;

    #[test]
    fn each_lack_has_its_reason() {
        let identity = |start_time| Identity {
            pid: 7,
            start_time,
            comm: "x".to_owned(),
        };
        let mut about = About::default();
        let say = |about: &About, start_time, is_read| {
            reasons(
                &identity(start_time),
                about,
                is_read,
                &Found::default(),
                &Sources::default(),
            )
            .join("; ")
        };
        assert!(say(&about, 0, false).contains("no start time"));
        assert!(say(&about, 5, false).contains("it ended"));
        assert!(say(&about, 5, true).contains("root cgroup"));
        about.cgroups = vec![Cgroup::new("/system.slice/a.service".to_owned())];
        assert!(say(&about, 5, true).contains("/system.slice/a.service"));
        let uid = "6b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";
        about.cgroups = vec![Cgroup::new(format!("/kubepods/burstable/pod{uid}/x"))];
        assert!(say(&about, 5, true).contains("not configured"));
    }
}
