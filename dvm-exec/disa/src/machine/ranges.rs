//! Sets of addresses or pages, and what a runner was granted.
//!
//! Owns the two grains of a grant: whole pages for access, bytes for what may be stored. Must not know who grants.

use crate::map::{PAGE_BYTES, Range};
use std::collections::BTreeMap;

/// Disjoint ranges that do not touch each other, by base.
#[derive(Clone, Debug, Default)]
pub struct Set(BTreeMap<u64, u64>);

impl Set {
    /// Adds all from `base` to before `end`.
    pub fn insert(&mut self, mut base: u64, mut end: u64) {
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

    /// The range that has one, from its first to before its end.
    pub fn around(&self, at: u64) -> Option<(u64, u64)> {
        self.0.range(..=at).next_back().map(|(base, end)| (*base, *end)).filter(|(_, end)| at < *end)
    }

    /// Takes one out.
    pub fn remove(&mut self, at: u64) {
        let Some((base, end)) = self.around(at) else { return };
        self.0.remove(&base);
        for (base, end) in [(base, at), (at + 1, end)] {
            if base < end {
                self.0.insert(base, end);
            }
        }
    }

    /// All, range by range.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(base, end)| (*base, *end))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_together_and_are_split() {
        let mut set = Set::default();
        [(5, 6), (7, 8), (6, 7), (20, 21)].into_iter().for_each(|(base, end)| set.insert(base, end));
        assert_eq!((set.around(6), set.around(8), set.around(20)), (Some((5, 8)), None, Some((20, 21))));
        set.remove(6);
        set.remove(20);
        set.remove(30);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(5, 6), (7, 8)]);
    }
}
