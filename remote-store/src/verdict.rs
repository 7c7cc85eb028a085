//! What a gRPC status means for what was sent: try again, keep it for later, or give it up.

use tonic::{Code, Status};

/// What to do after a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The store is away or busy: the same call may succeed soon.
    Retry,
    /// The store is there but turns this client away (token, rights, wrong address): no matter what is sent, it fails until
    /// somebody changes something.
    Later,
    /// The store could not take a message that large: less at once may pass.
    TooLarge,
    /// What was sent is wrong: it will never be taken.
    Final,
}

impl Verdict {
    /// The meaning of `status`.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        // gRPC for Go says ResourceExhausted, tonic OutOfRange, when a message is over the receiver's bound; the first also
        // stands for a quota, which is a matter of time.
        let text = status.message();
        let too_large = text.contains("larger than max") || text.contains("length too large");
        match status.code() {
            Code::ResourceExhausted | Code::OutOfRange if too_large => Self::TooLarge,
            Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Cancelled
            // A proxy's or a crashed handler's answer, a broken stream: nobody knows.
            | Code::Unknown
            | Code::Internal
            | Code::Ok => Self::Retry,
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::NotFound => Self::Later,
            Code::InvalidArgument
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::DataLoss => Self::Final,
        }
    }
}

/// A code's name as in metrics and logs, `snake_case`.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_told_from_a_quota() {
        let status = |text: &str| Status::resource_exhausted(text.to_owned());
        let bound = status("grpc: received message larger than max (5 vs. 4)");
        assert_eq!(Verdict::of(&bound), Verdict::TooLarge);
        assert_eq!(Verdict::of(&status("quota")), Verdict::Retry);
        let tonic = Status::out_of_range("Error, decoded message length too large: found 5 bytes");
        assert_eq!(Verdict::of(&tonic), Verdict::TooLarge);
        assert_eq!(Verdict::of(&Status::out_of_range("x")), Verdict::Final);
    }

    #[test]
    fn every_code_has_a_verdict_and_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = (0..17)
            .map(|number| code_name(Code::from(number)))
            .collect();
        assert_eq!(names.len(), 17);
        for (code, verdict) in [
            (Code::Unavailable, Verdict::Retry),
            (Code::Unauthenticated, Verdict::Later),
            (Code::InvalidArgument, Verdict::Final),
        ] {
            assert_eq!(Verdict::of(&Status::new(code, "")), verdict);
        }
    }
}
