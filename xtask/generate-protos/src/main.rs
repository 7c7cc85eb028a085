//! `cargo xtask generate-protos`: writes the Rust code of the wire contracts in proto/; with `--check` compares it with
//! what is committed. Runs no protoc.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A crate that gets generated code.
struct Target {
    /// Where it goes.
    directory: &'static str,
    /// From what.
    protos: &'static [&'static str],
    /// Whether it also serves.
    servers: bool,
}

const TARGETS: [Target; 3] = [
    Target {
        directory: "remote-store/src/generated",
        protos: &[
            "parca/profilestore/v1alpha1/profilestore.proto",
            "parca/debuginfo/v1alpha1/debuginfo.proto",
            "pyroscope/push/v1/push.proto",
        ],
        servers: false,
    },
    Target {
        directory: "shipper/src/labels/runtime/generated",
        protos: &[
            "containerd/services/containers/v1/containers.proto",
            "containerd/services/events/v1/events.proto",
            "containerd/services/namespaces/v1/namespace.proto",
        ],
        servers: false,
    },
    Target {
        directory: "tests/src/generated",
        protos: &[
            "parca/profilestore/v1alpha1/profilestore.proto",
            "parca/debuginfo/v1alpha1/debuginfo.proto",
            "parca/query/v1alpha1/query.proto",
            "google/pprof/profile.proto",
            "pyroscope/push/v1/push.proto",
        ],
        servers: true,
    },
];

fn main() -> Result<()> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("unknown argument {other:?}; there is --check"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .context("this crate lies in xtask/generate-protos")?;
    let mut stale = Vec::new();
    for target in &TARGETS {
        let made = tempfile::tempdir()?;
        generate(root, target, made.path())?;
        let directory = root.join(target.directory);
        for name in names(made.path())? {
            let code = std::fs::read_to_string(made.path().join(&name))?;
            let path = directory.join(&name);
            if std::fs::read_to_string(&path).is_ok_and(|old| old == code) {
                continue;
            }
            if check {
                stale.push(path.display().to_string());
            } else {
                std::fs::create_dir_all(&directory)?;
                std::fs::write(&path, code)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                println!("wrote {}", path.display());
            }
        }
    }
    if !stale.is_empty() {
        bail!(
            "{} differ from proto/: run `cargo xtask generate-protos`",
            stale.join(", ")
        );
    }
    Ok(())
}

fn generate(root: &Path, target: &Target, into: &Path) -> Result<()> {
    let descriptors = protox::compile(target.protos, [root.join("proto")])
        .context("the contracts in proto/ do not compile")?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(target.servers)
        .build_transport(false)
        .bytes(".")
        .out_dir(into)
        .compile_fds(descriptors)
        .context("cannot generate code")
}

fn names(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)?;
    entries
        .map(|entry| Ok(PathBuf::from(entry?.file_name())))
        .collect()
}
