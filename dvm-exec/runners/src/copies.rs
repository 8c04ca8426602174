//! The other hosts that have the log, as the root sees them, and what must wait until they have it.
//!
//! Owns how far each of them is. Must not know what an end means.
//!
//! ```text
//!   decided at the root -- Records --> backups -- Stored --> stable: Settled, Apply, Lost, output, snapshots
//! ```

use crate::ledger::Entry;
use crate::message::{Host, Message, Record};
use crate::node::Out;
use crate::plant::{Plant, is};
use dvm_disa::machine::report::Statistics;
use dvm_disa::machine::store::Timestamp;
use std::collections::BTreeMap;

/// Who has the log, and what waits for them.
#[derive(Debug, Default)]
pub struct Copies {
    /// The newest timestamp that each has; none before it has taken over all there was when it became one.
    stored: BTreeMap<Host, Option<Timestamp>>,
    /// Not sent yet.
    fresh: Vec<Record>,
    /// Messages that say what only stands when all copies have it, in the order of timestamps.
    held: BTreeMap<(Timestamp, u64), (Host, Message)>,
    order: u64,
}

impl Copies {
    /// Copies that are complete, of a log without an entry.
    #[must_use]
    pub fn of(hosts: impl IntoIterator<Item = Host>) -> Self {
        let stored = hosts.into_iter().map(|host| (host, Some(Timestamp(0)))).collect();
        Self { stored, ..Self::default() }
    }

    /// Something for the log.
    pub fn record(&mut self, record: Record) {
        if !self.stored.is_empty() {
            self.fresh.push(record);
        }
    }

    /// An end for the log.
    pub fn ended(&mut self, entry: Entry) {
        self.record(Record::Ended(Box::new(entry)));
    }

    /// A message that may go when all have the log up to `at`.
    pub fn hold(&mut self, at: Timestamp, to: Host, message: Message) {
        self.order += 1;
        self.held.insert((at, self.order), (to, message));
    }

    /// A host has it up to here.
    pub fn stored(&mut self, from: Host, at: Timestamp) {
        if let Some(stored) = self.stored.get_mut(&from) {
            *stored = Some(stored.unwrap_or_default().max(at));
        }
    }

    /// These hosts shall have the log from now on: those that are new.
    pub fn choose(&mut self, hosts: impl IntoIterator<Item = Host>) -> Vec<Host> {
        let before = std::mem::take(&mut self.stored);
        self.stored = hosts.into_iter().map(|host| (host, before.get(&host).copied().flatten())).collect();
        let new: Vec<Host> = self.stored.keys().filter(|host| !before.contains_key(host)).copied().collect();
        if self.stored.is_empty() {
            self.fresh.clear();
        }
        new
    }

    /// Whether a host has the log, or is to have it: it applies commits by that.
    #[must_use]
    pub fn has(&self, host: Host) -> bool {
        self.stored.contains_key(&host)
    }

    /// Whether every copy is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.stored.values().all(Option::is_some)
    }

    /// Sends what is new to all.
    pub fn flush(&mut self, stable: Timestamp, statistics: Statistics, out: &mut Out) {
        let records = std::mem::take(&mut self.fresh);
        if records.is_empty() {
            return;
        }
        for host in self.stored.keys() {
            out.send(*host, Message::Records { records: records.clone(), stable, statistics });
        }
    }

    /// Up to where all have the log, whose newest entry is at `newest`; none while one is not complete.
    #[must_use]
    pub fn stable(&self, newest: Timestamp) -> Option<Timestamp> {
        if is(Plant::ActsBeforeBackup) {
            return Some(newest);
        }
        self.stored.values().try_fold(newest, |least, stored| stored.map(|at| least.min(at)))
    }

    /// Lets go what waited for `stable`.
    pub fn release(&mut self, stable: Timestamp, out: &mut Out) {
        while let Some(entry) = self.held.first_entry().filter(|entry| entry.key().0 <= stable) {
            let (to, message) = entry.remove();
            out.send(to, message);
        }
    }
}
