//! apt for suites that the machine does not use: downloads their packages, changes nothing of the machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::tool;

/// apt with lists of its own, so that another suite never reaches the machine's own packages.
#[derive(Debug)]
pub(crate) struct Apt {
    directory: PathBuf,
}

impl Apt {
    /// With its state in `directory`/apt, and `suite` as its only source.
    pub(crate) fn of(suite: &str, directory: &Path) -> Result<Self> {
        let directory = directory.join("apt");
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        fs::write(directory.join("status"), "")?;
        let source = format!(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {} {suite} main\n",
            mirror()?
        );
        fs::write(directory.join("sources.list"), source)?;
        Ok(Self { directory })
    }

    /// `apt-get` or another of apt's programs, so set up.
    pub(crate) fn command(&self, program: &str) -> std::process::Command {
        let mut command = tool::command(program);
        let option =
            |name: &str, part: &str| format!("-o{name}={}", self.directory.join(part).display());
        command.args([
            option("Dir::Etc::sourcelist", "sources.list"),
            "-oDir::Etc::sourceparts=/dev/null".to_owned(),
            option("Dir::State::lists", "lists"),
            option("Dir::State::status", "status"),
            option("Dir::Cache", "cache"),
            // The download is this user's own file.
            "-oAPT::Sandbox::User=root".to_owned(),
            "-oAcquire::Languages=none".to_owned(),
        ]);
        command
    }
}

/// Where this machine gets Debian's packages from: the archive of its own main suite.
fn mirror() -> Result<String> {
    let targets = tool::output(tool::command("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME) $(COMPONENT) $(LABEL)",
        "Created-By: Packages",
    ]))?;
    let mirror = targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (uri, codename) = (words.next()?, words.next()?);
        let is_debian = words.next() == Some("main") && words.next() == Some("Debian");
        (is_debian && !codename.contains('-')).then(|| uri.to_owned())
    });
    match mirror {
        Some(mirror) => Ok(mirror),
        None => bail!("apt knows no archive of Debian here"),
    }
}
