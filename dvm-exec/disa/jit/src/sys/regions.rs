//! Regions that were asked for in one run.
//!
//! Owns how they are found again. Must not know who asks, or what is in them.

use crate::limits::{RECENT_REGIONS, RECENT_REGIONS_MAX, WIDE_REGIONS_MAX};
use dvm_disa::engine::Processor;
use dvm_disa::map::{PAGE_BYTES, Range};
use dvm_disa::memory::{Access, Region};
use dvm_disa::pages::PageMap;
use std::ptr;

/// A region that was shown for a page.
#[derive(Clone, Copy, Debug)]
struct Known {
    page: u64,
    access: Access,
    region: Region,
}

/// Of no page.
const NOTHING: Known =
    Known { page: u64::MAX, access: Access::Load, region: Region { range: Range::new(0, 0), host: ptr::null_mut() } };

impl Known {
    fn serves(&self, range: Range, access: Access) -> bool {
        self.page == range.base / PAGE_BYTES
            && (self.access == Access::Store || access == Access::Load)
            && self.region.range.encloses(range)
    }
}

/// All regions of a page by page, the ones used lately where no search is needed, and the last ones of more than a page.
#[derive(Debug, Default)]
pub struct Regions {
    all: PageMap<Known>,
    /// What they are may be more the next time, so they are not kept by page.
    wide: Vec<Known>,
    /// Of those, the one to go next.
    oldest: usize,
    /// One place for all pages with the same number modulo the length, a power of two.
    recent: Vec<Known>,
    /// How often one of them had to make room for another page since there are so many places.
    replaced: usize,
}

impl Regions {
    /// Memory around `range` that may be accessed so; `None`: not directly.
    #[inline]
    pub fn find(&mut self, range: Range, access: Access, processor: &mut dyn Processor) -> Option<Region> {
        range.end()?;
        let is_in =
            |known: &&Known| known.region.range.encloses(range) && (known.access == Access::Store || access == Access::Load);
        if let Some(known) = self.wide.iter().find(is_in) {
            return Some(known.region);
        }
        let place = (range.base / PAGE_BYTES) as usize & self.recent.len().wrapping_sub(1);
        match self.recent.get(place) {
            Some(known) if known.serves(range, access) => Some(known.region),
            _ => self.search(range, access, processor),
        }
    }

    #[cold]
    fn search(&mut self, range: Range, access: Access, processor: &mut dyn Processor) -> Option<Region> {
        let page = range.base / PAGE_BYTES;
        let known = match self.all.get(&page) {
            Some(known) if known.serves(range, access) => *known,
            _ => {
                let region = processor.region(range, access).filter(|region| region.range.encloses(range))?;
                let known = Known { page, access, region };
                if region.range.bytes > PAGE_BYTES {
                    self.widen(known);
                    return Some(region);
                }
                self.all.insert(page, known);
                known
            }
        };
        // Few runners use many pages: room for more is made when it has been missed as often as there are places.
        if self.replaced >= self.recent.len() && self.recent.len() < RECENT_REGIONS_MAX {
            let more = (self.recent.len() * 4).max(RECENT_REGIONS);
            (self.recent, self.replaced) = (vec![NOTHING; more], 0);
        }
        let place = page as usize & (self.recent.len() - 1);
        self.replaced += usize::from(self.recent[place].page != NOTHING.page);
        self.recent[place] = known;
        Some(known.region)
    }

    /// Keeps a region of more than a page, instead of those that it encloses.
    fn widen(&mut self, known: Known) {
        let is_less = |other: &Known| known.region.range.encloses(other.region.range) && known.access == other.access;
        match self.wide.iter().position(is_less) {
            Some(place) => self.wide[place] = known,
            None if self.wide.len() < WIDE_REGIONS_MAX => self.wide.push(known),
            None => {
                self.wide[self.oldest] = known;
                self.oldest = (self.oldest + 1) % WIDE_REGIONS_MAX;
            }
        }
    }
}
