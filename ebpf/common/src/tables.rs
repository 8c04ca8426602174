//! How the programs reach what they share with the agent: one word at a time.
//!
//! Owns the trait and the view of one extent's directory through it. Must not know what the words mean.

use crate::directory::{Directory, SLOTS};
use crate::layout::Map;
use crate::word::{Sharers, Word};

/// One word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Array.
    pub map: Map,
    /// Record.
    pub record: u32,
    /// Word of the record.
    pub word: usize,
}

/// A cell, shorter.
#[must_use]
pub const fn cell(map: Map, record: u32, word: usize) -> Cell {
    Cell { map, record, word }
}

/// The maps. `None` is an index out of bounds, or that the caller is to give up: whoever gets it passes the frame up.
pub trait Tables {
    /// Endpoint that listens on `port`.
    fn endpoint(&self, port: u16) -> Option<u32>;

    /// Value of `key` in the map `extents`.
    fn extent(&self, key: u64) -> Option<u64>;

    /// The word, ordered before everything after it.
    fn load(&self, cell: Cell) -> Option<u64>;

    /// Stores `new` if `current` is still there; says whether it was. A full barrier.
    fn exchange(&self, cell: Cell, current: u64, new: u64) -> Option<bool>;

    /// Adds `amount`; gives what was there before.
    fn add(&self, cell: Cell, amount: u64) -> Option<u64>;

    /// Nanoseconds of CLOCK_MONOTONIC.
    fn now(&self) -> u64;

    /// Where the frame came from, as in [`PEER_LINK`](crate::layout::PEER_LINK); 0 if that is not known.
    fn link(&self) -> u64;
}

/// One extent's directory in the tables. Where the tables give up, words read busy and exchanges fail.
pub struct DirectoryIn<'a, T> {
    tables: &'a T,
    record: u32,
}

impl<'a, T: Tables> DirectoryIn<'a, T> {
    /// The directory in `record`.
    pub const fn new(tables: &'a T, record: u32) -> Self {
        Self { tables, record }
    }

    const fn at(&self, word: usize) -> Cell {
        cell(Map::Directory, self.record, word)
    }
}

impl<T: Tables> Directory for DirectoryIn<'_, T> {
    #[inline(always)]
    fn word(&self, slot: usize) -> Word {
        self.tables.load(self.at(slot)).map_or(Word::BUSY, Word)
    }

    #[inline(always)]
    fn sharers(&self, slot: usize) -> Sharers {
        Sharers(self.tables.load(self.at(SLOTS + slot)).unwrap_or(0))
    }

    #[inline(always)]
    fn exchange_word(&self, slot: usize, current: Word, new: Word) -> bool {
        self.tables.exchange(self.at(slot), current.0, new.0).unwrap_or(false)
    }

    #[inline(always)]
    fn exchange_sharers(&self, slot: usize, current: Sharers, new: Sharers) -> bool {
        self.tables.exchange(self.at(SLOTS + slot), current.0, new.0).unwrap_or(false)
    }
}
