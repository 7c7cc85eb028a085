//! General settings, and those that parca-agent does not have.

use ipc_proto::hello::Role;

use super::{Group, Setting};
use crate::kind::Kind;

/// All processes.
pub(super) const ALL: &[Role] = &[
    Role::Sampler,
    Role::Opener,
    Role::Symbolizer,
    Role::DebuginfoUploader,
    Role::Shipper,
    Role::Viewer,
];

const fn general(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting::new(Group::General, name, kind, default, help)
}

pub(crate) const GENERAL: &[Setting] = &[
    general(
        "config-path",
        Kind::Path,
        "",
        "read settings and relabel_configs from this YAML file, again whenever it changes",
    )
    .not_in_file(),
    general(
        "log-level",
        Kind::Choice(&["error", "warn", "info", "debug"]),
        "info",
        "how much the processes say on standard error",
    )
    .to(ALL)
    .reloads(),
    general(
        "log-format",
        Kind::Choice(&["logfmt", "json"]),
        "logfmt",
        "how they say it",
    )
    .to(ALL),
    general(
        "http-address",
        Kind::Listen,
        "127.0.0.1:7071",
        "where the page and /metrics are",
    )
    .to(&[Role::Viewer]),
    general(
        "node",
        Kind::Text,
        "",
        "value of the label node; the host's name when absent (on Kubernetes: the node's name)",
    )
    .to(&[Role::Shipper])
    .reloads(),
    general(
        "runtime-directory",
        Kind::Path,
        "/run/leadsman",
        "where the processes' sockets are",
    )
    .to(ALL),
    general(
        "cache-directory",
        Kind::Path,
        "/var/cache/leadsman",
        "where unwind tables are kept from run to run",
    )
    .to(&[Role::Symbolizer]),
];
