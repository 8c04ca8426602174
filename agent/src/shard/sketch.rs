//! Which threads of this host fetch which pages from other hosts.
//!
//! Owns the table of pages and its maximum: what is fetched seldom is forgotten first. Must not know whose threads they are,
//! nor what follows.

use dsm_wire::{Line, PageNumber};
use dvm_api::local::{PageUse, ThreadUse};
use std::collections::BTreeMap;

/// Pages counted at a time.
const PAGES_MAX: usize = 4096;
/// What is left of them when the seldom ones go.
const PAGES_KEPT: usize = PAGES_MAX / 2;
/// Threads counted apart on one page.
const THREADS_MAX: usize = 8;
/// Faults that wait for their page at a time.
const PENDING_MAX: usize = 512;
/// Pages told of each kind: those fetched most in all, and since the last report.
const TOLD_MAX: usize = 64;

const _: () = assert!(TOLD_MAX < PAGES_KEPT && PAGES_KEPT < PAGES_MAX);

#[derive(Clone, Copy, Debug)]
struct Pending {
    page: PageNumber,
    thread: u32,
    line: Line,
    is_write: bool,
}

#[derive(Debug, Default)]
struct Entry {
    count: u64,
    /// `count` at the last report.
    told: u64,
    threads: Vec<ThreadUse>,
}

/// The counts of one shard.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    is_on: bool,
    pending: Vec<Pending>,
    pages: BTreeMap<PageNumber, Entry>,
}

impl Sketch {
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on, pending: Vec::new(), pages: BTreeMap::new() }
    }

    /// A thread stopped at a page; whether another host has it is not known yet.
    pub(super) fn note_fault(&mut self, page: PageNumber, thread: u32, line: Line, is_write: bool) {
        if !self.is_on {
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            // Faults that ended without a word of the protocol, such as those of pages mapped meanwhile.
            self.pending.clear();
        }
        self.pending.push(Pending { page, thread, line, is_write });
    }

    /// The page is there; its faults count if it came from another host.
    pub(super) fn note_resolved(&mut self, page: PageNumber, is_remote: bool) {
        if !self.is_on {
            return;
        }
        let mut at = 0;
        while let Some(fault) = self.pending.get(at).copied() {
            if fault.page != page {
                at += 1;
                continue;
            }
            self.pending.swap_remove(at);
            if is_remote {
                self.count(fault);
            }
        }
    }

    fn count(&mut self, fault: Pending) {
        if self.pages.len() >= PAGES_MAX && !self.pages.contains_key(&fault.page) {
            self.forget_seldom();
        }
        let entry = self.pages.entry(fault.page).or_default();
        entry.count += 1;
        let at = match entry.threads.iter().position(|found| found.thread == fault.thread) {
            Some(at) => at,
            None => {
                if entry.threads.len() >= THREADS_MAX {
                    let least = (0..entry.threads.len()).min_by_key(|at| entry.threads[*at].count());
                    least.map(|at| entry.threads.swap_remove(at));
                }
                entry.threads.push(ThreadUse { thread: fault.thread, ..ThreadUse::default() });
                entry.threads.len() - 1
            }
        };
        let used = &mut entry.threads[at];
        if fault.is_write {
            used.writes = used.writes.saturating_add(1);
        } else {
            used.reads = used.reads.saturating_add(1);
        }
        used.lines |= 1 << (fault.line.0 & 63);
    }

    fn forget_seldom(&mut self) {
        let mut counts: Vec<u64> = self.pages.values().map(|entry| entry.count).collect();
        let (_, median, _) = counts.select_nth_unstable(PAGES_MAX - PAGES_KEPT);
        let least = *median;
        let mut room = PAGES_KEPT - counts.iter().filter(|count| **count > least).count();
        self.pages.retain(|_, entry| {
            let stays = entry.count > least || (entry.count == least && room > 0);
            room -= usize::from(stays && entry.count == least);
            stays
        });
    }

    /// The pages fetched most, in all and since the last report.
    pub(super) fn report(&mut self) -> Vec<PageUse> {
        let mut order: Vec<PageNumber> = self.pages.keys().copied().collect();
        order.sort_by_key(|page| std::cmp::Reverse(self.pages[page].count));
        let mut chosen: Vec<PageNumber> = order.iter().take(TOLD_MAX).copied().collect();
        let mut recent = order.split_off(chosen.len());
        recent.sort_by_key(|page| std::cmp::Reverse(self.pages[page].count - self.pages[page].told));
        chosen.extend(recent.into_iter().take(TOLD_MAX));
        let told = chosen.iter().map(|page| PageUse { page: page.0, threads: self.pages[page].threads.clone() }).collect();
        for entry in self.pages.values_mut() {
            entry.told = entry.count;
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(sketch: &mut Sketch, page: u64, thread: u32, line: u8, is_write: bool) {
        sketch.note_fault(PageNumber(page), thread, Line(line), is_write);
        sketch.note_resolved(PageNumber(page), true);
    }

    #[test]
    fn counts_what_came_from_others() {
        let mut sketch = Sketch::new(true);
        fetch(&mut sketch, 7, 1, 3, true);
        fetch(&mut sketch, 7, 1, 4, false);
        fetch(&mut sketch, 7, 2, 0, true);
        sketch.note_fault(PageNumber(8), 1, Line(0), true);
        sketch.note_resolved(PageNumber(8), false);
        let one = ThreadUse { thread: 1, reads: 1, writes: 1, lines: 0b11000 };
        let two = ThreadUse { thread: 2, reads: 0, writes: 1, lines: 1 };
        assert_eq!(sketch.report(), [PageUse { page: 7, threads: vec![one, two] }]);
        assert!(sketch.pending.is_empty());
    }

    #[test]
    fn silent_unless_asked_for() {
        let mut sketch = Sketch::default();
        fetch(&mut sketch, 7, 1, 3, true);
        assert!(sketch.report().is_empty() && sketch.pending.is_empty());
    }

    #[test]
    fn frequent_pages_stay() {
        let mut sketch = Sketch::new(true);
        for round in 0..5 * PAGES_MAX as u64 {
            fetch(&mut sketch, 1_000_000 + round, 1, 0, false);
            fetch(&mut sketch, round % 3, (round % 20) as u32, 0, true);
            assert!(sketch.pages.len() <= PAGES_MAX && sketch.pending.len() <= PENDING_MAX);
        }
        let told = sketch.report();
        assert_eq!(told.len(), 2 * TOLD_MAX);
        assert!([0, 1, 2].iter().all(|page| told[..3].iter().any(|found| found.page == *page)));
        assert!(told.iter().all(|page| page.threads.len() <= THREADS_MAX));
    }

    #[test]
    fn what_is_new_is_told_beside_what_was_much() {
        let mut sketch = Sketch::new(true);
        for page in 0..2 * TOLD_MAX as u64 {
            (0..9).for_each(|_| fetch(&mut sketch, page, 1, 0, true));
        }
        sketch.report();
        fetch(&mut sketch, 5000, 2, 0, true);
        assert!(sketch.report().iter().any(|found| found.page == 5000));
    }
}
