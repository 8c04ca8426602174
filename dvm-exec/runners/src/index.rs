//! Which version of a page a snapshot shows, and the versions kept here.
//!
//! Owns the times of all changes since the oldest snapshot, and copies of pages. Must not ask anybody for a page.

use crate::limits::CACHED_PAGES_MAX;
use crate::message::Told;
use crate::program::Program;
use dvm_disa::machine::page::Page;
use dvm_disa::machine::store::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// The first version of every page: as the program has it.
const BASE: Timestamp = Timestamp(0);

/// Times and copies.
#[derive(Debug, Default)]
pub struct Index {
    changes: BTreeMap<u64, Vec<Timestamp>>,
    order: VecDeque<(Timestamp, u64)>,
    copies: BTreeMap<(u64, Timestamp), Page>,
    arrived: VecDeque<(u64, Timestamp)>,
}

impl Index {
    /// The time of the version that a snapshot shows.
    #[must_use]
    pub fn version(&self, page: u64, epoch: Timestamp) -> Timestamp {
        let changes = self.changes.get(&page).map_or(&[][..], Vec::as_slice);
        changes[..changes.partition_point(|at| *at <= epoch)].last().copied().unwrap_or(BASE)
    }

    /// A copy of a version, if there is one.
    #[must_use]
    pub fn copy(&self, program: &Program, page: u64, at: Timestamp) -> Option<Page> {
        if at == BASE { Some(program.page(page)) } else { self.copies.get(&(page, at)).cloned() }
    }

    /// Pages of a range that were changed, and when a snapshot shows them.
    pub fn changed(&self, pages: Range<u64>, epoch: Timestamp) -> impl Iterator<Item = (u64, Timestamp)> {
        self.changes.range(pages).map(move |(page, _)| (*page, self.version(*page, epoch))).filter(|(_, at)| *at > BASE)
    }

    /// The pages around one within a range that no commit has changed.
    #[must_use]
    pub fn unchanged(&self, within: &Range<u64>, page: u64) -> Range<u64> {
        let before = self.changes.range(within.start..page).next_back().map_or(within.start, |(changed, _)| changed + 1);
        let behind = self.changes.range(page..within.end).next().map_or(within.end, |(changed, _)| *changed);
        before..behind.max(before)
    }

    /// A commit changed a page. A copy of the version before becomes one of this, if the words are known and `keeps`.
    pub fn change(&mut self, program: &Program, at: Timestamp, told: &Told, keeps: bool) {
        let page = match told {
            Told::Page(page) => *page,
            Told::Words(delta) => delta.page,
        };
        let changes = self.changes.entry(page).or_default();
        let before = changes.last().copied().unwrap_or(BASE);
        changes.push(at);
        self.order.push_back((at, page));
        if let (true, Told::Words(delta)) = (keeps, told)
            && let Some(mut copy) = self.copy(program, page, before)
        {
            delta.apply(&mut copy);
            self.insert(page, at, copy);
        }
    }

    /// A copy of a version.
    pub fn insert(&mut self, page: u64, at: Timestamp, copy: Page) {
        if self.copies.insert((page, at), copy).is_none() {
            self.arrived.push_back((page, at));
        }
        while self.copies.len() > CACHED_PAGES_MAX {
            let Some(first) = self.arrived.pop_front() else { break };
            self.copies.remove(&first);
        }
        // What was forgotten leaves its name behind: not for ever.
        if self.arrived.len() > 2 * CACHED_PAGES_MAX {
            self.arrived.retain(|key| self.copies.contains_key(key));
        }
    }

    /// Nobody has a snapshot older than `oldest`.
    pub fn forget(&mut self, oldest: Timestamp) {
        while let Some((_, page)) = self.order.pop_front_if(|(at, _)| *at <= oldest) {
            let Some(changes) = self.changes.get_mut(&page) else { continue };
            let needed = changes.partition_point(|at| *at <= oldest).saturating_sub(1);
            for at in changes.drain(..needed) {
                self.copies.remove(&(page, at));
            }
        }
    }
}
