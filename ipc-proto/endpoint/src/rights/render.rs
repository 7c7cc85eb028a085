//! The rights as text: a line for the terminal, a table for docs/THREAT-MODEL.md.

use std::fmt::Write as _;

use rustix::thread::CapabilitySet;

use super::{ALL, Capability, Files, Machine, Network, Rights, When};

/// Names as in capabilities(7), joined by spaces; `none` when empty.
#[must_use]
pub fn capability_names(set: CapabilitySet) -> String {
    let names: Vec<String> = set
        .iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
}

/// One line on a process's rights on that machine.
#[must_use]
pub fn line(rights: &Rights, machine: &Machine) -> String {
    let start = rights.at_start(machine);
    let after = rights.after_lockdown(machine);
    let mut capabilities = format!("capabilities: {}", capability_names(start));
    if start != after {
        let _infallible = write!(capabilities, ", then {}", capability_names(after));
    }
    format!(
        "{:<19} {capabilities}; network: {}; files: {}; {} system calls",
        rights.role.name(),
        network(rights.network),
        files(rights.files),
        system_calls(rights),
    )
}

/// All rights as Markdown tables: the processes, their capabilities, their system calls.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "| process | user | network | files | descriptors | system calls |\n|---|---|---|---|---|---|\n",
    );
    for rights in &ALL {
        let descriptors = rights
            .limits
            .iter()
            .find_map(|(resource, limit)| match resource {
                rustix::process::Resource::Nofile => *limit,
                _ => None,
            });
        let _infallible = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            rights.role.name(),
            rights.user,
            network(rights.network),
            files(rights.files),
            descriptors.unwrap_or_default(),
            rights
                .groups
                .iter()
                .map(|group| group.name)
                .collect::<Vec<_>>()
                .join(", "),
        );
    }
    text += "\n| process | capability | at start | after lockdown | what for |\n|---|---|---|---|---|\n";
    for rights in &ALL {
        for capability in rights.capabilities {
            let Capability {
                set,
                at_start,
                kept,
                why,
            } = capability;
            let at_start: Vec<String> = at_start.iter().map(|when| condition(*when)).collect();
            let _infallible = writeln!(
                text,
                "| {} | {} | {} | {} | {why} |",
                rights.role.name(),
                capability_names(*set),
                at_start.join(", "),
                condition(*kept),
            );
        }
    }
    text += "\n| system calls | members | what for |\n|---|---|---|\n";
    for group in super::syscalls::GROUPS {
        let calls: Vec<String> = group.calls.iter().map(ToString::to_string).collect();
        let _infallible = writeln!(
            text,
            "| {} | {} | {} |",
            group.name,
            calls.join(" "),
            group.why
        );
    }
    text
}

fn network(network: Network) -> &'static str {
    match network {
        Network::None => "none",
        Network::Inherited => "one inherited listening socket",
        Network::Store => "the remote store, where one is configured",
    }
}

fn files(files: Files) -> &'static str {
    match files {
        Files::None => "none",
        Files::ReadAnything => "read what its capabilities reach",
        Files::ReadDirectory => "read one directory",
        Files::WriteDirectory => "read and write one directory",
        Files::WriteDirectoryReadMachine => {
            "read and write one directory; read /proc, the cgroup tree and configured files"
        }
    }
}

/// When a capability is needed, in words.
#[must_use]
pub fn condition(when: When) -> String {
    match when {
        When::Always => "always".to_owned(),
        When::Before(major, minor) => format!("kernel < {major}.{minor}"),
        When::Paranoid(level) => format!("perf_event_paranoid >= {level}"),
        When::Never => "never".to_owned(),
    }
}

fn system_calls(rights: &Rights) -> usize {
    let mut names: Vec<_> = rights
        .groups
        .iter()
        .flat_map(|group| group.calls)
        .map(|call| call.name())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_dropped() {
        let machine = Machine {
            kernel: (6, 1),
            perf_event_paranoid: 2,
        };
        let sampler = super::super::of(ipc_proto::hello::Role::Sampler).expect("described");
        let line = line(sampler, &machine);
        assert!(line.contains("CAP_PERFMON CAP_BPF, then none"), "{line}");
    }

    #[test]
    fn the_threat_model_shows_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/THREAT-MODEL.md");
        let document = std::fs::read_to_string(path).expect("the document is there");
        assert!(
            document.contains(&markdown()),
            "{path} must hold:\n{}",
            markdown()
        );
    }
}
