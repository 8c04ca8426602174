//! Where new blocks go: first fit.
//!
//! Owns the choice of an address. Must not change the map.

use super::areas::Areas;
use super::{ARENA_GROWN_START, ARENA_LARGE_START, ARENA_SOURCED_START, ARENA_START, EXTENT_BYTES, PAGE_BYTES, SPACE_END};
use std::ops::Range;

/// What MAP_32BIT may choose from, as in the kernel.
const LOW_WINDOW: Range<u64> = 0x4000_0000..0x8000_0000;

/// What is wanted of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub bytes: u64,
    /// A power of two, at least a page.
    pub alignment: u64,
    /// MAP_32BIT.
    pub low: bool,
    /// Its extents are to be its own, whatever its size (thread stacks).
    pub own_extents: bool,
    /// Its pages are to have a file as their source.
    pub sourced: bool,
}

/// The lowest free place that suits; `reserved` is kept for the heap.
pub(super) fn first_fit(areas: &Areas, reserved: &Range<u64>, wish: Wish) -> Option<u64> {
    if wish.low {
        return search(areas, &(0..0), LOW_WINDOW, wish.bytes, wish.alignment);
    }
    if wish.sourced || wish.own_extents || wish.bytes >= EXTENT_BYTES {
        // What follows the block in its last extent stays free: two threads' blocks have no extent in common.
        let bytes = wish.bytes.checked_next_multiple_of(EXTENT_BYTES)?;
        let window = |range| search(areas, reserved, range, bytes, wish.alignment.max(EXTENT_BYTES));
        if wish.sourced {
            return window(ARENA_SOURCED_START..SPACE_END);
        }
        return window(ARENA_LARGE_START..ARENA_GROWN_START).or_else(|| window(ARENA_GROWN_START..ARENA_SOURCED_START));
    }
    let window = |range| search(areas, reserved, range, wish.bytes, wish.alignment);
    window(ARENA_START..ARENA_LARGE_START).or_else(|| window(ARENA_LARGE_START..ARENA_SOURCED_START))
}

fn search(areas: &Areas, reserved: &Range<u64>, window: Range<u64>, bytes: u64, alignment: u64) -> Option<u64> {
    assert!(alignment.is_power_of_two() && alignment >= PAGE_BYTES, "alignments are powers of two");
    let mut at = window.start.checked_next_multiple_of(alignment)?;
    loop {
        let end = at.checked_add(bytes)?;
        if end > window.end {
            return None;
        }
        // Whatever starts before `end` and ends after `at` is in the way of every place up to its own end.
        let blocked_to = match areas.last_in(&(at..end)) {
            Some(entry) => entry.area.range.end,
            None if at < reserved.end && end > reserved.start => reserved.end,
            None => return Some(at),
        };
        at = blocked_to.checked_next_multiple_of(alignment)?;
    }
}
