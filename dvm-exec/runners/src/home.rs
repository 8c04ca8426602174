//! A home: versions of its pages, and locks of commits that are prepared here.
//!
//! Owns the store of one host. Must not know why a commit comes to be or not.
//!
//! ```text
//!   prepare -> locked -- apply (timestamps in order) --> version
//!                     '- release ----------------------> as before
//! ```

use crate::delta::Delta;
use crate::message::{Copied, Host, Txn};
use crate::plant::{Plant, is};
use dvm_disa::machine::memory::Used;
use dvm_disa::machine::page::Page;
use dvm_disa::machine::store::{self, Changes, Conflict, Prepared, Store, Timestamp};
use std::collections::BTreeMap;

/// A commit that is prepared here.
#[derive(Debug)]
struct Locked {
    author: u64,
    prepared: Prepared,
}

/// The versions kept at one host.
#[derive(Debug)]
pub struct Home {
    store: Store,
    locked: BTreeMap<Txn, Locked>,
}

/// A commit to be validated.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Its number.
    pub txn: Txn,
    /// The snapshot.
    pub epoch: Timestamp,
    /// The runner.
    pub author: u64,
    /// Words changed.
    pub changes: &'a [Delta],
    /// Pages read.
    pub reads: &'a [u64],
}

impl Home {
    /// One with these first versions.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store, locked: BTreeMap::new() }
    }

    /// All versions here.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Validates and locks.
    ///
    /// # Errors
    /// Somebody was first.
    pub fn prepare(&mut self, asked: &Asked<'_>) -> Result<(), Conflict> {
        self.release(asked.txn);
        let epoch = if is(Plant::ValuesCompared) && self.is_back(asked) { self.store.newest() } else { asked.epoch };
        let mut prepared = self.store.prepare(epoch, used(asked.changes, asked.reads))?;
        if is(Plant::NotLocked) {
            prepared = self.store.unlock(prepared);
        }
        self.locked.insert(asked.txn, Locked { author: asked.author, prepared });
        Ok(())
    }

    /// Whether every word has the value again that the snapshot shows.
    fn is_back(&self, asked: &Asked<'_>) -> bool {
        asked.changes.iter().all(|delta| {
            let (then, now) = (self.store.at(delta.page, asked.epoch), self.store.at(delta.page, self.store.newest()));
            delta.words.iter().all(|word| then.word(word) == now.word(word))
        })
    }

    /// A prepared commit is not to be. One that was refused is none.
    pub fn release(&mut self, txn: Txn) {
        if let Some(Locked { prepared, .. }) = self.locked.remove(&txn) {
            self.store.release(prepared);
        }
    }

    /// A prepared commit is, at this timestamp. One that came with the log is there already.
    pub fn apply(&mut self, txn: Txn, at: Timestamp) {
        if at <= self.store.newest() {
            return self.release(txn);
        }
        if let Some(Locked { author, prepared }) = self.locked.remove(&txn) {
            self.store.apply(at, prepared, &[], author);
        }
    }

    /// All versions that commits made, for a host that shall have the log.
    pub fn copies(&self) -> Vec<Copied> {
        let copied = |store::Copied { page, at, author, words, contents }| {
            let whole = Delta::whole(page, &contents);
            Copied { at, author, words, whole }
        };
        self.store.copies().map(copied).collect()
    }

    /// Takes the log as it is at the root. Commits of it that are prepared here are applied so.
    pub fn restore<'a>(&mut self, newest: Timestamp, copies: Vec<Copied>, applied: impl Iterator<Item = &'a Txn>) {
        applied.for_each(|txn| self.release(*txn));
        let copied = |Copied { at, author, words, whole }: Copied| {
            let (page, contents) = (whole.page, whole.to_page());
            store::Copied { page, at, author, words, contents }
        };
        self.store.restore(newest, copies.into_iter().map(copied));
    }

    /// A commit is, at this timestamp, with words of the system's own: the log has all of it, whoever prepared it.
    pub fn log(&mut self, txn: Option<Txn>, at: Timestamp, changes: &[Delta], own: &[(u64, u64)], author: u64) -> Changes {
        if let Some(txn) = txn {
            self.release(txn);
        }
        let prepared = self.store.unvalidated(used(changes, &[]));
        self.store.apply(at, prepared, own, author)
    }

    /// A host is lost: what it had prepared is not to be.
    pub fn lose(&mut self, host: Host) {
        let lost: Vec<Txn> = self.locked.keys().filter(|txn| txn.host == host).copied().collect();
        lost.into_iter().for_each(|txn| self.release(txn));
    }

    /// A page as a snapshot shows it.
    #[must_use]
    pub fn at(&self, page: u64, epoch: Timestamp) -> Page {
        self.store.at(page, epoch)
    }

    /// Nobody has a snapshot older than `oldest`.
    pub fn forget(&mut self, oldest: Timestamp) {
        self.store.forget(oldest);
    }
}

fn used(changes: &[Delta], reads: &[u64]) -> Used {
    let changed = changes.iter().map(|delta| (delta.page, (delta.words, delta.to_page()))).collect();
    Used { changed, read: reads.to_vec() }
}
