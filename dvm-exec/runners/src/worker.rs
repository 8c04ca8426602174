//! A host: runs runners on snapshots, and takes what they changed through both phases of a commit.
//!
//! Owns slots, snapshots in use, and commits that this host asks for. Must not know who is ready elsewhere.
//!
//! ```text
//!   queued -> running (a slot, a snapshot) -> Prepare to homes but the root (*) -> all Prepared -> Commit to the root -> Settled
//!                  |                                  '- Refused, or a home lost -> Release, Ended
//!                  '- abort, trap ----------------------------------------------------------> Ended
//! ```
//! (*) and to the root, too, if others are homes as well and the runner has lost often.

use crate::Nanos;
use crate::delta::Delta;
use crate::index::Index;
use crate::limits::{FETCHED_AT_ONCE_MAX, LOCKED_AT_ROOT_TRIES_MIN, OLDEST_TOLD_EVERY, PREFETCHED_PAGES_MAX, TIMES_UNTOLD_MAX};
use crate::message::{Commit, End, Finished, Host, Message, Summary, Txn};
use crate::node::Out;
use crate::place::Homes;
use crate::plant::{Plant, is};
use crate::program::Program;
use dvm_disa::machine::arena::Arena;
use dvm_disa::machine::page::Page;
use dvm_disa::machine::runner::{Ran, Runner};
use dvm_disa::machine::store::{Conflict, Timestamp};
use dvm_disa::map::{self, PAGE_BYTES, Range};
use dvm_disa::types::ExitMode;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A run's name on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunKey(pub u64);

/// A runner to be run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its name here.
    pub key: RunKey,
    /// The slot it has: no other run has it now.
    pub slot: usize,
    /// The runner.
    pub runner: Runner,
    /// Its snapshot.
    pub epoch: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    slot: usize,
    epoch: Timestamp,
    /// Nobody waits for its end: the root that started it is lost.
    is_void: bool,
}

/// A commit that this host asks for.
#[derive(Debug)]
struct Asking {
    commit: Commit,
    /// Homes that have not answered; the root has been asked for the commit when there are none.
    waiting: BTreeSet<Host>,
    since: Nanos,
}

/// One host's part.
#[derive(Debug)]
pub struct Worker {
    me: Host,
    program: Arc<Program>,
    /// Every version of every page is here.
    pub has_log: bool,
    index: Index,
    /// Memory that runners here may allocate.
    pub arena: Arena,
    queue: VecDeque<Runner>,
    free: BTreeSet<usize>,
    runs: BTreeMap<RunKey, Running>,
    asking: BTreeMap<u64, Asking>,
    /// Pages asked for: by home, and who waits for them.
    fetching: BTreeMap<(u64, Timestamp), (Host, Vec<RunKey>)>,
    arrived: VecDeque<RunKey>,
    keys: u64,
    txns: u64,
    watermark: Timestamp,
    told: Timestamp,
    /// How long commits took that needed another host, since that was told.
    took: Vec<u64>,
}

impl Worker {
    /// One with nothing to do.
    #[must_use]
    pub fn new(me: Host, slots: usize, hosts: u16, program: Arc<Program>) -> Self {
        let part = map::ARENA.bytes / u64::from(hosts) / PAGE_BYTES * PAGE_BYTES;
        Self {
            me,
            program,
            has_log: false,
            index: Index::default(),
            arena: Arena::of(Range::new(map::ARENA.base + part * u64::from(me.0), part)),
            queue: VecDeque::new(),
            free: (0..slots).collect(),
            runs: BTreeMap::new(),
            asking: BTreeMap::new(),
            fetching: BTreeMap::new(),
            arrived: VecDeque::new(),
            keys: 0,
            txns: 0,
            watermark: Timestamp(0),
            told: Timestamp(0),
            took: Vec::new(),
        }
    }

    /// Whether a slot has nothing to do.
    #[must_use]
    pub fn has_free_slot(&self) -> bool {
        !self.free.is_empty()
    }

    /// The next run, if a slot is free.
    pub fn poll_run(&mut self) -> Option<Run> {
        if self.free.is_empty() || self.queue.is_empty() {
            return None;
        }
        let (runner, slot) = (self.queue.pop_front()?, self.free.pop_first()?);
        self.keys += 1;
        let key = RunKey(self.keys);
        self.runs.insert(key, Running { slot, epoch: self.watermark, is_void: false });
        Some(Run { key, slot, runner, epoch: self.watermark })
    }

    /// A run whose page has come.
    pub fn poll_arrived(&mut self) -> Option<RunKey> {
        self.arrived.pop_front()
    }

    /// Runners to run, some time.
    pub fn start(&mut self, runners: Vec<Runner>, homes: &Homes, out: &mut Out) {
        let mut wanted = BTreeSet::new();
        for runner in &runners {
            let declared = runner.heap.iter().chain(&runner.watched).chain([&runner.stack]);
            let ranges = declared.map(|range| range.base / PAGE_BYTES..(range.base + range.bytes).div_ceil(PAGE_BYTES));
            let changed = ranges.flat_map(|pages| self.index.changed(pages, self.watermark));
            wanted.extend(changed.take(PREFETCHED_PAGES_MAX));
        }
        if !self.has_log {
            self.fetch(wanted.into_iter().take(PREFETCHED_PAGES_MAX), None, homes, out);
        }
        self.queue.extend(runners);
    }

    /// Gives runners back that have not started, the last first.
    pub fn recall(&mut self, count: u64, homes: &Homes, out: &mut Out) {
        let keep = self.queue.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        let ids = self.queue.split_off(keep).into_iter().map(|runner| runner.id).collect();
        out.send(homes.root(), Message::Returned(ids));
    }

    /// Snapshots may include more.
    pub fn advance(&mut self, watermark: Timestamp, oldest: Timestamp, commits: &[Summary], homes: &Homes) {
        // A new root repeats what not all have heard from the former one.
        for Summary { at, changes, taken, freed } in commits.iter().filter(|commit| commit.at > self.watermark) {
            for told in changes {
                let page = match told {
                    crate::message::Told::Page(page) => *page,
                    crate::message::Told::Words(delta) => delta.page,
                };
                let keeps = !self.has_log && homes.of(page) != self.me;
                self.index.change(&self.program, *at, told, keeps);
            }
            taken.iter().for_each(|range| self.arena.keep(*range));
            for base in freed {
                if let Some(range) = self.arena.retire(*base)
                    && self.arena.owns(range)
                {
                    self.arena.give_back(range);
                }
            }
        }
        self.watermark = self.watermark.max(watermark);
        self.index.forget(oldest);
    }

    /// Tells the root what snapshots are in use here, if that has changed enough.
    pub fn tell_oldest(&mut self, homes: &Homes, out: &mut Out) {
        let in_use =
            self.runs.values().map(|run| run.epoch).chain(self.asking.values().map(|asking| asking.commit.finished.epoch));
        let oldest = in_use.min().unwrap_or(self.watermark);
        let oldest = if is(Plant::ForgottenEarly) { self.watermark } else { oldest };
        let is_idle = self.runs.is_empty() && self.queue.is_empty();
        if oldest > self.told && (is_idle || oldest.0 - self.told.0 >= OLDEST_TOLD_EVERY) {
            self.told = oldest;
            out.send(homes.root(), Message::Oldest(oldest));
            if !self.took.is_empty() {
                out.send(homes.root(), Message::Took(std::mem::take(&mut self.took)));
            }
        }
    }

    /// The snapshot of a run.
    #[must_use]
    pub fn epoch(&self, key: RunKey) -> Option<Timestamp> {
        self.runs.get(&key).map(|run| run.epoch)
    }

    /// The slot of a run.
    #[must_use]
    pub fn slot(&self, key: RunKey) -> Option<usize> {
        self.runs.get(&key).map(|run| run.slot)
    }

    /// The version of a page that a snapshot shows.
    #[must_use]
    pub fn version(&self, page: u64, epoch: Timestamp) -> Timestamp {
        self.index.version(page, epoch)
    }

    /// The pages around one that are as the program has them, within some that are.
    #[must_use]
    pub fn unchanged(&self, within: &std::ops::Range<u64>, page: u64) -> std::ops::Range<u64> {
        self.index.unchanged(within, page)
    }

    /// A page for a run; `None`: it is asked for, and the run will be told.
    pub fn page(&mut self, key: RunKey, page: u64, homes: &Homes, out: &mut Out) -> Option<Page> {
        let at = self.index.version(page, self.epoch(key)?);
        let copy = self.index.copy(&self.program, page, at);
        if copy.is_none() {
            self.fetch([(page, at)], Some(key), homes, out);
        }
        copy
    }

    fn fetch(&mut self, wanted: impl IntoIterator<Item = (u64, Timestamp)>, who: Option<RunKey>, homes: &Homes, out: &mut Out) {
        let mut asked: BTreeMap<Host, Vec<(u64, Timestamp)>> = BTreeMap::new();
        for (page, at) in wanted {
            let home = homes.of(page);
            if home == self.me || who.is_none() && self.index.copy(&self.program, page, at).is_some() {
                continue;
            }
            let (_, waiting) = self.fetching.entry((page, at)).or_insert_with(|| {
                asked.entry(home).or_default().push((page, at));
                (home, Vec::new())
            });
            waiting.extend(who);
        }
        for (home, pages) in asked {
            pages.chunks(FETCHED_AT_ONCE_MAX).for_each(|some| out.send(home, Message::Fetch(some.to_vec())));
        }
    }

    /// Pages have come.
    pub fn pages(&mut self, from: Host, pages: Vec<(Timestamp, Delta)>) {
        for (at, delta) in pages {
            let key = (delta.page, at);
            // From a home that was lost meanwhile: another one was asked.
            if self.fetching.get(&key).is_none_or(|(home, _)| *home != from) {
                continue;
            }
            let (_, waiting) = self.fetching.remove(&key).unwrap_or_default();
            self.index.insert(delta.page, at, delta.to_page());
            self.arrived.extend(waiting);
        }
    }

    /// A run is over.
    pub fn ran(&mut self, now: Nanos, key: RunKey, ran: Ran, homes: &Homes, out: &mut Out) {
        let Some(Running { slot, is_void, .. }) = self.runs.remove(&key) else { return };
        self.free.insert(slot);
        if is_void {
            return ran.kept.taken.into_iter().for_each(|range| self.arena.give_back(range));
        }
        let Ran { runner, epoch, end, pc, last, used, kept, fuel_used, record: _ } = ran;
        let finished = Finished { id: runner.id, epoch, pc, last, fuel_used };
        let mode = match end {
            Ok(mode) if mode.commits() => mode,
            Ok(mode) => return self.end(finished, End::Aborted(mode), kept.taken, homes, out),
            Err(trap) => return self.end(finished, End::Trapped(trap.kind), kept.taken, homes, out),
        };
        self.txns += 1;
        let txn = Txn { host: self.me, number: self.txns };
        let changes: Vec<Delta> = used.changed.iter().map(|(page, (words, left))| Delta::of(*page, *words, left)).collect();
        let reads = if self.program.object.rules.is_serializable { used.read } else { Vec::new() };
        let mut asked: BTreeMap<Host, (Vec<Delta>, Vec<u64>)> = BTreeMap::new();
        for delta in &changes {
            asked.entry(homes.of(delta.page)).or_default().0.push(delta.clone());
        }
        for page in &reads {
            asked.entry(homes.of(*page)).or_default().1.push(*page);
        }
        let commit = Commit {
            txn,
            mode,
            homes: asked.keys().copied().collect(),
            changes,
            reads,
            children: kept.children,
            output: kept.output,
            log: kept.log,
            taken: kept.taken,
            freed: kept.freed,
            finished,
            settled_below: 0,
        };
        // The root validates its part when it decides: nothing comes between, so nothing has to be locked there. But commits of its
        // pages alone are decided sooner than those that others prepare first, and would win each time.
        if asked.len() == 1 || runner.tries < LOCKED_AT_ROOT_TRIES_MIN {
            asked.remove(&homes.root());
        }
        self.asking.insert(txn.number, Asking { commit, waiting: asked.keys().copied().collect(), since: now });
        for (home, (changes, reads)) in asked {
            out.send(home, Message::Prepare { txn, epoch, author: runner.id, changes, reads });
        }
        self.ask_root(txn, homes, out);
    }

    fn end(&mut self, finished: Finished, end: End, taken: Vec<Range>, homes: &Homes, out: &mut Out) {
        taken.into_iter().for_each(|range| self.arena.give_back(range));
        out.send(homes.root(), Message::Ended(finished, end));
    }

    fn ask_root(&mut self, txn: Txn, homes: &Homes, out: &mut Out) {
        let settled_below = self.asking.first_key_value().map_or(txn.number, |(number, _)| *number);
        if let Some(asking) = self.asking.get(&txn.number).filter(|asking| asking.waiting.is_empty()) {
            let commit = Commit { settled_below, ..asking.commit.clone() };
            out.send(homes.root(), Message::Commit(Box::new(commit)));
        }
    }

    /// A home has locked.
    pub fn prepared(&mut self, from: Host, txn: Txn, homes: &Homes, out: &mut Out) {
        let is_new = self.asking.get_mut(&txn.number).is_some_and(|asking| asking.waiting.remove(&from));
        if is_new {
            self.ask_root(txn, homes, out);
        }
    }

    /// A home refuses: somebody was first.
    pub fn refused(&mut self, from: Host, txn: Txn, conflict: Conflict, homes: &Homes, out: &mut Out) {
        let is_waiting = self.asking.get(&txn.number).is_some_and(|asking| asking.waiting.contains(&from));
        if is_waiting {
            self.give_up(txn.number, |mode| End::Conflict(mode, conflict), homes, out);
        }
    }

    fn give_up(&mut self, number: u64, end: impl FnOnce(ExitMode) -> End, homes: &Homes, out: &mut Out) {
        let Some(Asking { commit, .. }) = self.asking.remove(&number) else { return };
        commit.homes.iter().for_each(|home| out.send(*home, Message::Release(commit.txn)));
        self.end(commit.finished, end(commit.mode), commit.taken, homes, out);
    }

    /// The root has decided.
    pub fn settled(&mut self, now: Nanos, txn: Txn, is_committed: bool, out: &mut Out) {
        let Some(Asking { commit, since, .. }) = self.asking.remove(&txn.number) else { return };
        let is_remote = commit.homes.iter().any(|home| *home != self.me);
        if is_committed && is_remote && self.took.len() < TIMES_UNTOLD_MAX {
            self.took.push(now.0.saturating_sub(since.0));
        }
        if !is_committed {
            self.forget(commit, out);
        }
    }

    /// It will not be, and nobody asks.
    fn forget(&mut self, commit: Commit, out: &mut Out) {
        commit.homes.iter().for_each(|home| out.send(*home, Message::Release(commit.txn)));
        commit.taken.into_iter().for_each(|range| self.arena.give_back(range));
    }

    /// There is a new root, which starts everything again that is not over: what was started here is void. What became of commits
    /// that the former root was asked for, the new one knows.
    pub fn follow(&mut self, homes: &Homes, out: &mut Out) {
        self.queue.clear();
        self.runs.values_mut().for_each(|run| run.is_void = true);
        let is_unasked = |asking: &Asking| !asking.waiting.is_empty();
        let unasked: Vec<u64> = self.asking.iter().filter(|(_, asking)| is_unasked(asking)).map(|(number, _)| *number).collect();
        for number in unasked {
            if let Some(Asking { commit, .. }) = self.asking.remove(&number) {
                self.forget(commit, out);
            }
        }
        let doubtful: Vec<Txn> = self.asking.values().map(|asking| asking.commit.txn).collect();
        if !doubtful.is_empty() {
            out.send(homes.root(), Message::Doubt(doubtful));
        }
        self.told = Timestamp(0);
    }

    /// Whether somebody waits for the end of a run.
    #[must_use]
    pub fn is_wanted(&self, key: RunKey) -> bool {
        self.runs.get(&key).is_some_and(|run| !run.is_void)
    }

    /// A host is lost: what was asked of it is asked of the new home, or given up.
    pub fn lose(&mut self, host: Host, homes: &Homes, out: &mut Out) {
        let hopeless: Vec<u64> =
            self.asking.iter().filter(|(_, asking)| asking.waiting.contains(&host)).map(|(number, _)| *number).collect();
        hopeless.into_iter().for_each(|number| self.give_up(number, |_| End::Undone, homes, out));
        let lost = self.fetching.iter_mut().filter(|(_, (home, _))| *home == host);
        let mut again: Vec<(u64, Timestamp)> = Vec::new();
        for ((page, at), (home, _)) in lost {
            *home = homes.of(*page);
            again.push((*page, *at));
        }
        for some in again.chunks(FETCHED_AT_ONCE_MAX) {
            out.send(homes.root(), Message::Fetch(some.to_vec()));
        }
    }
}
