//! Programs of the crate registry that tasks run: built once at a fixed version, kept in the cache directory.

use std::path::PathBuf;

use anyhow::Result;

use crate::tool;

/// A program and the package that it comes from; both have the same name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CargoTool {
    name: &'static str,
    version: &'static str,
}

/// Links BPF objects.
pub(crate) const BPF_LINKER: CargoTool = CargoTool {
    name: "bpf-linker",
    version: "0.10.4",
};
/// Checks what the dependencies may be.
pub(crate) const DENY: CargoTool = CargoTool {
    name: "cargo-deny",
    version: "0.20.2",
};
/// Builds and runs fuzz targets.
pub(crate) const FUZZ: CargoTool = CargoTool {
    name: "cargo-fuzz",
    version: "0.13.2",
};

impl CargoTool {
    /// Name and version, as a note of what built something.
    pub(crate) fn title(self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// The program; built when the cache does not have this version.
    pub(crate) fn program(self) -> Result<PathBuf> {
        let directory = tool::cache_directory()?.join(format!("{}-{}", self.name, self.version));
        let program = directory.join("bin").join(self.name);
        if !program.is_file() {
            println!("building {} (once, some minutes)", self.title());
            tool::run(
                tool::cargo()
                    .args(["install", self.name, "--locked", "--quiet"])
                    .args(["--version", self.version])
                    .arg("--root")
                    .arg(&directory)
                    .env_remove("CARGO_TARGET_DIR"),
            )?;
        }
        Ok(program)
    }
}
