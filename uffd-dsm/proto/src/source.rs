//! Sourced pages: their first content is not zero but what the driver has for them, such as the bytes of a file.
//!
//! Owns which pages these are, and that a fresh one belongs to its home. Must not know where the content comes from.
//!
//! Only rooted extents have them, whose home is the first member for ever: it counts as the last writer of every sourced page
//! that nobody else has touched. So a sourced page is never Fresh there, and never granted without bytes.

use crate::extent::{Extent, Form, Local, LocalState, PageSet};
use crate::face::Nanos;
use crate::node::{Node, whole_extent};
use crate::plant::{Plant, is};
use alloc::collections::BTreeMap;
use dsm_fast::{State, Step};
use dsm_wire::{ExtentNumber, NodeId, PAGES_PER_EXTENT, PageNumber, PageRange};

/// Disjoint runs of pages: first page, end.
#[derive(Debug, Default)]
pub struct Sources {
    runs: BTreeMap<PageNumber, PageNumber>,
}

impl Sources {
    /// Adds pages that are not in it.
    pub fn insert(&mut self, range: PageRange) {
        self.remove(range);
        self.runs.insert(range.first, range.end());
    }

    pub fn remove(&mut self, range: PageRange) {
        while let Some((&first, &end)) = self.runs.range(..range.end()).next_back() {
            if end <= range.first {
                return;
            }
            self.runs.remove(&first);
            if end > range.end() {
                self.runs.insert(range.end(), end);
            }
            if first < range.first {
                self.runs.insert(first, range.first);
            }
        }
    }

    pub fn contains(&self, page: PageNumber) -> bool {
        self.runs.range(..=page).next_back().is_some_and(|(_, end)| page < *end)
    }

    /// The parts of `range` in it, the last one first.
    pub fn within(&self, range: PageRange) -> impl Iterator<Item = PageRange> + '_ {
        let from_last = self.runs.range(..range.end()).rev().take_while(move |(_, end)| **end > range.first);
        from_last.map(move |(first, end)| {
            let (first, end) = ((*first).max(range.first), (*end).min(range.end()));
            PageRange::new(first, end.0 - first.0)
        })
    }

    /// Those of an extent's pages that lie in `range`.
    pub fn add_to(&self, pages: &mut PageSet, range: PageRange) {
        for run in self.within(range) {
            pages.insert_run(run.first.index_in_extent(), run.count as usize);
        }
    }
}

impl Node {
    /// From now on the pages of `range` have the driver's content, until [`Node::handle_unsource`]: also after a discard. They lie in
    /// rooted extents, and this node is the first member. Returns false, and does nothing, if that is not so, or if one of them
    /// is in use: it must be discarded first.
    pub fn handle_source(&mut self, now: Nanos, range: PageRange) -> bool {
        self.now = now;
        let last = PageNumber(range.end().0.saturating_sub(1));
        let is_mine = self.members.first() == Some(&self.me) && self.is_rooted(range.first.extent());
        let is_sane = range.count > 0 && crate::node::is_in_space(last) && is_mine;
        let is_free = || {
            let known = self.extents.range(range.first.extent()..=last.extent());
            known.into_iter().all(|(number, extent)| self.is_unused(*number, extent, range))
        };
        if !is_sane || !is_free() {
            return false;
        }
        self.sources.insert(range);
        let numbers: alloc::vec::Vec<_> =
            self.extents.range(range.first.extent()..=last.extent()).map(|(number, _)| *number).collect();
        for number in numbers {
            self.claim(number, range);
        }
        self.run();
        true
    }

    /// The pages of `range` read zero again, once they are discarded.
    pub fn handle_unsource(&mut self, now: Nanos, range: PageRange) {
        self.now = now;
        self.sources.remove(range);
    }

    /// Whether the home of `extent` is the first member, whoever touches it first.
    pub(crate) fn is_rooted(&self, extent: ExtentNumber) -> bool {
        extent >= self.rooted_from
    }

    /// The home of `extent`, if it needs not be searched for.
    pub(crate) fn rooted_home(&self, extent: ExtentNumber) -> Option<NodeId> {
        self.members.first().copied().filter(|_| self.is_rooted(extent))
    }

    /// A sourced page was forgotten just now: its home has it again. Nothing is in flight on it here.
    pub(crate) fn regain(&mut self, page: PageNumber) {
        if !self.sources.contains(page) || is(Plant::SourceNotRegained) {
            return;
        }
        let Some(era) = self.lock_fresh(page) else { return };
        self.change(page, Step::Granted(self.me));
        self.set_local(page, Local { state: LocalState::Modified, era });
        // What a thread here has asked for, the home has by now.
        self.forget_ask(page);
    }

    /// Whether nobody has or wants any page of `range` in an extent homed here.
    fn is_unused(&self, number: ExtentNumber, extent: &Extent, range: PageRange) -> bool {
        let here = part_of(range, number);
        let is_at_rest = self.operations.overlapping(here).is_none()
            && self.transients.range(here.first..here.end()).all(|(_, transient)| transient.is_idle());
        is_at_rest
            && match &extent.form {
                Form::Unknown => true,
                Form::Whole(whole) => {
                    let (first, count) = (here.first.index_in_extent(), here.count as usize);
                    whole.present.span_within(first, count).is_none()
                }
                Form::Split(..) => here.pages().all(|page| {
                    let word = self.entry(page).word;
                    word.state() == State::Fresh && !word.is_busy() && self.local(page).state == LocalState::Invalid
                }),
                Form::Remote(..) | Form::Lost => false,
            }
    }

    fn claim(&mut self, number: ExtentNumber, range: PageRange) {
        let here = part_of(range, number);
        match self.extents.get_mut(&number).map(|extent| &mut extent.form) {
            Some(Form::Whole(whole)) => whole.present.insert_run(here.first.index_in_extent(), here.count as usize),
            Some(Form::Split(..)) => here.pages().for_each(|page| self.regain(page)),
            Some(Form::Unknown | Form::Remote(..) | Form::Lost) | None => {}
        }
    }
}

/// The pages of `range` in extent `number`, which it touches.
fn part_of(range: PageRange, number: ExtentNumber) -> PageRange {
    let whole = whole_extent(number);
    let first = range.first.max(whole.first);
    let end = range.end().min(PageNumber(whole.first.0 + PAGES_PER_EXTENT));
    PageRange::new(first, end.0.saturating_sub(first.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn pages(first: u64, count: u64) -> PageRange {
        PageRange::new(PageNumber(first), count)
    }

    #[test]
    fn runs_are_cut_and_found() {
        let mut sources = Sources::default();
        sources.insert(pages(10, 30));
        sources.insert(pages(100, 5));
        sources.remove(pages(15, 5));
        let found = |sources: &Sources, range| sources.within(range).collect::<Vec<_>>();
        assert_eq!(found(&sources, pages(0, 200)), [pages(100, 5), pages(20, 20), pages(10, 5)]);
        assert_eq!(found(&sources, pages(12, 10)), [pages(20, 2), pages(12, 3)]);
        assert!(sources.contains(PageNumber(14)) && !sources.contains(PageNumber(15)) && !sources.contains(PageNumber(105)));
        sources.remove(pages(0, 1000));
        assert_eq!(found(&sources, pages(0, 200)), []);
    }
}
