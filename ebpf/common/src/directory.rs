//! Where entries are kept, and how one is exchanged for the next while others do the same.
//!
//! Owns the order in which the two words of an entry change. Must not know what a step means.
//!
//! The agent and the kernel programs change entries at the same time, each word by compare-exchange. What keeps them from missing
//! each other:
//!
//! * A step at rest only adds sharers: they are written first, then the word is exchanged (if only for itself): had a
//!   transaction begun meanwhile, the word is busy and the step has not happened. A sharer too many may stay: it is only told to
//!   drop what it does not have.
//! * A transaction makes the word busy first and reads the sharers then: whoever was entered before is among them.
//! * Sharers are taken out only while the word is busy and its era ends, or one by one when a node is dead.

use crate::word::{Entry, Refused, Sharers, Step, Word, apply};
use dsm_wire::PAGES_PER_EXTENT;

/// Entries of an extent.
pub const SLOTS: usize = PAGES_PER_EXTENT as usize;
/// Words that hold them: first the words of all, then the sharers of all.
pub const DIRECTORY_WORDS: usize = SLOTS * 2;

/// The entries of one extent, as anybody who shares them sees them.
pub trait Directory {
    /// The word at `slot`, 0 to 511.
    fn word(&self, slot: usize) -> Word;

    /// The sharers at `slot`.
    fn sharers(&self, slot: usize) -> Sharers;

    /// Stores `new` in the word at `slot` if `current` is still there; says whether it was.
    fn exchange_word(&self, slot: usize, current: Word, new: Word) -> bool;

    /// The same for the sharers.
    fn exchange_sharers(&self, slot: usize, current: Sharers, new: Sharers) -> bool;
}

/// The entry at `slot`: its word first, so that no sharer of a busy word is missed.
#[inline(always)]
pub fn load(directory: &(impl Directory + ?Sized), slot: usize) -> Entry {
    let word = directory.word(slot);
    Entry { word, sharers: directory.sharers(slot) }
}

/// Carries out `step` on the entry at `slot`; returns what it became.
///
/// # Errors
/// [`Refused`] when the entry does not allow it; nothing but sharers too many changed then.
pub fn step(directory: &(impl Directory + ?Sized), slot: usize, step: Step) -> Result<Entry, Refused> {
    loop {
        let current = load(directory, slot);
        if let Some(new) = try_step(directory, slot, current, step)? {
            return Ok(new);
        }
    }
}

/// Carries out `step` on the entry at `slot` if it is still `current`; `None` if it is not, and the step has not happened.
///
/// # Errors
/// [`Refused`] when `current` does not allow it.
#[inline(always)]
pub fn try_step(
    directory: &(impl Directory + ?Sized),
    slot: usize,
    current: Entry,
    step: Step,
) -> Result<Option<Entry>, Refused> {
    let new = apply(current, step)?;
    let is_done = (new.sharers == current.sharers || directory.exchange_sharers(slot, current.sharers, new.sharers))
        && directory.exchange_word(slot, current.word, new.word);
    Ok(is_done.then_some(new))
}

#[cfg(target_has_atomic = "64")]
mod shared {
    use super::{DIRECTORY_WORDS, Directory, SLOTS, Sharers, Word};
    use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

    impl Directory for [AtomicU64; DIRECTORY_WORDS] {
        fn word(&self, slot: usize) -> Word {
            Word(self[slot].load(SeqCst))
        }

        fn sharers(&self, slot: usize) -> Sharers {
            Sharers(self[SLOTS + slot].load(SeqCst))
        }

        fn exchange_word(&self, slot: usize, current: Word, new: Word) -> bool {
            self[slot].compare_exchange(current.0, new.0, SeqCst, SeqCst).is_ok()
        }

        fn exchange_sharers(&self, slot: usize, current: Sharers, new: Sharers) -> bool {
            self[SLOTS + slot].compare_exchange(current.0, new.0, SeqCst, SeqCst).is_ok()
        }
    }
}
