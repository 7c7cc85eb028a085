//! The opener's decisions: which request of whom is served, and by which ways to the file.

use std::collections::BTreeMap;

use ipc_proto::hello::Role;
use ipc_proto::opener::{OpenStatus, OpenerRequest};

use crate::permits::{Bucket, Permits};

/// What to do about a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing, not even an answer.
    Noted,
    /// Try to open it.
    Open(Ways),
    /// Answer with that status.
    Answer(OpenStatus),
    /// This role may not ask that: the link is to be closed.
    Forbidden,
}

/// How the file may be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ways {
    /// The process of that number that started then (CLOCK_BOOTTIME nanoseconds), or any if 0.
    pub(crate) start_time: u64,
    /// Also by the path that the sampler named, should the mapping be gone.
    pub(crate) by_path: bool,
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    permits: Permits,
    /// One for each peer: neither can use up the other's.
    buckets: BTreeMap<Role, Bucket>,
    /// Answers by status.
    pub(crate) answers: BTreeMap<&'static str, u64>,
}

impl Engine {
    /// Nobody was named yet.
    pub(crate) fn new() -> Self {
        Self {
            permits: Permits::new(),
            buckets: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }

    /// `role` asks at `now` (nanoseconds).
    pub(crate) fn on_request(&mut self, role: Role, request: &OpenerRequest, now: u64) -> Decision {
        match (role, request) {
            (Role::Sampler, OpenerRequest::Sampled(named)) => {
                self.permits
                    .permit(named.pid.0, named.start_time, &named.path.0);
                Decision::Noted
            }
            (Role::Sampler, OpenerRequest::OpenMaps(wanted)) => {
                self.permits.permit(wanted.pid.0, wanted.start_time, &[]);
                self.judge(role, wanted.pid.0, wanted.start_time, false, now)
            }
            (Role::Symbolizer, OpenerRequest::OpenExecutable(wanted)) => {
                let by_path = self.permits.is_path_named(&wanted.path.0);
                self.judge(role, wanted.pid.0, wanted.start_time, by_path, now)
            }
            (Role::Symbolizer, OpenerRequest::OpenPerfMap(wanted)) => {
                self.judge(role, wanted.pid.0, wanted.start_time, false, now)
            }
            (Role::Symbolizer, OpenerRequest::OpenDebugFile(wanted)) => {
                // A debug link is looked for beside its executable: not beside any file of the symbolizer's choice.
                if wanted.build_id.0.is_empty() && !self.permits.is_path_named(&wanted.path.0) {
                    return Decision::Answer(OpenStatus::NotSampled);
                }
                self.judge(role, wanted.pid.0, wanted.start_time, true, now)
            }
            _ => Decision::Forbidden,
        }
    }

    fn judge(&mut self, role: Role, pid: u32, asked: u64, by_path: bool, now: u64) -> Decision {
        let Some(named) = self.permits.sampled(pid) else {
            return Decision::Answer(OpenStatus::NotSampled);
        };
        if self.permits.is_banned(pid, now) {
            return Decision::Answer(OpenStatus::TimedOut);
        }
        let bucket = self.buckets.entry(role).or_insert_with(Bucket::full);
        if !bucket.admit(now) {
            return Decision::Answer(OpenStatus::RateLimited);
        }
        // The sampler's word on which process is meant counts for more than the asker's.
        let start_time = if named == 0 { asked } else { named };
        Decision::Open(Ways {
            start_time,
            by_path,
        })
    }

    /// A file of that process did not answer in time.
    pub(crate) fn on_timeout(&mut self, pid: u32, now: u64) {
        log::warn!("files of process {pid} do not answer: it is left alone for ten minutes");
        self.permits.ban(pid, now);
    }

    /// Counts an answer.
    pub(crate) fn answered(&mut self, status: OpenStatus) {
        *self.answers.entry(status.name()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_proto::codec::Bytes;
    use ipc_proto::ids::Pid;
    use ipc_proto::opener::{OpenDebugFile, OpenExecutable, OpenMaps, Sampled};

    fn executable(pid: u32, path: &[u8]) -> OpenerRequest {
        OpenerRequest::OpenExecutable(OpenExecutable {
            pid: Pid(pid),
            path: Bytes(path.to_vec()),
            ..OpenExecutable::default()
        })
    }

    fn sampled(pid: u32, start_time: u64, path: &[u8]) -> OpenerRequest {
        OpenerRequest::Sampled(Sampled {
            pid: Pid(pid),
            start_time,
            path: Bytes(path.to_vec()),
        })
    }

    fn open(start_time: u64, by_path: bool) -> Decision {
        Decision::Open(Ways {
            start_time,
            by_path,
        })
    }

    #[test]
    fn only_what_the_sampler_named_is_opened() {
        let mut engine = Engine::new();
        let refused = Decision::Answer(OpenStatus::NotSampled);
        let symbolizer = Role::Symbolizer;
        let wanted = executable(7, b"/bin/x");
        assert_eq!(engine.on_request(symbolizer, &wanted, 0), refused);
        let named = sampled(7, 0, b"/bin/x");
        assert_eq!(engine.on_request(Role::Sampler, &named, 0), Decision::Noted);
        assert_eq!(engine.on_request(symbolizer, &wanted, 0), open(0, true));
        let other = executable(7, b"/bin/y");
        assert_eq!(engine.on_request(symbolizer, &other, 0), open(0, false));
    }

    #[test]
    fn the_sampled_process_is_opened_not_its_successor() {
        let mut engine = Engine::new();
        engine.on_request(Role::Sampler, &sampled(7, 5_000, b""), 0);
        let decision = engine.on_request(Role::Symbolizer, &executable(7, b""), 0);
        assert_eq!(decision, open(5_000, false));
    }

    #[test]
    fn debug_links_are_looked_for_beside_named_executables_only() {
        let mut engine = Engine::new();
        engine.on_request(Role::Sampler, &sampled(7, 0, b"/bin/x"), 0);
        let mut ask = |path: &[u8], build_id: &[u8]| {
            let wanted = OpenDebugFile {
                pid: Pid(7),
                path: Bytes(path.to_vec()),
                build_id: Bytes(build_id.to_vec()),
                ..OpenDebugFile::default()
            };
            let request = OpenerRequest::OpenDebugFile(wanted);
            engine.on_request(Role::Symbolizer, &request, 0)
        };
        assert_eq!(ask(b"/bin/x", b""), open(0, true));
        let refused = Decision::Answer(OpenStatus::NotSampled);
        assert_eq!(ask(b"/root/x", b""), refused);
        assert_eq!(ask(b"/root/x", b"\x01\x02"), open(0, true));
    }

    #[test]
    fn a_process_that_hangs_is_left_alone() {
        let mut engine = Engine::new();
        engine.on_request(Role::Sampler, &sampled(7, 0, b""), 0);
        engine.on_timeout(7, 0);
        let decision = engine.on_request(Role::Symbolizer, &executable(7, b""), 1);
        assert_eq!(decision, Decision::Answer(OpenStatus::TimedOut));
    }

    #[test]
    fn one_peer_does_not_use_up_the_others_rate() {
        let mut engine = Engine::new();
        engine.on_request(Role::Sampler, &sampled(7, 0, b""), 0);
        let wanted = executable(7, b"");
        let limited = Decision::Answer(OpenStatus::RateLimited);
        while engine.on_request(Role::Symbolizer, &wanted, 0) != limited {}
        let maps = OpenerRequest::OpenMaps(OpenMaps {
            pid: Pid(7),
            ..OpenMaps::default()
        });
        assert_eq!(engine.on_request(Role::Sampler, &maps, 0), open(0, false));
    }

    #[test]
    fn each_role_asks_its_own() {
        let mut engine = Engine::new();
        let maps = OpenerRequest::OpenMaps(OpenMaps::default());
        let named = sampled(1, 0, b"");
        let wanted = executable(1, b"");
        for (role, request) in [
            (Role::Symbolizer, &maps),
            (Role::Symbolizer, &named),
            (Role::Sampler, &wanted),
            (Role::Viewer, &wanted),
        ] {
            let decision = engine.on_request(role, request, 0);
            assert_eq!(decision, Decision::Forbidden, "{role:?}");
        }
    }
}
