//! The mixed load of the figures: a C program without frame pointers and with every awkward kind of stack, C++, Python,
//! Node, OpenSSL and a compile loop that never stops spawning. Everything it starts ends with it.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::require_command;
use crate::workloads::programs;

/// One started part of the load, leader of its own process group.
#[derive(Debug)]
pub struct Member {
    /// What it is, for people.
    pub name: &'static str,
    child: Child,
}

impl Member {
    /// The process id of the group's leader.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

/// The running load.
#[derive(Debug)]
pub struct MixedLoad {
    members: Vec<Member>,
}

impl MixedLoad {
    /// Starts all parts. Each is killed when the calling thread ends, however it ends: call this from a thread that stays.
    pub fn start() -> Result<Self> {
        let programs = programs()?;
        let mut load = Self {
            members: Vec::new(),
        };
        load.add(
            "C chains without frame pointers",
            &programs.path("chains-O2"),
            &["3600"],
        )?;
        load.add("C++ chains", &programs.path("chains-cpp"), &["3600"])?;
        load.add(
            "Python",
            &python()?,
            &[programs.path("busy.py").as_os_str()],
        )?;
        load.add(
            "Node",
            &require_command("node")?,
            &[programs.path("busy.js").as_os_str()],
        )?;
        load.add(
            "OpenSSL",
            &require_command("openssl")?,
            &["speed", "-seconds", "3600", "-evp", "aes-256-gcm"],
        )?;
        let compile = format!(
            "while :; do '{}' -O2 -c '{}' -o /dev/null; done",
            require_command("gcc")?.display(),
            programs.path("compiled.c").display()
        );
        load.add("compile loop", Path::new("/bin/sh"), &["-c", &compile])?;
        Ok(load)
    }

    /// Starts nothing but short processes instead: pipelines in subshells, forked without end, of programs that are done
    /// in a millisecond. Ends as the others do.
    pub fn of_short_processes() -> Result<Self> {
        let mut load = Self {
            members: Vec::new(),
        };
        let script = "f() { echo \"$1\" | tr a-z A-Z | sed 's/A/b/g;s/C.*D/x/'; }
            while :; do x=$(f abcdef); /bin/true; y=$(f \"$x\"); done";
        load.add("shell loop", &require_command("bash")?, &["-c", script])?;
        Ok(load)
    }

    /// What was started.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    fn add(
        &mut self,
        name: &'static str,
        program: &Path,
        arguments: &[impl AsRef<OsStr>],
    ) -> Result<()> {
        let child = Command::new(require_command("setpriv")?)
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", program.display()))?;
        self.members.push(Member { name, child });
        Ok(())
    }
}

impl Drop for MixedLoad {
    fn drop(&mut self) {
        for member in &mut self.members {
            // A group that is gone already is as good.
            let _ = kill_process_group(Pid::from_child(&member.child), Signal::KILL);
            let _ = member.child.wait();
        }
    }
}

/// Debian's own interpreter where there is one: a version manager's `python3` may be a shell script.
fn python() -> Result<PathBuf> {
    let debian = PathBuf::from("/usr/bin/python3");
    if debian.is_file() {
        Ok(debian)
    } else {
        require_command("python3")
    }
}
