//! Memory for as long as the guest runs.
//!
//! Owns how much is given out. Nothing is given back.

use crate::{Page, boot};
use core::sync::atomic::{AtomicU64, Ordering};

static GIVEN: Page<AtomicU64> = Page(AtomicU64::new(0));

/// Address of `bytes` of memory that nobody else has, from a page's beginning on; none if there is not so much.
pub fn pages(bytes: u64) -> Option<u64> {
    let (first, end) = boot::free();
    let size = bytes.checked_next_multiple_of(4096)?;
    let room = end.checked_sub(first)?;
    let more = |given: u64| given.checked_add(size).filter(|sum| *sum <= room);
    GIVEN.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|given| first + given)
}
