//! Where entries are kept, and how one is exchanged for the next.
//!
//! Owns the compare-exchange loop. Must not know what a step means.

use crate::word::{Entry, Refused, Sharers, Step, Word, apply};
use dsm_wire::PAGES_PER_EXTENT;

/// The entries of one extent. In plain memory now; later in a map that the kernel programs share.
pub trait Directory {
    /// The entry at `slot`, 0 to 511.
    fn load(&self, slot: usize) -> Entry;

    /// Stores `new` at `slot` if `current` is still there. Returns whether it was.
    fn compare_exchange(&mut self, slot: usize, current: Entry, new: Entry) -> bool;
}

/// Carries out `step` on the entry at `slot`; returns what it became.
///
/// # Errors
/// [`Refused`] when the entry does not allow it; nothing changed then.
pub fn step(directory: &mut impl Directory, slot: usize, step: Step) -> Result<Entry, Refused> {
    loop {
        let current = directory.load(slot);
        let new = apply(current, step)?;
        if directory.compare_exchange(slot, current, new) {
            return Ok(new);
        }
    }
}

const SLOTS: usize = PAGES_PER_EXTENT as usize;

/// An extent's entries in memory of one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainDirectory {
    words: [Word; SLOTS],
    sharers: [Sharers; SLOTS],
}

impl PlainDirectory {
    /// Entries of words made by `word_of`, without sharers.
    #[must_use]
    pub fn new(word_of: impl FnMut(usize) -> Word) -> Self {
        Self { words: core::array::from_fn(word_of), sharers: [Sharers::default(); SLOTS] }
    }
}

impl Directory for PlainDirectory {
    fn load(&self, slot: usize) -> Entry {
        Entry { word: self.words[slot], sharers: self.sharers[slot] }
    }

    fn compare_exchange(&mut self, slot: usize, current: Entry, new: Entry) -> bool {
        let is_current = self.load(slot) == current;
        if is_current {
            self.words[slot] = new.word;
            self.sharers[slot] = new.sharers;
        }
        is_current
    }
}
