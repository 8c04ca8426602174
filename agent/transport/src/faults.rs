//! Faults on purpose.
//!
//! Owns the dice. Must not know what is lost.

use crate::{FaultPlan, Nanos};
use std::time::Duration;

/// What becomes of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Sent.
    Send,
    /// Not sent.
    Lose,
    /// Sent twice.
    Double,
    /// Sent later.
    Delay(Nanos),
}

/// Decides fates from a seed.
pub(crate) struct Dice {
    plan: FaultPlan,
    state: u64,
}

impl Dice {
    /// Dice of `plan`.
    pub(crate) fn new(plan: FaultPlan) -> Dice {
        Dice { plan, state: plan.seed }
    }

    /// Whether any fault can happen.
    pub(crate) fn is_loaded(&self) -> bool {
        self.plan.loss_permille + self.plan.duplicate_permille + self.plan.delay_permille > 0
    }

    /// The fate of the next datagram.
    pub(crate) fn roll(&mut self, now: Nanos) -> Fate {
        if !self.is_loaded() {
            return Fate::Send;
        }
        let roll = (self.next() % 1000) as u16;
        let loss = self.plan.loss_permille;
        let duplicate = loss + self.plan.duplicate_permille;
        if roll < loss {
            Fate::Lose
        } else if roll < duplicate {
            Fate::Double
        } else if roll < duplicate + self.plan.delay_permille {
            let most = self.plan.delay_max.as_nanos().max(1) as u64;
            Fate::Delay(now.after(Duration::from_nanos(self.next() % most)))
        } else {
            Fate::Send
        }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_fates_in_the_asked_share() {
        let plan = FaultPlan {
            seed: 7,
            loss_permille: 100,
            duplicate_permille: 50,
            delay_permille: 50,
            delay_max: Duration::from_millis(1),
        };
        let roll = || {
            let mut dice = Dice::new(plan);
            (0..10_000).map(move |_| dice.roll(Nanos(5))).collect::<Vec<_>>()
        };
        let fates = roll();
        assert_eq!(fates, roll());
        let lost = fates.iter().filter(|fate| **fate == Fate::Lose).count();
        assert!((800..1200).contains(&lost), "{lost} of 10000 lost");
        assert!(!Dice::new(FaultPlan::NONE).is_loaded());
    }
}
