//! What must hold before anything is started: rights, and what the kernel offers. One line for what does not.

use std::path::Path;

use ipc_endpoint::rights::{self, Machine, capability_names};
use rustix::thread::{CapabilitySet, capabilities};

use crate::error::Failure;

/// The kernel's types, which every kernel of the last years can show.
pub(crate) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// What the front command itself needs to confine others: change ids and capabilities, give sockets away.
const OWN: [CapabilitySet; 4] = [
    CapabilitySet::SETUID,
    CapabilitySet::SETGID,
    CapabilitySet::SETPCAP,
    CapabilitySet::CHOWN,
];

/// Checks that this process may start the others. `command` is what to call by sudo.
///
/// # Errors
/// What is missing: exit code 2 for rights, 1 for what the kernel lacks.
pub(crate) fn check(command: &str) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::usage(format!(
            "this needs root, to load BPF programs and to start each process as a user of its own: run `sudo leadsman {command}`"
        )));
    }
    let missing = missing_capabilities(&Machine::read())?;
    if !missing.is_empty() {
        return Err(Failure::usage(format!(
            "root lacks {} here: allow them to this container or service, as `docker run --cap-add` or CapabilityBoundingSet= do",
            capability_names(missing)
        )));
    }
    if !Path::new(BTF).is_file() {
        return Err(Failure::failed(format!(
            "{BTF} is missing: BPF programs need a kernel with BTF (CONFIG_DEBUG_INFO_BTF=y)"
        )));
    }
    Ok(())
}

/// Capabilities without which nothing can be recorded.
pub(crate) fn missing_capabilities(machine: &Machine) -> Result<CapabilitySet, Failure> {
    let held = capabilities(None)
        .map_err(|error| Failure::failed(format!("cannot read the own capabilities: {error}")))?
        .effective;
    let needed = rights::ALL
        .iter()
        .map(|rights| rights.at_start(machine))
        .chain(OWN)
        .fold(CapabilitySet::empty(), |all, one| all | one);
    Ok(needed - held)
}
