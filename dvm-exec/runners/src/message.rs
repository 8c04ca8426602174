//! What hosts say to each other about runners.
//!
//! Owns the vocabulary. Must not know how it travels: each pair of hosts has messages delivered once and in order.

use crate::delta::Delta;
use crate::ledger::{Entry, Facts};
use dvm_disa::machine::page::Words;
use dvm_disa::machine::report::Statistics;
use dvm_disa::machine::runner::Runner;
use dvm_disa::machine::store::{Conflict, Timestamp};
use dvm_disa::map::Range;
use dvm_disa::memory::{Born, Spawn};
use dvm_disa::trap::TrapKind;
use dvm_disa::types::ExitMode;
use serde::{Deserialize, Serialize};

/// A host of the run, by its place in the list of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Host(pub u16);

/// The host that gives out timestamps first.
pub const FIRST_ROOT: Host = Host(0);

/// A commit under way: who asks for it, and the asker's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Txn {
    /// The host where the runner ran.
    pub host: Host,
    /// Never used twice there.
    pub number: u64,
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The runner.
    pub id: u64,
    /// Its snapshot.
    pub epoch: Timestamp,
    /// Where it ended.
    pub pc: u64,
    /// Its last instruction.
    pub last: u64,
    /// Instructions.
    pub fuel_used: u64,
}

/// How a run ended without a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// By `exit`.
    Aborted(ExitMode),
    /// By a trap.
    Trapped(TrapKind),
    /// Somebody else was first.
    Conflict(ExitMode, Conflict),
    /// A host it needed is lost; nothing was done.
    Undone,
}

/// What shall become true at one timestamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Which.
    pub txn: Txn,
    /// The run.
    pub finished: Finished,
    /// How it ended.
    pub mode: ExitMode,
    /// Who has prepared it.
    pub homes: Vec<Host>,
    /// Words changed.
    pub changes: Vec<Delta>,
    /// Pages read, if commits validate them.
    pub reads: Vec<u64>,
    /// Runners made.
    pub children: Vec<(Born, Spawn)>,
    /// Output.
    pub output: Vec<u8>,
    /// Lines of the log.
    pub log: Vec<u8>,
    /// Memory allocated.
    pub taken: Vec<Range>,
    /// Where memory that was given back begins.
    pub freed: Vec<u64>,
    /// Of all commits of that host with smaller numbers it knows what became.
    pub settled_below: u64,
}

/// What goes into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A run ended, at a timestamp.
    Ended(Box<Entry>),
    /// A runner lost to another one, and runs again after so many tries.
    Tried {
        /// Who.
        id: u64,
        /// Times it was started.
        tries: u64,
    },
}

/// A version of a page for a host that shall have the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// When it was committed.
    pub at: Timestamp,
    /// By whom.
    pub author: u64,
    /// Words that differ from the version before.
    pub words: Words,
    /// All of it.
    pub whole: Delta,
}

/// What a host that shall have the log must know beside the versions of pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What follows from the log.
    pub facts: Facts,
    /// All runners that are not over and do not wait for a change.
    pub runners: Vec<Runner>,
    /// The newest timestamp.
    pub newest: Timestamp,
    /// Nobody has an older snapshot.
    pub oldest: Timestamp,
}

/// A change of a page by a commit: its words if they are few.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The page; who needs it fetches it.
    Page(u64),
    /// The words.
    Words(Delta),
}

/// What hosts must know of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// When.
    pub at: Timestamp,
    /// Pages changed.
    pub changes: Vec<Told>,
    /// Memory allocated.
    pub taken: Vec<Range>,
    /// Where memory that was given back begins.
    pub freed: Vec<u64>,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Root to host: run these.
    Start(Vec<Runner>),
    /// Root to host: give so many back that do not run yet.
    Recall(u64),
    /// Host to root: these were not started.
    Returned(Vec<u64>),
    /// Root to host: snapshots may include all up to `watermark`; nobody has one older than `oldest`.
    Advance {
        /// Everything up to here is applied.
        watermark: Timestamp,
        /// Versions that only older snapshots could ask for may go.
        oldest: Timestamp,
        /// The commits since the last time.
        commits: Vec<Summary>,
    },
    /// Host to root: it has no older snapshot, and will have none.
    Oldest(Timestamp),
    /// Host to root: how long commits took there that needed another host, in nanoseconds.
    Took(Vec<u64>),
    /// Host to home: validate and lock.
    Prepare {
        /// For whom.
        txn: Txn,
        /// The snapshot.
        epoch: Timestamp,
        /// The runner.
        author: u64,
        /// Words changed of pages there.
        changes: Vec<Delta>,
        /// Pages read of those there, if commits validate them.
        reads: Vec<u64>,
    },
    /// Home to host: locked.
    Prepared(Txn),
    /// Home to host: somebody was first.
    Refused(Txn, Conflict),
    /// Host, or root, to home: it will not be.
    Release(Txn),
    /// Host to root: all homes have prepared it.
    Commit(Box<Commit>),
    /// Root to home: it is, at this timestamp.
    Apply(Txn, Timestamp),
    /// Home to root: all up to here is applied.
    Applied(Timestamp),
    /// Root to host: it is (true), or it will not be.
    Settled(Txn, bool),
    /// Host to root: a run ended otherwise.
    Ended(Finished, End),
    /// Host to home: these pages at these timestamps.
    Fetch(Vec<(u64, Timestamp)>),
    /// Home to host.
    Pages(Vec<(Timestamp, Delta)>),
    /// Root to host: this one is of the run no more.
    Lost(Host),
    /// Root to backup: for the log.
    Records {
        /// What was decided, in order.
        records: Vec<Record>,
        /// Every host that has the log has it up to here.
        stable: Timestamp,
        /// All counts.
        statistics: Statistics,
    },
    /// Backup to root: it has the log up to here.
    Stored(Timestamp),
    /// Root to a host that shall have the log: versions of pages, before [`Self::State`].
    Copies(Vec<Copied>),
    /// The rest: from now on it is a backup.
    State(Box<State>),
    /// From one that was a backup: it is the root now. What a former one had started is to be forgotten.
    Root,
    /// Host to a new root: what became of these, which the former one was asked for?
    Doubt(Vec<Txn>),
}
