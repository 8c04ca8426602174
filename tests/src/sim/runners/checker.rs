//! Judges a run of runners by what they read and what became of them.
//!
//! Owns a model of its own: values by word and time. Must not ask nodes what they believe, but for the order of ends.
//!
//! Snapshot isolation: a committed run read only values of its snapshot, and nobody changed a word that it changed between its
//! snapshot and its commit. Watchers: an instance runs because of a change since its baseline that its snapshot has; when all is
//! over, no change since the baseline of a watcher that waits is left. Output: that of the commits, in their order. All of that
//! whoever is the root: what one has told is never told otherwise.

use super::plan::Plan;
use dvm_disa::machine::page::WORDS;
use dvm_disa::machine::report::{EndState, Report, exit_code};
use dvm_disa::map::{PAGE_BYTES, Range, WORD_BYTES};
use dvm_disa::memory::Spawn;
use dvm_runners::Happened;
use std::collections::{BTreeMap, BTreeSet};

/// A run as the simulator saw it from outside.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Its snapshot.
    pub epoch: u64,
    /// Words it read before it stored there, and what it found.
    pub reads: Vec<(u64, u64)>,
    /// Words it changed, and what it left.
    pub writes: Vec<(u64, u64)>,
    /// Runners it made, with their numbers.
    pub children: Vec<(u64, Spawn)>,
    /// What it printed.
    pub output: Vec<u8>,
    /// Whether it deletes its watcher.
    pub deletes: bool,
    /// Whether its end lets its watcher watch on if it is an abort.
    pub is_plain_abort: bool,
}

#[derive(Debug)]
struct Watcher {
    ranges: Vec<Range>,
    is_persistent: bool,
    baseline: u64,
    birth: u64,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    at: u64,
    author: u64,
    value: u64,
}

/// The model.
#[derive(Debug)]
pub struct Checker {
    plan: Plan,
    words: BTreeMap<u64, Vec<Change>>,
    /// Pages by the times they changed, for the coarser rules.
    pages: BTreeMap<u64, Vec<u64>>,
    watchers: BTreeMap<u64, Watcher>,
    born: BTreeSet<u64>,
    ended: BTreeMap<u64, u64>,
    output: Vec<u8>,
    /// How much of it was released.
    shown: usize,
    /// All ends, in their order.
    history: Vec<Happened>,
    last: u64,
    /// Ends judged.
    pub judged: u64,
}

impl Checker {
    /// Nothing has happened.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            words: BTreeMap::new(),
            pages: BTreeMap::new(),
            watchers: BTreeMap::new(),
            born: BTreeSet::from([0]),
            ended: BTreeMap::new(),
            output: Vec::new(),
            shown: 0,
            history: Vec::new(),
            last: 0,
            judged: 0,
        }
    }

    /// A runner has ended, after this run.
    ///
    /// # Errors
    /// What must not be.
    pub fn end(&mut self, end: &Happened, record: &Record) -> Result<(), String> {
        let (id, at) = (end.id, end.at.0);
        // Every host that has the log tells; a former root and its successor must tell the same.
        if let Some(before) = at.checked_sub(1).and_then(|index| self.history.get(index as usize)) {
            return if before == end { Ok(()) } else { Err(format!("history is not what it was: {before:?}, now {end:?}")) };
        }
        self.history.push(end.clone());
        if at != self.last + 1 {
            return Err(format!("runner {id} ended at {at} after {}", self.last));
        }
        self.last = at;
        self.judged += 1;
        if !self.born.contains(&id) {
            return Err(format!("runner {id} was never born"));
        }
        let is_committed = end.state == EndState::Committed;
        *self.ended.entry(id).or_default() += 1;
        if self.ended[&id] > 1 && !self.watchers.contains_key(&id) {
            return Err(format!("runner {id} ended twice, now at {at}"));
        }
        self.fits_watcher(end, record)?;
        if is_committed {
            self.is_isolated(end, record)?;
            self.output.extend(&record.output);
            for (address, value) in &record.writes {
                self.change(*address, *value, at, id);
            }
        }
        for (address, value) in exit_code(id, end.state, end.pc, end.line, end.tries) {
            self.change(address, value, at, id);
        }
        self.close_watcher(end, record);
        if is_committed {
            for (child, spawn) in &record.children {
                self.born.insert(*child);
                if !spawn.watched.is_empty() {
                    let watcher = Watcher {
                        ranges: spawn.watched.clone(),
                        is_persistent: spawn.is_persistent,
                        baseline: record.epoch,
                        birth: at,
                    };
                    self.watchers.insert(*child, watcher);
                }
            }
        }
        Ok(())
    }

    /// All is over.
    ///
    /// # Errors
    /// What must not be.
    pub fn over(&mut self, report: &Report) -> Result<(), String> {
        if self.shown != self.output.len() {
            let (is, should) = (self.shown / 16, self.output.len() / 16);
            return Err(format!("the output is not that of all commits: {is} lines instead of {should}"));
        }
        for id in &self.born {
            if !self.watchers.contains_key(id) && self.ended.get(id) != Some(&1) && !self.was_watcher(*id) {
                return Err(format!("runner {id} was born and never ended"));
            }
        }
        let armed: BTreeSet<u64> = report.armed.iter().copied().collect();
        let waiting: BTreeSet<u64> = self.watchers.keys().copied().collect();
        if armed != waiting {
            return Err(format!("watchers {armed:?} are left instead of {waiting:?}"));
        }
        for (id, watcher) in &self.watchers {
            if let Some(change) = self.first_change(*id, watcher, u64::MAX) {
                return Err(format!("watcher {id} missed the change at {} since {}", change.at, watcher.baseline));
            }
        }
        Ok(())
    }

    /// Output was released that begins at this place.
    ///
    /// # Errors
    /// What must not be.
    pub fn released(&mut self, begin: u64, bytes: &[u8]) -> Result<(), String> {
        let begin = begin as usize;
        if begin > self.shown {
            return Err(format!("output from {begin} on is released after {}", self.shown));
        }
        // What a former root has released already must be the same.
        let end = begin + bytes.len();
        if self.output.get(begin..end) != Some(bytes) {
            return Err(format!("output {begin}..{end} is not that of the commits in their order"));
        }
        self.shown = self.shown.max(end);
        Ok(())
    }

    fn was_watcher(&self, id: u64) -> bool {
        self.ended.contains_key(&id)
    }

    fn fits_watcher(&self, end: &Happened, record: &Record) -> Result<(), String> {
        let Some(watcher) = self.watchers.get(&end.id) else { return Ok(()) };
        match self.first_change(end.id, watcher, record.epoch) {
            Some(_) => Ok(()),
            None => Err(format!(
                "watcher {} ran on snapshot {} although nothing changed since {}",
                end.id, record.epoch, watcher.baseline
            )),
        }
    }

    /// A change that fires the watcher, up to a time.
    fn first_change(&self, id: u64, watcher: &Watcher, until: u64) -> Option<Change> {
        let counts = |change: &&Change| {
            change.at > watcher.baseline && change.at <= until && change.author != id && change.at != watcher.birth
        };
        let words = watcher.ranges.iter().flat_map(|range| {
            let first = range.base / WORD_BYTES * WORD_BYTES;
            self.words.range(first..range.base + range.bytes).flat_map(|(_, changes)| changes)
        });
        words.filter(counts).min_by_key(|change| change.at).copied()
    }

    fn close_watcher(&mut self, end: &Happened, record: &Record) {
        let Some(watcher) = self.watchers.get_mut(&end.id) else { return };
        let goes_on = match end.state {
            EndState::Committed => watcher.is_persistent && !record.deletes,
            EndState::Aborted => record.is_plain_abort,
            EndState::Trapped(_) | EndState::Failed => false,
        };
        if goes_on {
            watcher.baseline = record.epoch;
        } else {
            self.watchers.remove(&end.id);
        }
    }

    fn is_isolated(&self, end: &Happened, record: &Record) -> Result<(), String> {
        let (id, epoch) = (end.id, record.epoch);
        for (address, found) in &record.reads {
            let should = self.value(*address, epoch);
            if *found != should {
                return Err(format!("runner {id} read {found} at {address:#x}: snapshot {epoch} has {should}"));
            }
            let changed = self.pages.get(&(address / PAGE_BYTES)).and_then(|times| times.last().filter(|at| **at > epoch));
            if let Some(at) = changed.filter(|_| self.plan.is_serializable) {
                return Err(format!(
                    "runner {id} read {address:#x} on snapshot {epoch}: changed at {at}, committed at {}",
                    end.at.0
                ));
            }
        }
        for (address, _) in &record.writes {
            let page = *address / PAGE_BYTES * PAGE_BYTES;
            let rivals = if self.plan.is_page_grain { page..page + WORDS as u64 * WORD_BYTES } else { *address..address + 1 };
            let last = self.words.range(rivals).filter_map(|(_, changes)| changes.last()).max_by_key(|change| change.at);
            if let Some(rival) = last.filter(|rival| rival.at > epoch) {
                return Err(format!(
                    "runner {id} changed {address:#x} on snapshot {epoch} and committed at {}: runner {} was first, at {}",
                    end.at.0, rival.author, rival.at
                ));
            }
        }
        Ok(())
    }

    fn value(&self, address: u64, epoch: u64) -> u64 {
        let changes = self.words.get(&address).map_or(&[][..], Vec::as_slice);
        changes.iter().rev().find(|change| change.at <= epoch).map_or(0, |change| change.value)
    }

    fn change(&mut self, address: u64, value: u64, at: u64, author: u64) {
        if self.value(address, at) != value {
            self.words.entry(address).or_default().push(Change { at, author, value });
            self.pages.entry(address / PAGE_BYTES).or_default().push(at);
        }
    }
}
