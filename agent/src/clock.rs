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

/// Exchanges after which the best so far must do.
pub const EXCHANGES_MAX: usize = 32;
/// Time after which the best so far must do.
pub const MEASURING_NS_MAX: u64 = 250_000_000;
/// No better exchange is looked for after one whose way took no longer: its offset is wrong by half of this at most.
pub const WAY_NS_GOOD: u64 = 400_000;

/// What one exchange with another host says of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The other host's clock less ours.
    pub offset_ns: i64,
    /// What the way there and back took: the offset is wrong by half of this at most.
    pub way_ns: u64,
}

impl Exchange {
    /// From when it was sent (our clock), received, answered (theirs), and back (ours). Half of what the way took is taken
    /// off; what the other host needed in between does not count.
    #[must_use]
    pub fn new([sent, received, answered, back]: [u64; 4]) -> Self {
        let there = i128::from(received) - i128::from(sent);
        let home = i128::from(answered) - i128::from(back);
        Self {
            offset_ns: i64::try_from((there + home) / 2).unwrap_or(0),
            way_ns: back.saturating_sub(sent).saturating_sub(answered.saturating_sub(received)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_taken_off_and_work_does_not_count() {
        let check = |times, offset_ns, way_ns| assert_eq!(Exchange::new(times), Exchange { offset_ns, way_ns });
        check([100, 1_150, 9_150, 8_200], 1_000, 100);
        check([5_000, 50, 60, 5_110], -5_000, 100);
        check([u64::MAX, 0, 0, u64::MAX], 0, 0);
        assert!(monotonic_ns() > 0);
    }
}
