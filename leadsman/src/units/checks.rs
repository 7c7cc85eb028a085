//! Compares `systemd/` with what it must hold, and has systemd judge it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ipc_endpoint::rights;
use ipc_proto::hello::Role;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

#[test]
fn the_units_say_what_the_rights_say() {
    let directory = directory();
    let write = std::env::var_os("LEADSMAN_RENDER").is_some();
    let mut expected = BTreeSet::from([PathBuf::from("leadsman.yaml")]);
    for (name, text) in super::all() {
        let path = directory.join(&name);
        if write {
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(&path, &text).expect("written");
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            found,
            text,
            "{} differs: LEADSMAN_RENDER=1 cargo test -p leadsman units",
            path.display()
        );
        expected.insert(name);
    }
    for folder in ["", "drop-in"] {
        for entry in fs::read_dir(directory.join(folder)).expect("listed") {
            let name = Path::new(folder).join(entry.expect("an entry").file_name());
            let known = name == Path::new("drop-in") || expected.contains(&name);
            assert!(known, "{} is nobody's", name.display());
        }
    }
}

/// What a container's process needs beside its role's capabilities, to become that role: its user, its bounding set, its
/// sockets' and directories' owners.
const BECOMING: [&str; 4] = ["SETUID", "SETGID", "SETPCAP", "CHOWN"];

/// The capabilities in the brackets behind `key`, in the part of `text` that begins with `start`.
fn added<'a>(text: &'a str, start: &str, key: &str) -> BTreeSet<&'a str> {
    let (_, part) = text
        .split_once(start)
        .unwrap_or_else(|| panic!("no {start:?}"));
    let (_, list) = part
        .split_once(key)
        .unwrap_or_else(|| panic!("no {key:?} behind {start:?}"));
    let list = list.split(']').next().unwrap_or_default();
    list.split(',').map(str::trim).collect()
}

#[test]
fn containers_have_the_rights_that_the_units_have() {
    let read = |name: &str| fs::read_to_string(directory().join("..").join(name)).expect(name);
    let (compose, kubernetes) = (
        read("compose/compose.yml"),
        read("kubernetes/daemonset.yaml"),
    );
    for rights in &rights::ALL {
        let names = super::capabilities(rights.capabilities, |when| when == rights::When::Always);
        let mut expected: BTreeSet<&str> = names
            .split_whitespace()
            .map(|name| name.trim_start_matches("CAP_"))
            .collect();
        expected.extend(BECOMING);
        if rights.role == Role::Sampler {
            // Opens the kernel's symbols with addresses before it becomes the sampler.
            expected.insert("SYSLOG");
        }
        let role = rights.role.name();
        let found = added(&compose, &format!("command: [run, {role}"), "cap_add: [");
        assert_eq!(found, expected, "{role} in compose/compose.yml");
        let found = added(&kubernetes, &format!("args: [run, {role}"), "add: [");
        assert_eq!(found, expected, "{role} in kubernetes/daemonset.yaml");
    }
    for (text, all) in [(&compose, "cap_drop: [ALL]"), (&kubernetes, "drop: [ALL]")] {
        assert!(text.contains(all) && !text.contains("privileged: true"));
    }
}

/// The exposure that systemd calculates, in tenths: less is better.
#[test]
fn no_unit_is_exposed() {
    for rights in &rights::ALL {
        let most = match rights.role {
            Role::Symbolizer => 5,
            Role::Sampler | Role::Opener | Role::Viewer => 10,
            _ => 15,
        };
        let unit = directory().join(super::service(rights.role));
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={most}"))
            .arg(&unit)
            .output()
            .expect("systemd-analyze is installed (Debian package systemd)");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("Overall exposure level"),
            "{}, more than {most} tenths:\n{text}{}",
            unit.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
