//! The opener's decisions: which request of whom is served, and in which order the ways to a file are tried.

use std::collections::BTreeMap;

use ipc_proto::hello::Role;
use ipc_proto::opener::{OpenStatus, OpenerRequest};

use crate::permits::Permits;

/// What to do about a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing, not even an answer.
    Noted,
    /// Try to open it; `by_path`: also by its path, should the process be gone.
    Open { by_path: bool },
    /// Answer with that status.
    Answer(OpenStatus),
    /// This role may not ask that: the link is to be closed.
    Forbidden,
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    permits: Permits,
    /// Answers by status.
    pub(crate) answers: BTreeMap<&'static str, u64>,
}

impl Engine {
    /// Nobody was named yet.
    pub(crate) fn new() -> Self {
        Self {
            permits: Permits::new(),
            answers: BTreeMap::new(),
        }
    }

    /// `role` asks at `now` (nanoseconds).
    pub(crate) fn on_request(&mut self, role: Role, request: &OpenerRequest, now: u64) -> Decision {
        match (role, request) {
            (Role::Sampler, OpenerRequest::Sampled(sampled)) => {
                self.permits.permit(sampled.pid.0, &sampled.path.0);
                Decision::Noted
            }
            (Role::Sampler, OpenerRequest::OpenMaps(wanted)) => {
                self.permits.permit(wanted.pid.0, &[]);
                self.admit(now, false)
            }
            (Role::Symbolizer, OpenerRequest::OpenExecutable(wanted)) => {
                let by_path = self.permits.is_path_named(&wanted.path.0);
                self.judge(wanted.pid.0, by_path, now)
            }
            (Role::Symbolizer, OpenerRequest::OpenPerfMap(wanted)) => {
                self.judge(wanted.pid.0, false, now)
            }
            (Role::Symbolizer, OpenerRequest::OpenDebugFile(wanted)) => {
                self.judge(wanted.pid.0, true, now)
            }
            _ => Decision::Forbidden,
        }
    }

    fn judge(&mut self, pid: u32, by_path: bool, now: u64) -> Decision {
        if self.permits.is_sampled(pid) {
            self.admit(now, by_path)
        } else {
            Decision::Answer(OpenStatus::NotSampled)
        }
    }

    fn admit(&mut self, now: u64, by_path: bool) -> Decision {
        if self.permits.admit(now) {
            Decision::Open { by_path }
        } else {
            Decision::Answer(OpenStatus::RateLimited)
        }
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
    use ipc_proto::opener::{OpenExecutable, OpenMaps, Sampled};

    fn executable(pid: u32, path: &[u8]) -> OpenerRequest {
        let path = Bytes(path.to_vec());
        OpenerRequest::OpenExecutable(OpenExecutable {
            pid: Pid(pid),
            path,
            ..OpenExecutable::default()
        })
    }

    #[test]
    fn only_what_the_sampler_named_is_opened() {
        let mut engine = Engine::new();
        let refused = Decision::Answer(OpenStatus::NotSampled);
        assert_eq!(
            engine.on_request(Role::Symbolizer, &executable(7, b"/bin/x"), 0),
            refused
        );
        let path = Bytes(b"/bin/x".to_vec());
        let sampled = OpenerRequest::Sampled(Sampled {
            pid: Pid(7),
            path,
            ..Sampled::default()
        });
        assert_eq!(
            engine.on_request(Role::Sampler, &sampled, 0),
            Decision::Noted
        );
        let open = |by_path| Decision::Open { by_path };
        assert_eq!(
            engine.on_request(Role::Symbolizer, &executable(7, b"/bin/x"), 0),
            open(true)
        );
        assert_eq!(
            engine.on_request(Role::Symbolizer, &executable(7, b"/bin/y"), 0),
            open(false)
        );
    }

    #[test]
    fn each_role_asks_its_own() {
        let mut engine = Engine::new();
        let maps = OpenerRequest::OpenMaps(OpenMaps::default());
        let sampled = OpenerRequest::Sampled(Sampled::default());
        assert_eq!(
            engine.on_request(Role::Symbolizer, &maps, 0),
            Decision::Forbidden
        );
        assert_eq!(
            engine.on_request(Role::Symbolizer, &sampled, 0),
            Decision::Forbidden
        );
        assert_eq!(
            engine.on_request(Role::Sampler, &executable(1, b""), 0),
            Decision::Forbidden
        );
    }
}
