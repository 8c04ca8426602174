//! Pages whose bytes are in a file until they are first used.
//!
//! Owns when a source is read, and how what was read gets to its page. Must not know why a page has a source.

use super::{Pager, check_inside, page_of};
use crate::error::PagerError;
use crate::limits::INSTALL_PAGES_MAX;
use crate::ranged::{Step, Walk};
use dsm_wire::{PAGE_BYTES, PageRange};
use std::os::fd::OwnedFd;

impl Pager {
    /// From now on a hole of `range` that the protocol believes here has the bytes of `file` from `offset` on, zeros after its
    /// end. It is read when the page is first mapped, read or taken.
    ///
    /// # Errors
    /// [`PagerError::NoSource`].
    pub fn add_source(&mut self, range: PageRange, file: OwnedFd, offset: u64) -> Result<(), PagerError> {
        check_inside(range)?;
        self.sources.add(range, file, offset)
    }

    /// Holes of `range` are pages of zeros again.
    pub fn remove_source(&mut self, range: PageRange) {
        self.sources.remove(range);
    }

    /// Maps the holes of `range`, up to its first page without a source, with the bytes of their sources, and wakes who waits.
    ///
    /// # Errors
    /// [`PagerError::SourceRead`], or any refusal of the kernel.
    pub fn read_source(&mut self, range: PageRange) -> Result<(), PagerError> {
        check_inside(range)?;
        let mut page = range.first;
        while page < range.end() {
            let Some(end) = self.sources.end_of(page) else { return Ok(()) };
            if self.backing.is_present(page)? {
                page = page.offset(1);
                continue;
            }
            let count = (end.min(range.end()).0 - page.0).min(INSTALL_PAGES_MAX as u64);
            self.map_source(PageRange::new(page, count))?;
            page = page.offset(count);
        }
        Ok(())
    }

    /// Gives the holes of `range` that have a source their bytes.
    pub(super) fn load(&mut self, range: PageRange) -> Result<(), PagerError> {
        for page in range.pages() {
            if self.sources.end_of(page).is_none() || self.backing.is_present(page)? {
                continue;
            }
            let count = self.census.begin();
            self.sources.read(page, &mut self.staging[..PAGE_BYTES])?;
            self.backing.write(page, page_of(&self.staging, 0))?;
            self.census.add(count, 1);
            self.stats.source_pages += 1;
        }
        Ok(())
    }

    /// Maps the holes of `range`, all of one source, with its bytes.
    fn map_source(&mut self, range: PageRange) -> Result<(), PagerError> {
        let Some(uffd) = &self.uffd else { return Ok(()) };
        let count = self.census.begin();
        let bytes = &mut self.staging[..range.count as usize * PAGE_BYTES];
        self.sources.read(range.first, bytes)?;
        self.stats.source_pages += range.count;
        let mut irregular = 0;
        let mut walk = Walk::new("UFFDIO_COPY", range);
        while let Some(part) = walk.part() {
            let at = (part.first.0 - range.first.0) as usize * PAGE_BYTES;
            let result = uffd.copy(part.first, &bytes[at..at + part.count as usize * PAGE_BYTES], false);
            match walk.advance(result)? {
                Step::Go => {}
                Step::Present(_) => irregular += 1,
                Step::Unmapped(page) => {
                    irregular += 1;
                    self.backing.write(page, page_of(bytes, page.0 - range.first.0))?;
                }
            }
        }
        if irregular == 0 {
            self.census.add(count, range.count);
        }
        Ok(())
    }
}
