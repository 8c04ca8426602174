//! A set of addresses: what a runner was granted.
//!
//! Owns the two grains of a grant: whole pages for access, bytes for what may be stored. Must not know who grants.

use crate::map::{PAGE_BYTES, Range};
use std::collections::BTreeMap;

/// Disjoint ranges that do not touch each other, by base.
#[derive(Clone, Debug, Default)]
struct Set(BTreeMap<u64, u64>);

impl Set {
    fn insert(&mut self, mut base: u64, mut end: u64) {
        if let Some((&before, &before_end)) = self.0.range(..=base).next_back()
            && before_end >= base
        {
            base = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.0.range(base..=end).next() {
            end = end.max(next_end);
            self.0.remove(&next);
        }
        self.0.insert(base, end);
    }

    fn contains(&self, at: u64) -> bool {
        self.encloses(at, at)
    }

    /// From `first` to `last`, both included.
    fn encloses(&self, first: u64, last: u64) -> bool {
        self.0.range(..=first).next_back().is_some_and(|(_, end)| last < *end)
    }
}

/// What one runner may use of shared memory.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    bytes: Set,
    pages: Set,
}

impl Grants {
    /// Adds a range.
    pub fn insert(&mut self, range: Range) {
        let Some(end) = range.end().filter(|_| range.bytes > 0) else { return };
        self.bytes.insert(range.base, end);
        self.pages.insert(range.base / PAGE_BYTES, end.div_ceil(PAGE_BYTES));
    }

    /// Whether a page may be accessed.
    #[must_use]
    pub fn has_page(&self, page: u64) -> bool {
        self.pages.contains(page)
    }

    /// Whether every byte of a page may be changed.
    #[must_use]
    pub fn has_all_of_page(&self, page: u64) -> bool {
        self.bytes.encloses(page * PAGE_BYTES, page * PAGE_BYTES + (PAGE_BYTES - 1))
    }

    /// Whether a byte may be changed.
    #[must_use]
    pub fn has_byte(&self, address: u64) -> bool {
        self.bytes.contains(address)
    }
}
