//! The guest's nanoseconds, as kernels know them from KVM: a function of the time-stamp counter.
//!
//! Owns that function, its bytes, and how a host's follows the root's where counters do not run at one rate. Must not read clocks.

/// How often a host compares its clock with the root's, in nanoseconds.
pub const COMPARED_NS: u64 = 1_000_000_000;
/// A clock that is no further from the root's than this goes at the rate of its counter.
const NEAR_NS: u64 = 10_000;
/// Most that a clock is made faster or slower, in parts of 10^9: twice what rates of hosts may differ.
const STEERED_PPB_MAX: i64 = 500_000;
/// Multipliers leave room to go faster by that.
const MULTIPLIER_MAX: u128 = 0xff00_0000;
/// What is read on all processors needs no comparison with what was read before.
const IS_STABLE: u8 = 1;
/// Bytes of the structure in the guest's memory.
pub const BYTES: usize = 32;

/// Nanoseconds by the time-stamp counter: `ns` at `tsc`, and from there on a straight line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    tsc: u64,
    ns: u64,
    multiplier: u32,
    shift: i8,
}

impl Scale {
    /// Zero at `tsc`, for a counter of `khz`.
    pub fn new(tsc: u64, khz: u64) -> Self {
        let ratio = (1_000_000_u128 << 64) / u128::from(khz.max(1));
        let mut shift = -32;
        while ratio >> (32 + shift) > MULTIPLIER_MAX {
            shift += 1;
        }
        Self { tsc, ns: 0, multiplier: (ratio >> (32 + shift)) as u32, shift: shift as i8 }
    }

    /// Nanoseconds when the counter is at `tsc`.
    pub fn ns(&self, tsc: u64) -> u64 {
        let ticks = u128::from(tsc.saturating_sub(self.tsc));
        let shifted = if self.shift >= 0 { ticks << self.shift } else { ticks >> -self.shift };
        self.ns + ((shifted * u128::from(self.multiplier)) >> 32) as u64
    }

    /// The same until `tsc`, then at the rate of `nominal` and so many parts of 10^9 faster.
    fn steered(&self, nominal: &Self, tsc: u64, ppb: i64) -> Self {
        let multiplier = (i128::from(nominal.multiplier) * i128::from(1_000_000_000 + ppb) / 1_000_000_000) as u32;
        Self { tsc, ns: self.ns(tsc), multiplier, shift: nominal.shift }
    }

    /// `pvclock_vcpu_time_info` of Linux; `version` is even.
    pub fn bytes(&self, version: u32) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.tsc.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ns.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.multiplier.to_le_bytes());
        [bytes[28], bytes[29]] = [self.shift as u8, IS_STABLE];
        bytes
    }
}

/// A question to the root for its time: the counter here before and after it, and the nanoseconds there.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// The counter here when it was asked.
    pub before: u64,
    /// And when the answer was here.
    pub after: u64,
    /// The root's nanoseconds somewhere between.
    pub ns_there: u64,
}

/// A clock that follows the root's.
#[derive(Debug)]
pub struct Follower {
    nominal: Scale,
    scale: Scale,
    /// How far it was from the root's at most when it was last compared.
    pub error_ns: u64,
}

impl Follower {
    /// Begins as the root's.
    pub fn new(scale: Scale) -> Self {
        Self { nominal: scale, scale, error_ns: 0 }
    }

    /// Both clocks have been compared; gives the one to go on with if it is another.
    pub fn handle_compared(&mut self, compared: Compared) -> Option<Scale> {
        let Compared { before, after, ns_there } = compared;
        let (first, last) = (self.scale.ns(before), self.scale.ns(after));
        let doubt = last.saturating_sub(first) / 2;
        let behind = ns_there.wrapping_sub(first + doubt) as i64;
        self.error_ns = behind.unsigned_abs() + doubt;
        let is_near = behind.unsigned_abs() <= NEAR_NS.max(doubt);
        // What it is behind is made up for until it is compared again.
        let per_second = i128::from(behind) * 1_000_000_000 / i128::from(COMPARED_NS);
        let most = i128::from(STEERED_PPB_MAX);
        let ppb = if is_near { 0 } else { per_second.clamp(-most, most) as i64 };
        let next = self.scale.steered(&self.nominal, after, ppb);
        if next.multiplier == self.scale.multiplier {
            return None;
        }
        self.scale = next;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_of_ticks() {
        for khz in [1, 1000, 999_999, 1_000_000, 2_596_120, 5_000_000] {
            let scale = Scale::new(77, khz);
            assert!(scale.multiplier >= 1 << 30, "{scale:?}");
            for seconds in [0, 1, 3600, 86_400 * 30] {
                let (ns, exact) = (scale.ns(77 + seconds * khz * 1000), seconds * 1_000_000_000);
                assert!(ns.abs_diff(exact) <= 1 + exact / 500_000_000, "{khz} kHz, {seconds} s: {ns}");
            }
        }
        assert_eq!(Scale::new(77, 1000).ns(70), 0, "before the beginning it stands");
    }

    #[test]
    fn bytes_as_kernels_read_them() {
        let bytes = Scale { tsc: 1, ns: 2, multiplier: 3, shift: -1 }.bytes(4);
        let mut expected = [0; BYTES];
        for (place, value) in [(0, 4), (8, 1), (16, 2), (24, 3), (28, 0xff), (29, 1)] {
            expected[place] = value;
        }
        assert_eq!(bytes, expected);
    }

    /// Hosts whose counters differ by `ppm`; every second both are compared in a round trip of 40 us that is late on one way.
    fn furthest(ppm: i64) -> u64 {
        const KHZ: u64 = 1_000_000;
        let start = Scale::new(0, KHZ);
        let (mut follower, mut scale, mut furthest, mut last) = (Follower::new(start), start, 0, 0);
        for ms in 1..60_000_u64 {
            let there = ms * 1_000_000;
            let here = (i128::from(there) * i128::from(1_000_000 + ppm) / 1_000_000) as u64;
            let now = scale.ns(here);
            assert!(now > last, "it goes back from {last} to {now} at {ms} ms");
            last = now;
            furthest = furthest.max(now.abs_diff(there));
            if ms % 1000 == 0 {
                let compared = Compared { before: here - 30_000, after: here + 10_000, ns_there: there };
                if let Some(next) = follower.handle_compared(compared) {
                    assert!(next.ns(here + 10_000).abs_diff(scale.ns(here + 10_000)) <= 1, "it leaps");
                    scale = next;
                }
            }
        }
        furthest
    }

    #[test]
    fn it_stays_near_the_root() {
        assert_eq!(furthest(0), 0, "one counter is left alone");
        for ppm in [-250, -100, -20, -3, 3, 20, 100, 250] {
            let (far, may) = (furthest(ppm), 1000 * ppm.unsigned_abs() + NEAR_NS + 40_000);
            assert!(far <= may, "{ppm} ppm: {far} ns, not {may}");
        }
    }
}
