//! The version store: every committed version of every page that a live snapshot may still ask for.
//!
//! Owns versions, locks of prepared commits, and first-committer-wins. Must not know runners, only their numbers.
//!
//! ```text
//!   prepare (validates, locks words) -> Ok: commit (next timestamp, applied at once); -> Err: conflict
//! ```

use super::memory::{Used, parts};
use super::page::{Page, Words};
use crate::map::{PAGE_BYTES, Range, WORD_BYTES};
use crate::object::Rules;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// The place of a commit in the order of all; 0 is the program's own data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

/// A page as a commit left it.
#[derive(Clone, Debug)]
struct Version {
    at: Timestamp,
    author: u64,
    words: Words,
    page: Page,
}

/// A version as it goes to another store.
#[derive(Clone, Debug)]
pub struct Copied {
    /// The page.
    pub page: u64,
    /// When it was committed.
    pub at: Timestamp,
    /// By whom.
    pub author: u64,
    /// Words that differ from the version before.
    pub words: Words,
    /// All of it.
    pub contents: Page,
}

/// What of a page is promised to prepared commits.
#[derive(Clone, Debug, Default)]
struct Locks {
    words: Words,
    readers: u32,
}

/// Why a commit is refused: the page and word that another one changed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The address of the word, or of the page if pages are compared.
    pub address: u64,
    /// Who was first; `None`: somebody whose commit is under way.
    pub winner: Option<u64>,
}

/// Words changed by one commit, by page.
pub type Changes = BTreeMap<u64, Words>;

/// A commit that locks its words.
#[derive(Debug)]
pub struct Prepared {
    used: Used,
    is_locked: bool,
}

/// All committed memory.
#[derive(Debug, Default)]
pub struct Store {
    rules: Rules,
    pages: BTreeMap<u64, Vec<Version>>,
    locks: BTreeMap<u64, Locks>,
    newest: Timestamp,
    /// Versions that make an older one of their page useless once no snapshot is older than they are.
    superseding: VecDeque<(Timestamp, u64)>,
}

impl Store {
    /// Zeros.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Puts bytes there as if they had always been there.
    pub fn place(&mut self, range: Range, bytes: &[u8]) {
        for (page, offset, part) in parts(range) {
            let mut contents = self.at(page, Timestamp(0));
            contents.write(offset, &bytes[part]);
            self.place_page(page, contents);
        }
    }

    /// A whole page as if it had always been there.
    pub fn place_page(&mut self, page: u64, contents: Page) {
        let first = Version { at: Timestamp(0), author: u64::MAX, words: Words::default(), page: contents };
        let versions = self.pages.entry(page).or_default();
        match versions.first_mut().filter(|first| first.at == Timestamp(0)) {
            Some(known) => *known = first,
            None => versions.insert(0, first),
        }
    }

    /// The newest timestamp; all of it and before is applied.
    #[must_use]
    pub const fn newest(&self) -> Timestamp {
        self.newest
    }

    /// A page as a snapshot shows it.
    #[must_use]
    pub fn at(&self, page: u64, epoch: Timestamp) -> Page {
        let version = self.pages.get(&page).and_then(|versions| versions.iter().rev().find(|version| version.at <= epoch));
        version.map_or_else(Page::default, |version| version.page.clone())
    }

    /// Validates and locks what a runner with the snapshot `epoch` changed.
    ///
    /// # Errors
    /// Another commit was first.
    pub fn prepare(&mut self, epoch: Timestamp, used: Used) -> Result<Prepared, Conflict> {
        for (page, (words, _)) in &used.changed {
            let words = if self.rules.is_page_grain { Words::ALL } else { *words };
            self.validate(*page, epoch, &words)?;
        }
        if self.rules.is_serializable {
            for page in &used.read {
                self.validate(*page, epoch, &Words::ALL)?;
            }
            let mut is_read = used.changed.keys().filter_map(|page| self.locks.get(page).map(|lock| (page, lock.readers)));
            if let Some((page, _)) = is_read.find(|(_, readers)| *readers > 0) {
                return Err(Conflict { address: page * PAGE_BYTES, winner: None });
            }
        }
        for (page, (words, _)) in &used.changed {
            self.locks.entry(*page).or_default().words.extend(words);
        }
        if self.rules.is_serializable {
            for page in &used.read {
                self.locks.entry(*page).or_default().readers += 1;
            }
        }
        Ok(Prepared { used, is_locked: true })
    }

    fn validate(&self, page: u64, epoch: Timestamp, words: &Words) -> Result<(), Conflict> {
        let conflict = |hit: &Words, winner| {
            let word = hit.common(words).iter().next().unwrap_or(0);
            Conflict { address: page * PAGE_BYTES + word as u64 * WORD_BYTES, winner }
        };
        if let Some(lock) = self.locks.get(&page).filter(|lock| lock.words.overlaps(words)) {
            return Err(conflict(&lock.words, None));
        }
        let newer = self.pages.get(&page).into_iter().flatten().rev().take_while(|version| version.at > epoch);
        for version in newer {
            if version.words.overlaps(words) {
                return Err(conflict(&version.words, Some(version.author)));
            }
        }
        Ok(())
    }

    /// A commit that was validated, and is locked, elsewhere.
    #[must_use]
    pub const fn unvalidated(&self, used: Used) -> Prepared {
        Prepared { used, is_locked: false }
    }

    /// Gives the locks of a commit back before its end: only checkers of checkers want that.
    #[must_use]
    pub fn unlock(&mut self, prepared: Prepared) -> Prepared {
        let used = self.release(prepared);
        self.unvalidated(used)
    }

    /// Gives the locks of a commit back.
    pub fn release(&mut self, prepared: Prepared) -> Used {
        let Prepared { used, is_locked } = prepared;
        if !is_locked {
            return used;
        }
        for (page, (words, _)) in &used.changed {
            // Words of two prepared commits are disjoint, so what this one locked nobody else holds.
            let lock = self.locks.entry(*page).or_default();
            lock.words.remove(words);
        }
        if self.rules.is_serializable {
            for page in &used.read {
                self.locks.entry(*page).or_default().readers -= 1;
            }
        }
        let pages = used.changed.keys().chain(&used.read);
        for page in pages {
            if self.locks.get(page).is_some_and(|lock| lock.readers == 0 && lock.words.is_empty()) {
                self.locks.remove(page);
            }
        }
        used
    }

    /// Applies a prepared commit and words of the system's own, all at the next timestamp. Versions that no snapshot from
    /// `oldest` on can ask for are forgotten.
    pub fn commit(&mut self, prepared: Prepared, own: &[(u64, u64)], author: u64, oldest: Timestamp) -> (Timestamp, Changes) {
        let at = Timestamp(self.newest.0 + 1);
        let changes = self.apply(at, prepared, own, author);
        self.forget(oldest);
        (at, changes)
    }

    /// The same at a timestamp that was given out elsewhere, later than all before; nothing is forgotten.
    pub fn apply(&mut self, at: Timestamp, prepared: Prepared, own: &[(u64, u64)], author: u64) -> Changes {
        assert!(at > self.newest, "commits are applied in their order");
        let used = self.release(prepared);
        let mut next: BTreeMap<u64, Page> = BTreeMap::new();
        for (page, (words, left)) in &used.changed {
            let to = next.entry(*page).or_insert_with(|| self.at(*page, self.newest));
            for word in words.iter() {
                to.write(word * WORD_BYTES as usize, &left.word(word).to_le_bytes());
            }
        }
        for (address, value) in own {
            let page = address / PAGE_BYTES;
            let to = next.entry(page).or_insert_with(|| self.at(page, self.newest));
            to.write((address % PAGE_BYTES) as usize, &value.to_le_bytes());
        }
        let mut changes = Changes::new();
        for (page, left) in next {
            let words = left.changed(&self.at(page, self.newest));
            if words.is_empty() {
                continue;
            }
            changes.insert(page, words);
            self.pages.entry(page).or_default().push(Version { at, author, words, page: left });
            self.superseding.push_back((at, page));
        }
        self.newest = at;
        changes
    }

    /// Versions that no snapshot from `oldest` on can ask for are forgotten.
    pub fn forget(&mut self, oldest: Timestamp) {
        while let Some((_, page)) = self.superseding.pop_front_if(|(at, _)| *at <= oldest) {
            if let Some(versions) = self.pages.get_mut(&page) {
                let needed = versions.iter().rposition(|version| version.at <= oldest).unwrap_or(0);
                versions.drain(..needed);
            }
        }
    }

    /// All versions that commits made, for another store of the same program.
    pub fn copies(&self) -> impl Iterator<Item = Copied> {
        let made = |version: &&Version| version.at > Timestamp(0);
        self.pages.iter().flat_map(move |(page, versions)| {
            versions.iter().filter(made).map(|Version { at, author, words, page: contents }| Copied {
                page: *page,
                at: *at,
                author: *author,
                words: *words,
                contents: contents.clone(),
            })
        })
    }

    /// Takes the versions of another store of the same program, up to `newest`, in place of those that commits made here. Locks
    /// stay.
    pub fn restore(&mut self, newest: Timestamp, copies: impl IntoIterator<Item = Copied>) {
        for versions in self.pages.values_mut() {
            versions.retain(|version| version.at == Timestamp(0));
        }
        self.pages.retain(|_, versions| !versions.is_empty());
        let mut all: Vec<Copied> = copies.into_iter().collect();
        all.sort_unstable_by_key(|copied| (copied.at, copied.page));
        self.superseding = all.iter().map(|copied| (copied.at, copied.page)).collect();
        for Copied { page, at, author, words, contents } in all {
            self.pages.entry(page).or_default().push(Version { at, author, words, page: contents });
        }
        self.newest = newest;
    }

    /// Whether somebody but `author` changed a word of the ranges after `baseline`, not counting the commit at `except`.
    #[must_use]
    pub fn has_change(&self, ranges: &[Range], baseline: Timestamp, author: u64, except: Timestamp) -> bool {
        ranges.iter().filter(|range| range.bytes > 0).any(|range| {
            let pages = range.base / PAGE_BYTES..(range.base + range.bytes).div_ceil(PAGE_BYTES);
            self.pages.range(pages).any(|(page, versions)| {
                let newer = versions.iter().rev().take_while(|version| version.at > baseline);
                let mut counted = newer.filter(|version| version.author != author && version.at != except);
                counted.any(|version| touches(*range, *page, &version.words))
            })
        })
    }

    /// Versions kept, of all pages.
    #[must_use]
    pub fn versions(&self) -> usize {
        self.pages.values().map(Vec::len).sum()
    }
}

/// Whether one of the words of a page overlaps a range.
#[must_use]
pub fn touches(range: Range, page: u64, words: &Words) -> bool {
    words.overlaps(&words_of(range, page))
}

/// The words of a page that overlap a range.
#[must_use]
pub fn words_of(range: Range, page: u64) -> Words {
    let first = page * PAGE_BYTES;
    let base = range.base.max(first);
    let end = (range.base + range.bytes).min(first + PAGE_BYTES);
    if base < end { Words::span((base - first) / WORD_BYTES, (end - 1 - first) / WORD_BYTES) } else { Words::default() }
}
