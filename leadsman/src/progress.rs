//! A line on a terminal that says how far a recording is; nothing where nobody sits.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Pause between two looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// The line.
#[derive(Debug)]
pub(crate) struct Progress {
    on_terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    /// On standard error.
    pub(crate) fn new() -> Self {
        Self {
            on_terminal: std::io::stderr().is_terminal(),
            shown: None,
        }
    }

    /// Longest to wait for anything else, so that the line keeps moving.
    pub(crate) fn interval(&self) -> Duration {
        if self.on_terminal {
            INTERVAL
        } else {
            Duration::from_secs(3600)
        }
    }

    /// Shows the line, unless it was shown just now.
    pub(crate) fn show(&mut self, elapsed: Duration, of: Option<Duration>, samples: f64) {
        let recently = self.shown.is_some_and(|shown| shown.elapsed() < INTERVAL);
        if !self.on_terminal || recently {
            return;
        }
        self.shown = Some(Instant::now());
        let of = of.map_or_else(String::new, |of| format!(" of {:.1}", of.as_secs_f64()));
        eprint!(
            "\r\x1b[Krecording: {:.1}{of} s, {samples:.0} samples",
            elapsed.as_secs_f64()
        );
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
