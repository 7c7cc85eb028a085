//! Running commands under a deadline: own process group, output collected, everything in the group killed when the value
//! goes. Must never leave a process behind.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Output {
    /// The exit code; `None` when it died by a signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// The standard output as text, bad bytes replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A running command, leader of its own process group.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    /// Starts `command` with empty standard input and its output collected.
    pub fn start(command: &mut Command) -> Result<Self> {
        let what = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Ok(Self {
            what,
            child,
            stdout,
            stderr,
        })
    }

    /// The command's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the command has not ended yet.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends `signal` to the command itself.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.what))
    }

    /// Waits for the end. Past the deadline the group is killed and that is an error which shows the output so far.
    pub fn wait(mut self, deadline: Duration) -> Result<Output> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait()? {
                // The group may still hold the pipes open: nothing in it may outlive the command.
                self.kill_group();
                return Ok(Output {
                    status,
                    stdout: joined(self.stdout.take()),
                    stderr: String::from_utf8_lossy(&joined(self.stderr.take())).into_owned(),
                });
            }
            if Instant::now() >= end {
                self.kill_group();
                let _ = self.child.wait();
                let stderr = String::from_utf8_lossy(&joined(self.stderr.take())).into_owned();
                bail!(
                    "{} still ran after {deadline:?}; its errors: {stderr}",
                    self.what
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill_group(&self) {
        // ESRCH only says that the whole group is gone already.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_group();
        let _ = self.child.wait();
        // Nobody asked for its output: a test failed, or ends. The test runner shows this only if it failed.
        let Some(thread) = self.stderr.take() else {
            return;
        };
        let end = Instant::now() + OUTPUT_PATIENCE;
        while !thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            let said = joined(Some(thread));
            let said = String::from_utf8_lossy(&said);
            let lines: Vec<&str> = said.lines().collect();
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                println!("  | {line}");
            }
        }
    }
}

/// How long a killed command's pipe may stay open in others' hands.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(3);
/// Last lines of its errors that a failed test shows.
const SHOWN_LINES: usize = 60;

/// Runs `command` to its end.
pub fn run(command: &mut Command, deadline: Duration) -> Result<Output> {
    Running::start(command)?.wait(deadline)
}

/// Runs `command` and demands exit code 0.
pub fn run_ok(command: &mut Command, deadline: Duration) -> Result<Output> {
    let output = run(command, deadline)?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}",
            output.status,
            output.stderr.trim()
        );
    }
    Ok(output)
}

/// Signals a process by its id.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("process id 0")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {pid:?}"))
}

/// Asks `question` every 20 ms until it answers something, at most for `deadline`.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut question: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("not within {deadline:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks ends the output; what came before still counts.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn joined(thread: Option<JoinHandle<Vec<u8>>>) -> Vec<u8> {
    thread
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default()
}
