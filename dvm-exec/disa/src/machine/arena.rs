//! What `sys 5` gives out: whole pages of shared memory.
//!
//! Owns which of them are given out. Must not know their contents, which are as they were left.

use crate::map::{self, PAGE_BYTES, Range};
use std::collections::BTreeMap;

/// Memory that a runner may allocate, wherever its pages are counted.
pub trait Pool {
    /// Reserves at least `bytes` bytes; `None`: there is no room.
    fn take(&mut self, bytes: u64) -> Option<Range>;

    /// Makes a range that was taken free again.
    fn give_back(&mut self, range: Range);

    /// Whether committed memory begins there.
    fn has(&self, base: u64) -> bool;
}

impl Pool for &mut Arena {
    fn take(&mut self, bytes: u64) -> Option<Range> {
        Arena::take(self, bytes)
    }

    fn give_back(&mut self, range: Range) {
        Arena::give_back(self, range);
    }

    fn has(&self, base: u64) -> bool {
        Arena::has(self, base)
    }
}

/// The pages.
#[derive(Debug)]
pub struct Arena {
    /// The part of memory that is given out here.
    part: Range,
    /// Bytes ever given out.
    used: u64,
    free: BTreeMap<u64, u64>,
    live: BTreeMap<u64, u64>,
}

impl Default for Arena {
    fn default() -> Self {
        Self::of(map::ARENA)
    }
}

impl Arena {
    /// One that gives out this part.
    #[must_use]
    pub const fn of(part: Range) -> Self {
        Self { part, used: 0, free: BTreeMap::new(), live: BTreeMap::new() }
    }

    /// Whether a range is of the part that is given out here.
    #[must_use]
    pub const fn owns(&self, range: Range) -> bool {
        self.part.encloses(range)
    }

    /// Reserves at least `bytes` bytes; `None`: there is no room.
    pub fn take(&mut self, bytes: u64) -> Option<Range> {
        let bytes = bytes.checked_next_multiple_of(PAGE_BYTES).filter(|bytes| *bytes <= self.part.bytes)?;
        if let Some((base, room)) = self.free.iter().find(|(_, room)| **room >= bytes).map(|(base, room)| (*base, *room)) {
            self.free.remove(&base);
            if room > bytes {
                self.free.insert(base + bytes, room - bytes);
            }
            return Some(Range::new(base, bytes));
        }
        let range = Range::new(self.part.base + self.used, bytes);
        let fits = self.part.encloses(range);
        fits.then(|| {
            self.used += bytes;
            range
        })
    }

    /// Takes a reserved range back.
    pub fn give_back(&mut self, range: Range) {
        let mut range = range;
        if let Some(bytes) = self.free.remove(&(range.base + range.bytes)) {
            range.bytes += bytes;
        }
        match self.free.range_mut(..range.base).next_back() {
            Some((base, bytes)) if *base + *bytes == range.base => *bytes += range.bytes,
            _ => {
                self.free.insert(range.base, range.bytes);
            }
        }
    }

    /// The runner that reserved it has committed.
    pub fn keep(&mut self, range: Range) {
        self.live.insert(range.base, range.bytes);
    }

    /// Whether a committed range begins here.
    #[must_use]
    pub fn has(&self, base: u64) -> bool {
        self.live.contains_key(&base)
    }

    /// A runner that will commit gives it back: nobody else can.
    pub fn retire(&mut self, base: u64) -> Option<Range> {
        self.live.remove(&base).map(|bytes| Range::new(base, bytes))
    }
}
