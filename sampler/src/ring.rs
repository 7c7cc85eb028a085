//! How large the ring buffer of samples is, and when it has become too small.

/// Bytes of the ring for each CPU and each sample a second: half a second in which every sample is a snapshot.
const BYTES_PER_HERTZ: u64 = 17 * 1024 / 2;
/// Least and most of it.
const LEAST: u64 = 1 << 20;
const MOST: u64 = 16 << 20;

/// Bytes for that many CPUs at that rate, doubled `growth` times: a power of two.
pub(crate) fn bytes(frequency: u32, cpus: usize, growth: u32) -> u32 {
    let bytes = BYTES_PER_HERTZ * u64::from(frequency) * cpus as u64;
    let bytes = bytes.clamp(LEAST, MOST).next_power_of_two();
    (bytes << growth.min(8)).min(MOST) as u32
}

/// Whether a ring of `bytes` in which at most `peak` bytes ever waited should become larger: three quarters are where
/// snapshots are left out.
pub(crate) fn is_too_small(bytes: u32, peak: u64) -> bool {
    u64::from(bytes) < MOST && peak >= u64::from(bytes) / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_follow_the_rate_and_the_machine_within_bounds() {
        assert_eq!(bytes(19, 2, 0), 1 << 20);
        assert_eq!(bytes(97, 2, 0), 2 << 20);
        assert_eq!(bytes(97, 2, 1), 4 << 20);
        assert_eq!(bytes(997, 2, 0), 16 << 20);
        assert_eq!(bytes(97, 512, 0), 16 << 20);
        assert_eq!(bytes(97, 512, 40), 16 << 20);
    }

    #[test]
    fn a_ring_grows_when_it_was_nearly_full_and_may() {
        assert!(is_too_small(1 << 20, 1 << 20));
        assert!(!is_too_small(1 << 20, 1 << 19));
        assert!(!is_too_small(16 << 20, 16 << 20));
    }
}
