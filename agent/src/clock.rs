//! CLOCK_MONOTONIC of this host, and how it relates to another's.
//!
//! Owns the arithmetic of offsets. Must not know who measures.

use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC now, in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has CLOCK_MONOTONIC");
    let (seconds, nanoseconds) = (now.tv_sec().cast_unsigned(), now.tv_nsec().cast_unsigned());
    seconds * 1_000_000_000 + nanoseconds
}

/// The other host's clock less ours, from one exchange: sent (ours), received, answered (theirs), back (ours). Half of
/// what the way took is taken off; what the other host needed in between does not count.
#[must_use]
pub fn offset_ns([sent, received, answered, back]: [u64; 4]) -> i64 {
    let there = i128::from(received) - i128::from(sent);
    let home = i128::from(answered) - i128::from(back);
    i64::try_from((there + home) / 2).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_taken_off_and_work_does_not_count() {
        assert_eq!(offset_ns([100, 1_150, 9_150, 8_200]), 1_000);
        assert_eq!(offset_ns([5_000, 50, 60, 5_110]), -5_000);
        assert_eq!(offset_ns([u64::MAX, 0, 0, u64::MAX]), 0);
        assert!(monotonic_ns() > 0);
    }
}
