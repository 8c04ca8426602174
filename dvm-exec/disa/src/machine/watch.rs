//! Watchers: who waits for changes of which words, since when.
//!
//! Owns arming and firing. Must not know how instances run.
//!
//! ```text
//!   arm(baseline) -> changed since? fire : ARMED --change by another--> fire -> instance lives (changes are folded)
//!   instance ends -> gone, or arm(its snapshot)
//! ```

use super::runner::Runner;
use super::store::{Changes, Store, Timestamp, touches};
use crate::map::{PAGE_BYTES, Range};
use std::collections::{BTreeMap, BTreeSet};

/// A watcher with more pages than that is looked at with every commit.
const INDEXED_PAGES_MAX: u64 = 1024;

#[derive(Debug)]
struct Watcher {
    template: Runner,
    is_persistent: bool,
    is_live: bool,
    /// Its creator's own commit.
    birth: Timestamp,
}

/// All watchers.
#[derive(Debug, Default)]
pub struct Watchers {
    all: BTreeMap<u64, Watcher>,
    by_page: BTreeMap<u64, BTreeSet<u64>>,
    wide: BTreeSet<u64>,
}

impl Watchers {
    /// A watcher is born with the commit at `birth`; its creator had the snapshot `baseline`. Its first instance, if it
    /// fires at once.
    pub fn add(
        &mut self,
        template: Runner,
        is_persistent: bool,
        baseline: Timestamp,
        birth: Timestamp,
        store: &Store,
    ) -> Option<Runner> {
        let id = template.id;
        for page in pages(&template) {
            self.by_page.entry(page).or_default().insert(id);
        }
        if pages(&template).next().is_none() {
            self.wide.insert(id);
        }
        self.all.insert(id, Watcher { template, is_persistent, is_live: false, birth });
        self.arm(id, baseline, store)
    }

    /// An instance with the snapshot `baseline` has ended, and its watcher goes on: the next instance, if it fires at once.
    pub fn arm(&mut self, id: u64, baseline: Timestamp, store: &Store) -> Option<Runner> {
        let watcher = self.all.get_mut(&id)?;
        watcher.is_live = false;
        let has_change = store.has_change(&watcher.template.watched, baseline, id, watcher.birth);
        has_change.then(|| watcher.fire())
    }

    /// The instances that a commit fires. A live instance's own watcher is not among them: see [`Self::arm`].
    pub fn notify(&mut self, changes: &Changes) -> Vec<Runner> {
        let mut touched: BTreeSet<u64> = self.wide.clone();
        changes.keys().filter_map(|page| self.by_page.get(page)).for_each(|ids| touched.extend(ids));
        let mut fired = Vec::new();
        for id in touched {
            let Some(watcher) = self.all.get_mut(&id).filter(|watcher| !watcher.is_live) else { continue };
            let is_hit = |range: &Range| changes.iter().any(|(page, words)| touches(*range, *page, words));
            if watcher.template.watched.iter().any(is_hit) {
                fired.push(watcher.fire());
            }
        }
        fired
    }

    /// Whether the watcher goes on after a commit.
    #[must_use]
    pub fn is_persistent(&self, id: u64) -> bool {
        self.all.get(&id).is_some_and(|watcher| watcher.is_persistent)
    }

    /// Removes a watcher, if it is one.
    pub fn remove(&mut self, id: u64) {
        let Some(watcher) = self.all.remove(&id) else { return };
        self.wide.remove(&id);
        for page in pages(&watcher.template) {
            if let Some(ids) = self.by_page.get_mut(&page) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_page.remove(&page);
                }
            }
        }
    }

    /// Those that wait.
    pub fn armed(&self) -> impl Iterator<Item = u64> {
        self.all.iter().filter(|(_, watcher)| !watcher.is_live).map(|(id, _)| *id)
    }
}

impl Watcher {
    fn fire(&mut self) -> Runner {
        self.is_live = true;
        self.template.clone()
    }
}

/// The pages a watcher is found by; none if they are too many.
fn pages(template: &Runner) -> impl Iterator<Item = u64> {
    let of = |range: &Range| range.base / PAGE_BYTES..(range.base + range.bytes).div_ceil(PAGE_BYTES);
    let count: u64 = template.watched.iter().map(|range| range.bytes / PAGE_BYTES + 2).sum();
    let shown = if count > INDEXED_PAGES_MAX { &[][..] } else { &template.watched };
    shown.iter().flat_map(of)
}
