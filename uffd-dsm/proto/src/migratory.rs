//! Migratory pages: read, then written, by one host after the other. Such a page is asked for to be written when it is first
//! read, which saves the second of two remote faults (Cox and Fowler, "Adaptive Cache Coherency for Detecting Migratory Shared
//! Data", ISCA 1993; here the requester decides, from its own faults alone).
//!
//! Owns the habit of each page. Must not change what is right: a page asked for to be written may be read.
//!
//! ```text
//!   reads that a write followed, in a row    0  1  2
//!   what the next reads ask for              r  r  8 times to write, then once r, to see whether the habit lasts
//! ```

use crate::limits::{MIGRATORY_BITS, MIGRATORY_STREAK_MIN, MIGRATORY_TRUST};
use crate::recent::Recent;
use dsm_wire::PageNumber;

#[derive(Clone, Copy, Debug, Default)]
struct Habit {
    /// Reads in a row that a write followed while the copy was here.
    streak: u8,
    /// Reads that may still ask to write without a look at whether the habit lasts.
    trust: u8,
    /// The copy was asked for to be read, and has not been written.
    is_only_read: bool,
}

/// The habits of the pages that were asked for last.
#[derive(Debug, Default)]
pub struct Habits {
    habits: Recent<Habit, MIGRATORY_BITS>,
}

impl Habits {
    /// A thread reads an absent page. Returns whether it will likely write it too.
    pub fn on_read(&mut self, page: PageNumber) -> bool {
        let habit = self.habits.entry(page);
        if habit.trust > 0 {
            habit.trust -= 1;
            return true;
        }
        if habit.is_only_read {
            habit.streak = 0;
        }
        habit.is_only_read = true;
        false
    }

    /// A thread writes a page that was asked for to be read.
    pub fn on_upgrade(&mut self, page: PageNumber) {
        let habit = self.habits.entry(page);
        habit.is_only_read = false;
        habit.streak = habit.streak.saturating_add(1);
        if habit.streak >= MIGRATORY_STREAK_MIN {
            habit.trust = MIGRATORY_TRUST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: PageNumber = PageNumber(9);

    #[test]
    fn a_habit_is_learnt_trusted_and_looked_at_again() {
        let mut habits = Habits::default();
        for _ in 0..MIGRATORY_STREAK_MIN {
            assert!(!habits.on_read(PAGE));
            habits.on_upgrade(PAGE);
        }
        for _ in 0..3 {
            for _ in 0..MIGRATORY_TRUST {
                assert!(habits.on_read(PAGE));
            }
            assert!(!habits.on_read(PAGE), "a look");
            habits.on_upgrade(PAGE);
        }
    }

    #[test]
    fn a_page_that_is_only_read_loses_the_habit() {
        let mut habits = Habits::default();
        for _ in 0..MIGRATORY_STREAK_MIN {
            habits.on_read(PAGE);
            habits.on_upgrade(PAGE);
        }
        let asked_to_write = (0..100).filter(|_| habits.on_read(PAGE)).count();
        assert_eq!(asked_to_write, usize::from(MIGRATORY_TRUST));
        habits.on_upgrade(PAGE);
        assert!(!habits.on_read(PAGE), "one write is no habit");
    }
}
