//! The judge: what no run may show.
//!
//! Owns the truth (the last write of each page) and the verdicts. Must not ask a node what it believes.

use super::pager::{Pager, Rights, Stamp};
use dsm_wire::{PageNumber, PageRange};
use std::collections::BTreeMap;

/// The order of writes, page by page, and the names for new ones.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    last: BTreeMap<PageNumber, Stamp>,
    sources: BTreeMap<PageNumber, Stamp>,
    stamp_last: Stamp,
}

impl Truth {
    /// A stamp for a write that may come now.
    #[must_use]
    pub const fn next_stamp(&self) -> Stamp {
        self.stamp_last + 1
    }

    /// A write of [`Truth::next_stamp`] happened over `old`.
    ///
    /// # Errors
    /// If `old` was not the last write.
    pub fn on_write(&mut self, page: PageNumber, old: Stamp) -> Result<(), String> {
        self.on_read(page, old)?;
        self.stamp_last += 1;
        self.last.insert(page, self.stamp_last);
        Ok(())
    }

    /// A read returned `stamp`.
    ///
    /// # Errors
    /// If that was not the last write.
    pub fn on_read(&self, page: PageNumber, stamp: Stamp) -> Result<(), String> {
        let last = self.last.get(&page).or(self.sources.get(&page)).copied().unwrap_or(0);
        if stamp == last { Ok(()) } else { Err(format!("page {page} shows write {stamp}, the last one is {last}")) }
    }

    /// The pages of `range`, which nobody has, hold this at first from now on; or zero.
    pub fn set_source(&mut self, range: PageRange, stamp_of: Option<fn(PageNumber) -> Stamp>) {
        self.sources.retain(|page, _| !range.contains(*page));
        if let Some(stamp_of) = stamp_of {
            self.sources.extend(range.pages().map(|page| (page, stamp_of(page))));
        }
    }

    /// The pages of `range` hold what they hold at first from now on.
    pub fn on_discarded(&mut self, range: PageRange) {
        self.last.retain(|page, _| !range.contains(*page));
    }
}

/// One writer, or many readers.
///
/// # Errors
/// If two hosts have the page and one of them may write it.
pub fn check_single_writer<'a>(page: PageNumber, pagers: impl Iterator<Item = (usize, &'a Pager)>) -> Result<(), String> {
    let holders: Vec<(usize, Rights)> = pagers
        .filter_map(|(host, pager)| pager.mapping(page).map(|mapping| (host, mapping.rights)))
        .filter(|(_, rights)| *rights != Rights::Poison)
        .collect();
    let has_writer = holders.iter().any(|(_, rights)| *rights == Rights::Write);
    if has_writer && holders.len() > 1 { Err(format!("page {page} has a writer and others: {holders:?}")) } else { Ok(()) }
}
