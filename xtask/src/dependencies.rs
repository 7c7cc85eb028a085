//! What each process may link. Privileged processes stay small enough to be read, and no process links another one.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::tool;

/// Processes that start with capabilities.
const PRIVILEGED: [&str; 2] = ["leadsman-sampler", "leadsman-opener"];
/// Crates of others that those two may link together.
const PRIVILEGED_CRATES: usize = 30;
/// What has no place in a privileged process: async runtimes, network, TLS, parsers of foreign bytes.
const FORBIDDEN: [&str; 8] = [
    "tokio", "tonic", "prost", "serde", "gimli", "rustls", "clap", "hyper",
];
/// Crates that are a process each.
const PROCESSES: [&str; 7] = [
    "leadsman",
    "leadsman-sampler",
    "leadsman-opener",
    "leadsman-symbolizer",
    "leadsman-debuginfo-uploader",
    "leadsman-shipper",
    "leadsman-viewer",
];

/// A crate of the dependency tree.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    ours: bool,
}

/// Fails when a process links what it may not.
pub(crate) fn check() -> Result<()> {
    let mut wrong = Vec::new();
    let crates = tree(&PRIVILEGED)?;
    let foreign = crates.iter().filter(|linked| !linked.ours).count();
    println!("sampler and opener link {foreign} crates of others (at most {PRIVILEGED_CRATES})");
    if foreign > PRIVILEGED_CRATES {
        wrong.push(format!(
            "sampler and opener link {foreign} crates, more than {PRIVILEGED_CRATES}"
        ));
    }
    for linked in &crates {
        if FORBIDDEN.contains(&linked.name.as_str()) {
            wrong.push(format!("sampler or opener link {}", linked.name));
        }
    }
    for process in PROCESSES {
        for linked in tree(&[process])? {
            if linked.name != process && PROCESSES.contains(&linked.name.as_str()) {
                wrong.push(format!("{process} links {}", linked.name));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    println!("no process links another one");
    Ok(())
}

/// What `packages` link, themselves included.
fn tree(packages: &[&str]) -> Result<BTreeSet<Crate>> {
    let mut command = tool::cargo();
    command.args(["tree", "--edges", "normal", "--prefix", "none"]);
    for package in packages {
        command.args(["--package", package]);
    }
    Ok(parse(&tool::output(&mut command)?))
}

/// Lines are `name v1.2.3`, ours with a path behind: `name v0.1.0 (/path)`.
fn parse(text: &str) -> BTreeSet<Crate> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some(Crate {
            name: words.next()?.to_owned(),
            version: words.next()?.to_owned(),
            ours: words.next().is_some_and(|word| word.starts_with("(/")),
        })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_crate_counts_once_and_ours_are_told_apart() {
        let text = "leadsman-sampler v0.1.0 (/src/sampler)\nlog v0.4.1\naya-obj v0.2.0 (proc-macro)\nlog v0.4.1 (*)\n";
        let crates = super::parse(text);
        assert_eq!(crates.len(), 3);
        assert_eq!(crates.iter().filter(|linked| linked.ours).count(), 1);
    }
}
