//! The clock that all of a process's decisions take their time from.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// CLOCK_MONOTONIC, nanoseconds: also the clock of the kernel's records and samples.
#[must_use]
pub fn monotonic() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// CLOCK_REALTIME, nanoseconds since 1970 UTC.
#[must_use]
pub fn realtime() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// A clock's time, nanoseconds.
#[must_use]
pub fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    (time.tv_sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec as u64)
}

/// Nanoseconds as the kernel takes a wait.
#[must_use]
pub fn timespec(nanoseconds: u64) -> Timespec {
    Timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as i64,
        tv_nsec: (nanoseconds % 1_000_000_000) as i64,
    }
}
