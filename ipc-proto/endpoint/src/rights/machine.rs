//! What of the machine decides which capabilities are needed.

use super::When;

/// The running kernel, as far as rights depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Major and minor release.
    pub kernel: (u32, u32),
    /// `kernel.perf_event_paranoid`: 3 and more, which distributions patch in, refuse even CAP_PERFMON.
    pub perf_event_paranoid: i32,
}

impl Machine {
    /// This machine. What can't be read is taken for the usual: a kernel that needs least, paranoia 2.
    #[must_use]
    pub fn read() -> Self {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
            .ok()
            .and_then(|text| text.trim().parse().ok());
        Self {
            kernel: kernel(&release).unwrap_or((u32::MAX, 0)),
            perf_event_paranoid: paranoid.unwrap_or(2),
        }
    }

    pub(super) fn is(&self, when: When) -> bool {
        match when {
            When::Always => true,
            When::Before(major, minor) => self.kernel < (major, minor),
            When::Paranoid(level) => self.perf_event_paranoid >= level,
            When::Never => false,
        }
    }
}

fn kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(super::kernel("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(super::kernel("5.9-rc1"), Some((5, 9)));
        assert_eq!(super::kernel("newest"), None);
        assert!((5, 9) < (5, 19));
    }
}
