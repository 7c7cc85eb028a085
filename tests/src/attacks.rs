//! The ways in which bin/hostile-peer breaks the protocol.

/// What `hostile-peer SOCKET ROLE ATTACK` understands as ATTACK.
pub const ATTACKS: [&str; 16] = [
    "garbage",
    "short-header",
    "oversized",
    "zero-bytes",
    "wrong-version",
    "wrong-role",
    "no-hello",
    "many-fds",
    "unknown-message",
    "truncated-body",
    "malformed-body",
    "body-without-memfd",
    "unsealed-memfd",
    "huge-memfd",
    "wrong-sequence",
    "second-hello",
];
