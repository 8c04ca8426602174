//! What follows from the ends of runners so far: the same at every host that has the log.
//!
//! Owns watchers, allocated memory, output, and what of the ends others may still ask. Must not know who runs where, nor decide.
//!
//! ```text
//!   entry (an end, with its timestamp) -> exit code and changes in the log, output, children, watchers -> runners that are ready
//! ```

use crate::delta::Delta;
use crate::home::Home;
use crate::message::{Commit, Finished, Host, Summary, Told, Txn};
use crate::output::Output;
use crate::plant::{Plant, is};
use crate::program::Program;
use dvm_disa::machine::report::{self, Cause, EndState, Failure, Report, Statistics};
use dvm_disa::machine::runner::Runner;
use dvm_disa::machine::store::{Changes, Conflict, Timestamp};
use dvm_disa::machine::watch::Watchers;
use dvm_disa::map::Range;
use dvm_disa::memory::{Born, Spawn};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// An end of a runner, which has a timestamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// The runner.
    pub id: u64,
    /// Where it ran.
    pub host: Host,
    /// Its snapshot.
    pub epoch: Timestamp,
    /// When it ended.
    pub at: Timestamp,
    /// How.
    pub state: EndState,
    /// Where in the text.
    pub pc: u64,
    /// The line of it.
    pub line: u32,
    /// Times it was started.
    pub tries: u64,
}

/// An end as the log has it: all that its consequences follow from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// Where it ran.
    pub host: Host,
    /// Times the runner was started.
    pub tries: u64,
    /// How it ended.
    pub state: EndState,
    /// Who was first, if it failed.
    pub conflict: Option<Conflict>,
    /// The run.
    pub finished: Finished,
    /// Whether its watcher, if it is an instance of one, waits again.
    pub keeps_watching: bool,
    /// What becomes true with it.
    pub commit: Option<Box<Commit>>,
}

/// A commit that homes may not have applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// When.
    pub at: Timestamp,
    /// Which.
    pub txn: Txn,
    /// Who has prepared it.
    pub homes: Vec<Host>,
}

/// Everything that follows from the log and is not a version of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    watchers: Watchers,
    /// Memory allocated, by its beginning.
    pub allocated: BTreeMap<u64, Range>,
    /// Commits that stand, as long as who asked may ask again.
    pub decided: BTreeMap<Txn, Timestamp>,
    /// Commits after the last snapshot that is known to be shown.
    pub pending: VecDeque<Pending>,
    /// Commits that not all hosts may have heard of.
    pub summaries: VecDeque<Summary>,
    /// Output.
    pub output: Output,
    log: Vec<u8>,
    failures: Vec<Failure>,
    /// Counts.
    pub statistics: Statistics,
    happened: VecDeque<Happened>,
    ends: BTreeMap<Host, u64>,
    /// All up to here is at every host that has the log.
    stable: Timestamp,
}

/// A runner that is ready, and the least snapshot that it may have.
pub type Ready = (Runner, Timestamp);

/// The facts, and what they are derived with.
#[derive(Debug)]
pub struct Ledger {
    program: Arc<Program>,
    told_words_max: usize,
    /// What follows from the log.
    pub facts: Facts,
}

impl Ledger {
    /// With these facts; changes of so many words are told.
    #[must_use]
    pub const fn new(program: Arc<Program>, told_words_max: usize, facts: Facts) -> Self {
        Self { program, told_words_max, facts }
    }

    /// An end becomes true: exit code and changes are there from its timestamp on, and watchers fire. Who is ready then.
    pub fn apply(&mut self, runner: &Runner, entry: &Entry, log: &mut Home) -> Vec<Ready> {
        let Entry { at, host, tries, state, finished, .. } = entry;
        let (id, at, state, tries) = (runner.id, *at, *state, *tries);
        let (file, line) = self.program.object.line_of(finished.last);
        let cause = match state {
            EndState::Trapped(kind) => Some(Cause::Trap(kind)),
            EndState::Failed => entry.conflict.map(Cause::Conflict),
            EndState::Committed | EndState::Aborted => None,
        };
        if let Some(cause) = cause {
            self.facts.failures.push(Failure { id, cause, pc: finished.pc, file: file.into(), line });
        }
        let words = report::exit_code(id, state, finished.pc, line, tries);
        let commit = entry.commit.as_deref();
        let changed = log.log(commit.map(|commit| commit.txn), at, commit.map_or(&[], |commit| &commit.changes), &words, id);
        self.facts.statistics.count(state);
        self.facts.statistics.instructions += finished.fuel_used;
        let (taken, freed) = commit.map(|commit| self.keep(commit, at)).unwrap_or_default();
        let changes = self.told(&changed, at, log);
        self.facts.summaries.push_back(Summary { at, changes, taken, freed });
        let fired = self.facts.watchers.notify(&changed);
        let mut ready: Vec<Ready> = fired.into_iter().map(|instance| (instance, at)).collect();
        ready.extend(self.close(entry, id, log));
        self.facts.statistics.fired += ready.len() as u64;
        let (epoch, pc) = (finished.epoch, finished.pc);
        *self.facts.ends.entry(*host).or_default() += 1;
        self.facts.happened.push_back(Happened { id, host: *host, epoch, at, state, pc, line, tries });
        for (born, spawn) in commit.iter().flat_map(|commit| &commit.children) {
            ready.extend(self.bear(runner, *born, spawn, (epoch, at), log));
        }
        ready
    }

    /// What a commit leaves beside changes; memory it allocated and gave back.
    fn keep(&mut self, commit: &Commit, at: Timestamp) -> (Vec<Range>, Vec<u64>) {
        let Commit { txn, homes, output, log, taken, freed, settled_below, .. } = commit;
        let facts = &mut self.facts;
        facts.output.append(at, output);
        facts.log.extend(log);
        facts.allocated.extend(taken.iter().map(|range| (range.base, *range)));
        facts.allocated.retain(|base, _| !freed.contains(base));
        facts.decided.insert(*txn, at);
        facts.decided.retain(|other, _| other.host != txn.host || other.number >= *settled_below);
        facts.pending.push_back(Pending { at, txn: *txn, homes: homes.clone() });
        (taken.clone(), freed.clone())
    }

    fn told(&self, changed: &Changes, at: Timestamp, log: &Home) -> Vec<Told> {
        let one = |(page, words): (&u64, &dvm_disa::machine::page::Words)| {
            let is_small = words.iter().count() <= self.told_words_max;
            if is_small { Told::Words(Delta::of(*page, *words, &log.at(*page, at))) } else { Told::Page(*page) }
        };
        changed.iter().map(one).collect()
    }

    /// What becomes of the watcher whose instance has ended, if it was one: its next instance, if it fires at once.
    fn close(&mut self, entry: &Entry, id: u64, log: &Home) -> Option<Ready> {
        if !entry.keeps_watching {
            self.facts.watchers.remove(id);
            return None;
        }
        let baseline = baseline(entry.finished.epoch, log);
        let fired = self.facts.watchers.arm(id, baseline, log.store());
        fired.map(|instance| (instance, log.store().newest()))
    }

    fn bear(
        &mut self,
        parent: &Runner,
        born: Born,
        spawn: &Spawn,
        (epoch, at): (Timestamp, Timestamp),
        log: &Home,
    ) -> Option<Ready> {
        let Spawn { heap, watched, first, is_persistent, .. } = spawn.clone();
        let child = Runner { id: born.id, parent: parent.id, first, stack: born.stack, heap, watched, tries: 0 };
        self.facts.statistics.made += 1;
        if child.watched.is_empty() {
            return Some((child, at));
        }
        let fired = self.facts.watchers.add(child, is_persistent, baseline(epoch, log), at, log.store());
        self.facts.statistics.fired += u64::from(fired.is_some());
        fired.map(|instance| (instance, log.store().newest()))
    }

    /// Whether a watcher goes on after a commit.
    #[must_use]
    pub fn is_persistent(&self, id: u64) -> bool {
        self.facts.watchers.is_persistent(id)
    }

    /// Every host that has the log has all up to here.
    pub fn settle(&mut self, stable: Timestamp) {
        self.facts.stable = self.facts.stable.max(stable);
        self.facts.output.release(self.facts.stable);
    }

    /// Up to where that is so.
    #[must_use]
    pub const fn stable(&self) -> Timestamp {
        self.facts.stable
    }

    /// Snapshots may include all up to `watermark`; every host has heard of the commits up to `oldest`.
    pub fn forget(&mut self, watermark: Timestamp, oldest: Timestamp) {
        while self.facts.pending.pop_front_if(|pending| pending.at <= watermark).is_some() {}
        while self.facts.summaries.pop_front_if(|summary| summary.at <= oldest).is_some() {}
    }

    /// The commits after one snapshot and up to another.
    #[must_use]
    pub fn summaries(&self, after: Timestamp, until: Timestamp) -> Vec<Summary> {
        let all = &self.facts.summaries;
        let [first, end] = [after, until].map(|at| all.partition_point(|summary| summary.at <= at));
        all.range(first..end).cloned().collect()
    }

    /// The next end of a runner that nothing can undo.
    pub fn poll_happened(&mut self) -> Option<Happened> {
        self.facts.happened.pop_front_if(|happened| happened.at <= self.facts.stable)
    }

    /// How many runners ended on each host.
    #[must_use]
    pub const fn ends(&self) -> &BTreeMap<Host, u64> {
        &self.facts.ends
    }

    /// What came of the program, but for its output, which has its place, and what is to be counted elsewhere.
    pub fn report(&mut self) -> Report {
        let facts = &mut self.facts;
        Report {
            output: Vec::new(),
            log: std::mem::take(&mut facts.log),
            failures: std::mem::take(&mut facts.failures),
            armed: facts.watchers.armed().collect(),
            is_cut: false,
            statistics: facts.statistics,
        }
    }
}

/// Since when a watcher watches: the snapshot of its creator, or of its last instance.
fn baseline(epoch: Timestamp, log: &Home) -> Timestamp {
    if is(Plant::BaselineDropped) { log.store().newest() } else { epoch }
}
