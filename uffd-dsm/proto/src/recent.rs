//! A small table of what was seen of pages lately. Two pages may want the same slot: the later one has it.
//!
//! Owns the slots. Must not know what is remembered, nor be relied upon: anything may be forgotten at any time.

use alloc::vec::Vec;
use dsm_wire::PageNumber;

/// Fibonacci hashing: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A table of `1 << BITS` slots, each for one page.
#[derive(Debug)]
pub struct Recent<T, const BITS: u32> {
    slots: Vec<Option<(PageNumber, T)>>,
}

impl<T, const BITS: u32> Default for Recent<T, BITS> {
    fn default() -> Self {
        Self { slots: (0..1u64 << BITS).map(|_| None).collect() }
    }
}

impl<T: Default, const BITS: u32> Recent<T, BITS> {
    /// What is remembered of `page`.
    pub fn get_mut(&mut self, page: PageNumber) -> Option<&mut T> {
        self.slot(page).as_mut().filter(|(of, _)| *of == page).map(|(_, memory)| memory)
    }

    /// What is remembered of `page`, from now on if nothing was.
    pub fn entry(&mut self, page: PageNumber) -> &mut T {
        let slot = self.slot(page);
        if slot.as_ref().is_none_or(|(of, _)| *of != page) {
            *slot = None;
        }
        &mut slot.get_or_insert_with(|| (page, T::default())).1
    }

    /// Forgets `page`.
    pub fn forget(&mut self, page: PageNumber) {
        let slot = self.slot(page);
        if slot.as_ref().is_some_and(|(of, _)| *of == page) {
            *slot = None;
        }
    }

    /// Pages something is remembered of.
    pub fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    fn slot(&mut self, page: PageNumber) -> &mut Option<(PageNumber, T)> {
        let place = page.0.wrapping_mul(MULTIPLIER) >> (u64::BITS - BITS);
        &mut self.slots[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_pages_has_the_slot() {
        let mut recent = Recent::<u64, 1>::default();
        for number in 0..8 {
            *recent.entry(PageNumber(number)) = number;
            assert_eq!(recent.get_mut(PageNumber(number)).copied(), Some(number));
        }
        assert_eq!(recent.len(), 2);
        let kept: Vec<u64> = (0..8).filter(|number| recent.get_mut(PageNumber(*number)).is_some()).collect();
        assert_eq!(kept.len(), 2);
        recent.forget(PageNumber(8));
        recent.forget(PageNumber(kept[0]));
        assert_eq!(recent.get_mut(PageNumber(kept[0])), None);
        assert_eq!(recent.get_mut(PageNumber(kept[1])).copied(), Some(kept[1]));
    }
}
