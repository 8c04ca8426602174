//! Which sequences of one sender were seen.
//!
//! Owns a sliding bitmap. Must not know what a sequence belongs to.

use crate::limits::REPLAY_WINDOW;

const WORDS: usize = (REPLAY_WINDOW / 64) as usize;

/// The last [`REPLAY_WINDOW`] sequences, one bit each.
pub(crate) struct ReplayWindow {
    highest: u64,
    seen: Box<[u64; WORDS]>,
}

impl ReplayWindow {
    /// Nothing seen. Sequences begin at 1.
    pub(crate) fn new() -> ReplayWindow {
        ReplayWindow { highest: 0, seen: Box::new([0; WORDS]) }
    }

    /// The highest sequence accepted.
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `sequence` was not seen and is not too old to tell.
    pub(crate) fn is_fresh(&self, sequence: u64) -> bool {
        if sequence == 0 || sequence + REPLAY_WINDOW <= self.highest {
            return false;
        }
        let (word, bit) = place(sequence);
        sequence > self.highest || self.seen[word] & bit == 0
    }

    /// Notes a fresh `sequence`.
    pub(crate) fn insert(&mut self, sequence: u64) {
        if sequence > self.highest {
            self.clear(self.highest + 1, sequence);
            self.highest = sequence;
        }
        let (word, bit) = place(sequence);
        self.seen[word] |= bit;
    }

    /// Forgets the slots of `first..=last`, which held sequences one window back.
    fn clear(&mut self, first: u64, last: u64) {
        if last - first >= REPLAY_WINDOW {
            self.seen.fill(0);
            return;
        }
        for sequence in first..=last {
            let (word, bit) = place(sequence);
            self.seen[word] &= !bit;
        }
    }
}

fn place(sequence: u64) -> (usize, u64) {
    let slot = sequence % REPLAY_WINDOW;
    ((slot / 64) as usize, 1 << (slot % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(inserted: &[u64], sequence: u64, fresh: bool) {
        let mut window = ReplayWindow::new();
        for sequence in inserted {
            if window.is_fresh(*sequence) {
                window.insert(*sequence);
            }
        }
        assert_eq!(window.is_fresh(sequence), fresh, "{sequence} after {inserted:?}");
    }

    #[test]
    fn window() {
        check(&[], 0, false);
        check(&[], 1, true);
        check(&[1], 1, false);
        check(&[5], 1, true);
        check(&[5, 1], 1, false);
        check(&[5, 1], 2, true);
        check(&[1, REPLAY_WINDOW], 1, false);
        check(&[REPLAY_WINDOW], 1, true);
        check(&[REPLAY_WINDOW + 1], 1, false);
        check(&[REPLAY_WINDOW + 1], 2, true);
        check(&[2, REPLAY_WINDOW + 2], REPLAY_WINDOW + 2, false);
        check(&[2, 3, 10 * REPLAY_WINDOW], 9 * REPLAY_WINDOW + 3, true);
        check(&[2, 3, 10 * REPLAY_WINDOW], 9 * REPLAY_WINDOW, false);
        check(&[u64::MAX / 2], u64::MAX / 2 - 1, true);
    }

    #[test]
    fn each_sequence_once_in_any_order() {
        let mut window = ReplayWindow::new();
        let mut accepted = 0;
        for step in 0..3 * REPLAY_WINDOW {
            let sequence = 1 + (step * 7919) % REPLAY_WINDOW;
            if window.is_fresh(sequence) {
                window.insert(sequence);
                accepted += 1;
            }
        }
        assert_eq!(accepted, REPLAY_WINDOW);
    }
}
