//! Where a space lies: the bounds every view, memfd and range shares.
//!
//! Owns the bounds and the check against them. Must not know what is inside.

use dsm_wire::{PAGE_BYTES, PageNumber, PageRange};

/// Lowest address of a space. Below it `vm.mmap_min_addr` (4096 or 65536) may forbid mappings, and a null pointer must fault.
pub const SPACE_FIRST_ADDRESS: u64 = 0x1_0000;

/// End of a space and size of its memfd (80 TiB): file offset equals address. The executor's own code lies above.
pub const SPACE_BYTES: u64 = 0x5000_0000_0000;

const FIRST_PAGE: u64 = SPACE_FIRST_ADDRESS / PAGE_BYTES as u64;
const END_PAGE: u64 = SPACE_BYTES / PAGE_BYTES as u64;

const _: () = assert!(SPACE_FIRST_ADDRESS.is_multiple_of(PAGE_BYTES as u64));
const _: () = assert!(SPACE_BYTES <= i64::MAX as u64, "file offsets are signed");

/// Every page of a space.
#[must_use]
pub const fn whole_space() -> PageRange {
    PageRange::new(PageNumber(FIRST_PAGE), END_PAGE - FIRST_PAGE)
}

/// Whether `range` is not empty and lies inside a space. Page numbers come from peers, so the sum may not overflow either.
pub(crate) const fn is_inside(range: PageRange) -> bool {
    match range.first.0.checked_add(range.count) {
        Some(end) => range.count > 0 && range.first.0 >= FIRST_PAGE && end <= END_PAGE,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        #[track_caller]
        fn check(first: u64, count: u64, inside: bool) {
            assert_eq!(is_inside(PageRange::new(PageNumber(first), count)), inside, "{first:#x}+{count:#x}");
        }
        check(16, 1, true);
        check(15, 1, false);
        check(0, 17, false);
        check(16, 0, false);
        check(END_PAGE - 1, 1, true);
        check(END_PAGE - 1, 2, false);
        check(END_PAGE, 1, false);
        check(u64::MAX, 2, false);
        assert!(is_inside(whole_space()));
    }
}
