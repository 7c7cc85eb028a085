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
