//! The guest's time-stamp counter as this host's: a factor where the rates differ, and a distance.
//!
//! Owns the judgement of rates and the arithmetic, which is KVM's. Must not call KVM or read clocks.

use std::ops::RangeInclusive;

/// Rates that are further apart than this many parts of a million are two; KVM tolerates as much by itself.
const NEAR_PPM: u64 = 250;
/// Binary places of the factors that processors know: VMX, SVM.
const PLACES: [u32; 2] = [48, 32];

/// Whether counters of both rates are taken for counters of one.
pub fn is_near(own_khz: u64, wanted_khz: u64) -> bool {
    own_khz.abs_diff(wanted_khz).saturating_mul(1_000_000) <= NEAR_PPM.saturating_mul(wanted_khz)
}

/// What a processor multiplies its counter with for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor {
    ratio: u64,
    places: u32,
}

impl Default for Factor {
    fn default() -> Self {
        Self { ratio: 1, places: 0 }
    }
}

impl Factor {
    fn new(own_khz: u64, wanted_khz: u64, places: u32) -> Self {
        let ratio = (u128::from(wanted_khz) << places) / u128::from(own_khz.max(1));
        Self { ratio: u64::try_from(ratio).unwrap_or(u64::MAX), places }
    }

    /// The one by which the guest's counter reads `seen` while this host's goes through `own`; none if no processor has such a one.
    ///
    /// Processors differ in how exact their factor is, and after a month that is a millisecond: so it is looked at, not believed.
    pub fn find(own_khz: u64, wanted_khz: u64, own: &RangeInclusive<u64>, seen: u64) -> Option<Self> {
        let mut factors = PLACES.map(|places| Self::new(own_khz, wanted_khz, places)).into_iter();
        factors.find(|factor| (factor.ticks(*own.start())..=factor.ticks(*own.end())).contains(&seen))
    }

    /// The guest's ticks when this host has counted `own`, without the distance.
    pub fn ticks(&self, own: u64) -> u64 {
        ((u128::from(own) * u128::from(self.ratio)) >> self.places) as u64
    }
}

/// The guest's counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// What this host's is multiplied with.
    pub factor: Factor,
    /// What is added then, modulo 2^64.
    pub offset: u64,
}

impl Counter {
    /// The guest's when this host's is at `own`.
    pub fn ticks(&self, own: u64) -> u64 {
        self.factor.ticks(own).wrapping_add(self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tolerance_is_not_passed() {
        for (own, wanted, expected) in [
            (2_000_000, 2_000_000, true),
            (2_000_500, 2_000_000, true),
            (1_999_500, 2_000_000, true),
            (2_000_501, 2_000_000, false),
            (1_999_499, 2_000_000, false),
            (0, 2_000_000, false),
            (2_000_000, 0, false),
            (u64::MAX, 1, false),
        ] {
            assert_eq!(is_near(own, wanted), expected, "{own} {wanted}");
        }
    }

    /// As Linux has it: `mul_u64_u32_div(1 << places, wanted, own)`, then `mul_u64_u64_shr(ticks, ratio, places)`.
    #[test]
    fn ticks_as_processors_count_them() {
        let vmx = Factor::new(2_596_120, 3_000_000, 48);
        assert_eq!(vmx.ratio, 325_264_213_569_468);
        let svm = Factor::new(2_596_120, 3_000_000, 32);
        assert_eq!(svm.ratio, 4_963_138_024);
        const MONTH: u64 = 2_596_120_000 * 86_400 * 30;
        let exact = 3_000_000_000_u64 * 86_400 * 30;
        assert!(exact - vmx.ticks(MONTH) <= 100, "{}", vmx.ticks(MONTH));
        assert!((1000..3_000_000).contains(&(exact - svm.ticks(MONTH))), "{}", svm.ticks(MONTH));
        assert_eq!(Factor::default().ticks(u64::MAX), u64::MAX);
        assert_eq!(Factor::new(1, u64::MAX, 48).ratio, u64::MAX, "rates that nobody has");
        assert_eq!(Factor::new(0, 5, 0).ratio, 5, "nor this");
    }

    #[test]
    fn the_factor_is_that_of_the_processor() {
        for (own_khz, wanted_khz) in [(2_596_120, 3_000_000), (3_000_000, 2_596_120), (1_000_000, 4_999_999)] {
            for start in [0, 1_000_000, own_khz * 1000 * 3600, own_khz * 1000 * 86_400 * 365] {
                let own = start..=start + 2000;
                for places in PLACES {
                    let theirs = Factor::new(own_khz, wanted_khz, places);
                    let found = Factor::find(own_khz, wanted_khz, &own, theirs.ticks(start + 700));
                    let found = found.unwrap_or_else(|| panic!("none for {own_khz} {wanted_khz} {places} at {start}"));
                    // Where both fit they do not differ by more than what was looked at.
                    assert!(found.ticks(start).abs_diff(theirs.ticks(start)) <= theirs.ticks(2000) + 1, "{found:?} {theirs:?}");
                }
                // A kernel that tolerates more than it should has not scaled anything.
                let unscaled = Factor::find(own_khz, wanted_khz, &own, start + 700);
                assert!(start < 1_000_000_000 || unscaled.is_none(), "{unscaled:?} at {start}");
            }
        }
    }

    /// A member whose counter runs at another rate, with an offset measured once, reads the root's counter.
    #[test]
    fn a_scaled_counter_is_the_roots() {
        const OWN_KHZ: u64 = 2_100_000;
        const ROOT_KHZ: u64 = 2_596_120;
        const UP_S: u64 = 86_400 * 20;
        let (own_start, root_start) = (UP_S * OWN_KHZ * 1000, 77 * ROOT_KHZ * 1000);
        for places in PLACES {
            let factor = Factor::new(OWN_KHZ, ROOT_KHZ, places);
            let counter = Counter { factor, offset: root_start.wrapping_sub(factor.ticks(own_start)) };
            assert_eq!(counter.ticks(own_start), root_start);
            for s in [1, 60, 3600] {
                let (here, there) = (counter.ticks(own_start + s * OWN_KHZ * 1000), root_start + s * ROOT_KHZ * 1000);
                // Parts of 10^9 that the shorter factor loses.
                assert!(
                    here.abs_diff(there) <= 1 + s * ROOT_KHZ * 1000 / 2_000_000_000,
                    "{places} places, {s} s: {here} {there}"
                );
            }
        }
    }
}
