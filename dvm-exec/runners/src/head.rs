//! The root: gives out timestamps, keeps the log, fires watchers, and says what snapshots may include.
//!
//! Owns the order of commits and everything that becomes true with one. Must not know how a commit was prepared.
//!
//! ```text
//!   Commit -> next timestamp: log, output, children, watchers -> Apply to homes -> all Applied -> watermark -> Advance to all
//! ```

use crate::Nanos;
use crate::delta::Delta;
use crate::home::Home;
use crate::message::{Commit, End, Finished, Host, Message, ROOT, Summary, Told, Txn};
use crate::node::Out;
use crate::place::Homes;
use crate::plant::{Plant, is};
use crate::program::Program;
use crate::schedule::Scheduler;
use dvm_disa::machine::report::{self, Cause, EndState, Failure, Report};
use dvm_disa::machine::runner::Runner;
use dvm_disa::machine::store::{Changes, Conflict, Timestamp};
use dvm_disa::machine::watch::Watchers;
use dvm_disa::map::Range;
use dvm_disa::memory::{Born, Spawn};
use dvm_disa::types::ExitMode;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// An end of a runner, which has a timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// What the root knows beside what every host does.
#[derive(Debug)]
pub struct Head {
    program: Arc<Program>,
    told_words_max: usize,
    /// Who runs where.
    pub scheduler: Scheduler,
    watchers: Watchers,
    allocated: BTreeMap<u64, Range>,
    /// Commits that a home has been told of and has not applied.
    unapplied: BTreeMap<Host, VecDeque<Timestamp>>,
    advertised: Timestamp,
    summaries: VecDeque<Summary>,
    oldest: BTreeMap<Host, Timestamp>,
    report: Report,
    happened: VecDeque<Happened>,
    is_over: bool,
    /// For a planted bug only: the last commit of each host.
    doubtful: BTreeMap<Host, Runner>,
}

/// How a runner ended, and what its watcher does then.
struct Close<'a> {
    runner: &'a Runner,
    host: Host,
    finished: &'a Finished,
    state: EndState,
    keeps_watching: bool,
}

impl Head {
    /// The program's first runner is ready.
    #[must_use]
    pub fn new(program: Arc<Program>, slots: &[usize], told_words_max: usize) -> Self {
        let mut scheduler = Scheduler::new(slots, program.settings.seed, program.settings.starts_max);
        scheduler.add(Runner::main(program.object.entry), Timestamp(0));
        let hosts = (0..slots.len() as u16).map(Host);
        Self {
            program,
            told_words_max,
            scheduler,
            watchers: Watchers::default(),
            allocated: BTreeMap::new(),
            unapplied: BTreeMap::new(),
            advertised: Timestamp(0),
            summaries: VecDeque::new(),
            oldest: hosts.map(|host| (host, Timestamp(0))).collect(),
            report: Report::default(),
            happened: VecDeque::new(),
            is_over: false,
            doubtful: BTreeMap::new(),
        }
    }

    /// The next end of a runner.
    pub fn poll_happened(&mut self) -> Option<Happened> {
        self.happened.pop_front()
    }

    /// What came of the program, once.
    pub fn poll_over(&mut self) -> Option<Report> {
        if self.is_over || !self.scheduler.is_over() {
            return None;
        }
        self.is_over = true;
        self.report.is_cut = !self.scheduler.is_empty();
        self.report.armed = self.watchers.armed().collect();
        self.report.statistics.starts = self.scheduler.starts();
        Some(std::mem::take(&mut self.report))
    }

    /// Whether no output is to be released.
    #[must_use]
    pub const fn has_no_output(&self) -> bool {
        self.report.output.is_empty()
    }

    /// Output released since the last time.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.report.output)
    }

    /// A host asks for a commit that its homes have prepared.
    pub fn commit(&mut self, now: Nanos, from: Host, commit: Commit, log: &mut Home, homes: &Homes, out: &mut Out) {
        let (txn, id) = (commit.txn, commit.finished.id);
        if txn.host != from || self.scheduler.running(id, from).is_none() {
            return;
        }
        let is_held = commit.homes.iter().all(|home| homes.is_member(*home)) || is(Plant::LostHomeTrusted);
        if !is_held {
            out.send(from, Message::Settled(txn, false));
            return self.undone(from, id);
        }
        if let Err(conflict) = self.check(&commit, log) {
            out.send(from, Message::Settled(txn, false));
            return self.conflict(now, from, &commit.finished, (commit.mode, conflict), log);
        }
        let Some(runner) = self.scheduler.take(id, from) else { return };
        if is(Plant::ReleasedTwice) {
            self.doubtful.insert(from, runner.clone());
        }
        self.apply(from, runner, commit, log, out);
        out.send(from, Message::Settled(txn, true));
    }

    /// What only the root can know: memory given back is still allocated, and nobody's exit code was written meanwhile.
    fn check(&self, commit: &Commit, log: &mut Home) -> Result<(), Conflict> {
        if let Some(base) = commit.freed.iter().find(|base| !self.allocated.contains_key(base)) {
            return Err(Conflict { address: *base, winner: None });
        }
        log.check_exit_codes(commit)
    }

    fn apply(&mut self, from: Host, runner: Runner, commit: Commit, log: &mut Home, out: &mut Out) {
        let Commit { txn, finished, mode, homes, changes, children, output, log: lines, taken, freed, .. } = commit;
        self.report.output.extend(output);
        self.report.log.extend(lines);
        self.allocated.extend(taken.iter().map(|range| (range.base, *range)));
        self.allocated.retain(|base, _| !freed.contains(base));
        let keeps_watching = mode != ExitMode::CommitDelete && self.watchers.is_persistent(runner.id);
        let close = Close { runner: &runner, host: from, finished: &finished, state: EndState::Committed, keeps_watching };
        let at = self.publish(&close, Some(txn), &changes, (taken, freed), log);
        for home in homes.into_iter().filter(|home| *home != ROOT) {
            out.send(home, Message::Apply(txn, at));
            self.unapplied.entry(home).or_default().push_back(at);
        }
        for (born, spawn) in children {
            self.bear(&runner, born, spawn, (finished.epoch, at), log);
        }
    }

    /// Gives an end its timestamp: exit code and changes are there from then on, and watchers fire.
    fn publish(
        &mut self,
        close: &Close<'_>,
        txn: Option<Txn>,
        changes: &[Delta],
        (taken, freed): (Vec<Range>, Vec<u64>),
        log: &mut Home,
    ) -> Timestamp {
        let Close { runner, finished, state, .. } = *close;
        let line = self.program.object.line_of(finished.last).1;
        let words = report::exit_code(runner.id, state, finished.pc, line, runner.tries);
        let at = Timestamp(log.store().newest().0 + 1);
        let changed = log.log(txn, at, changes, &words, runner.id);
        self.report.statistics.count(state);
        self.report.statistics.instructions += finished.fuel_used;
        let changes = self.told(&changed, at, log);
        self.summaries.push_back(Summary { at, changes, taken, freed });
        let fired = self.watchers.notify(&changed);
        self.fired(fired, at);
        self.settle(close, log);
        let (id, epoch, pc, tries) = (runner.id, finished.epoch, finished.pc, runner.tries);
        self.happened.push_back(Happened { id, host: close.host, epoch, at, state, pc, line, tries });
        at
    }

    fn told(&self, changed: &Changes, at: Timestamp, log: &Home) -> Vec<Told> {
        let one = |(page, words): (&u64, &dvm_disa::machine::page::Words)| {
            let is_small = words.iter().count() <= self.told_words_max;
            if is_small { Told::Words(Delta::of(*page, *words, &log.at(*page, at))) } else { Told::Page(*page) }
        };
        changed.iter().map(one).collect()
    }

    /// What becomes of the watcher whose instance has ended, if it was one.
    fn settle(&mut self, close: &Close<'_>, log: &Home) {
        let id = close.runner.id;
        if close.keeps_watching {
            let baseline = baseline(close.finished.epoch, log);
            let fired = self.watchers.arm(id, baseline, log.store());
            self.fired(fired, log.store().newest());
        } else {
            self.watchers.remove(id);
        }
    }

    fn fired(&mut self, instances: impl IntoIterator<Item = Runner>, epoch_min: Timestamp) {
        for instance in instances {
            self.report.statistics.fired += 1;
            self.scheduler.add(instance, epoch_min);
        }
    }

    fn bear(&mut self, parent: &Runner, born: Born, spawn: Spawn, (epoch, at): (Timestamp, Timestamp), log: &Home) {
        let Spawn { heap, watched, first, is_persistent, .. } = spawn;
        let child = Runner { id: born.id, parent: parent.id, first, stack: born.stack, heap, watched, tries: 0 };
        self.report.statistics.made += 1;
        if child.watched.is_empty() {
            self.scheduler.add(child, at);
        } else {
            let fired = self.watchers.add(child, is_persistent, baseline(epoch, log), at, log.store());
            self.fired(fired, log.store().newest());
        }
    }

    /// A run ended without a commit.
    pub fn ended(&mut self, now: Nanos, from: Host, finished: &Finished, end: End, log: &mut Home) {
        if self.scheduler.running(finished.id, from).is_none() {
            return;
        }
        let (state, keeps_watching) = match end {
            End::Undone => return self.undone(from, finished.id),
            End::Conflict(mode, conflict) => return self.conflict(now, from, finished, (mode, conflict), log),
            End::Aborted(mode) => (EndState::Aborted, mode == ExitMode::Abort),
            End::Trapped(kind) => {
                self.fail(finished, Cause::Trap(kind));
                (EndState::Trapped(kind), false)
            }
        };
        let Some(runner) = self.scheduler.take(finished.id, from) else { return };
        let close = Close { runner: &runner, host: from, finished, state, keeps_watching };
        self.publish(&close, None, &[], Default::default(), log);
    }

    fn conflict(&mut self, now: Nanos, from: Host, finished: &Finished, (mode, conflict): (ExitMode, Conflict), log: &mut Home) {
        let Some(runner) = self.scheduler.take(finished.id, from) else { return };
        self.report.statistics.conflicts += 1;
        self.report.statistics.instructions += finished.fuel_used;
        if mode == ExitMode::CommitOnce || runner.tries > u64::from(self.program.settings.conflicts_max) {
            self.fail(finished, Cause::Conflict(conflict));
            let close = Close { runner: &runner, host: from, finished, state: EndState::Failed, keeps_watching: false };
            self.publish(&close, None, &[], Default::default(), log);
        } else {
            let is_winner_known = conflict.winner.is_some();
            let epoch_min = if is_winner_known { log.store().newest() } else { Timestamp(0) };
            self.scheduler.add_after_conflict(now, runner, epoch_min, is_winner_known);
        }
    }

    fn undone(&mut self, from: Host, id: u64) {
        if let Some(mut runner) = self.scheduler.take(id, from) {
            self.report.statistics.lost += 1;
            runner.tries = runner.tries.saturating_sub(1);
            self.scheduler.add(runner, Timestamp(0));
        }
    }

    fn fail(&mut self, finished: &Finished, cause: Cause) {
        let (file, line) = self.program.object.line_of(finished.last);
        self.report.failures.push(Failure { id: finished.id, cause, pc: finished.pc, file: file.into(), line });
    }

    /// A home has applied all up to here.
    pub fn applied(&mut self, from: Host, at: Timestamp) {
        if let Some(waiting) = self.unapplied.get_mut(&from) {
            while waiting.pop_front_if(|waiting| *waiting <= at).is_some() {}
        }
    }

    /// A host has no older snapshot.
    pub fn told_oldest(&mut self, from: Host, oldest: Timestamp) {
        if let Some(told) = self.oldest.get_mut(&from) {
            *told = oldest.min(self.advertised).max(*told);
        }
    }

    /// A host is lost: what ran there is ready again, what it has not applied is in the log.
    pub fn lose(&mut self, host: Host) {
        self.report.statistics.lost += self.scheduler.lose(host);
        self.unapplied.remove(&host);
        self.oldest.remove(&host);
        if let Some(mut runner) = self.doubtful.remove(&host) {
            runner.tries -= 1;
            self.scheduler.add(runner, Timestamp(0));
        }
    }

    /// Tells all hosts how far snapshots may go, and starts what is ready.
    pub fn proceed(&mut self, now: Nanos, log: &Home, homes: &Homes, out: &mut Out) {
        let first = self.unapplied.values().filter_map(VecDeque::front).min();
        let applied = first.map_or(log.store().newest(), |at| Timestamp(at.0 - 1));
        let watermark = if is(Plant::TimestampBeforeApply) { log.store().newest() } else { applied };
        if watermark > self.advertised {
            self.advertised = watermark;
            let count = self.summaries.partition_point(|summary| summary.at <= watermark);
            let commits: Vec<Summary> = self.summaries.drain(..count).collect();
            let oldest = self.oldest.values().copied().min().unwrap_or_default();
            for host in homes.members() {
                out.send(host, Message::Advance { watermark, oldest, commits: commits.clone() });
            }
        }
        for (host, runners) in self.scheduler.dispatch(now, self.advertised, homes) {
            out.send(host, Message::Start(runners));
        }
        if let Some((host, count)) = self.scheduler.recall(homes) {
            out.send(host, Message::Recall(count));
        }
    }
}

/// Since when a watcher watches: the snapshot of its creator, or of its last instance.
fn baseline(epoch: Timestamp, log: &Home) -> Timestamp {
    if is(Plant::BaselineDropped) { log.store().newest() } else { epoch }
}
