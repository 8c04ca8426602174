//! Watchers: who waits for changes of which words, since when.
//!
//! Owns arming and firing. Must not know how instances run.
//!
//! ```text
//!   arm(baseline) -> changed since? fire : ARMED --change by another--> fire -> instance lives (changes are folded)
//!   instance ends -> gone, or arm(its snapshot)
//! ```

use super::page::Words;
use super::runner::Runner;
use super::store::{Changes, Store, Timestamp, touches, words_of};
use crate::map::{PAGE_BYTES, Range};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A watcher with more pages than that is looked at with every commit.
const INDEXED_PAGES_MAX: u64 = 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Watcher {
    template: Runner,
    is_persistent: bool,
    is_live: bool,
    /// Its creator's own commit.
    birth: Timestamp,
}

/// All watchers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watchers {
    all: BTreeMap<u64, Watcher>,
    by_page: BTreeMap<u64, BTreeMap<u64, Words>>,
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
        let pages = watched(&template);
        if pages.is_empty() {
            self.wide.insert(id);
        }
        for (page, words) in pages {
            self.by_page.entry(page).or_default().insert(id, words);
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
        let mut hit = BTreeSet::new();
        for (page, words) in changes {
            let watching = self.by_page.get(page).into_iter().flatten();
            hit.extend(watching.filter(|(_, watched)| watched.overlaps(words)).map(|(id, _)| *id));
        }
        let is_touched = |range: &Range| changes.iter().any(|(page, words)| touches(*range, *page, words));
        hit.extend(
            self.wide.iter().filter(|id| self.all.get(id).is_some_and(|watcher| watcher.template.watched.iter().any(is_touched))),
        );
        let mut fired = Vec::new();
        for id in hit {
            if let Some(watcher) = self.all.get_mut(&id).filter(|watcher| !watcher.is_live) {
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
        for page in watched(&watcher.template).into_keys() {
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

/// The words a watcher is found by, by page; none if they are on too many pages.
fn watched(template: &Runner) -> BTreeMap<u64, Words> {
    let mut pages: BTreeMap<u64, Words> = BTreeMap::new();
    let count: u64 = template.watched.iter().map(|range| range.bytes / PAGE_BYTES + 2).sum();
    if count > INDEXED_PAGES_MAX {
        return pages;
    }
    for range in template.watched.iter().filter(|range| range.bytes > 0) {
        for page in range.base / PAGE_BYTES..(range.base + range.bytes).div_ceil(PAGE_BYTES) {
            pages.entry(page).or_default().extend(&words_of(*range, page));
        }
    }
    pages
}
