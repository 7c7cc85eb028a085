//! One boot of an emulated machine: shows what it prints, and judges by its last line.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What the machine says at its end, before the number of tests that failed.
pub(super) const VERDICT: &str = "leadsman-kernels: failed";
/// Longest that one boot may take: the emulator is some ten times slower than the machine.
const DEADLINE: Duration = Duration::from_secs(420);

/// Boots `image` with `initramfs`; an error when a test inside failed or the machine did not come to its end.
pub(super) fn run(image: &Path, initramfs: &Path) -> Result<()> {
    println!("booting {}", image.display());
    let start = Instant::now();
    let mut emulator = Emulator(
        Command::new("qemu-system-x86_64")
            // Newer kernels make qemu 7.2 stop at cmpxchg16b.
            .args(["-accel", "tcg,thread=multi", "-cpu", "max,-cx16"])
            .args(["-smp", "2", "-m", "1536", "-nographic", "-no-reboot"])
            .args(["-nodefaults", "-serial", "stdio", "-kernel"])
            .arg(image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", "console=ttyS0 panic=-1 quiet"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start qemu-system-x86_64")?,
    );
    let output = emulator.0.stdout.take().context("qemu has an output")?;
    let (lines, received) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if lines
                .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let mut verdict = None;
    loop {
        match received.recv_timeout(DEADLINE.saturating_sub(start.elapsed())) {
            Ok(line) => {
                println!("  | {line}");
                if let Some(failed) = line.strip_prefix(VERDICT) {
                    verdict = Some(failed.trim().to_owned());
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!("it still ran after {} s", DEADLINE.as_secs());
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    println!("{:.0} s in all", start.elapsed().as_secs_f64());
    match verdict.as_deref() {
        Some("0") => Ok(()),
        Some(_) => bail!("tests failed, see above"),
        None => bail!("it ended before its tests did"),
    }
}

/// Ends with the value.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
