//! The root: gives out timestamps, keeps the log, and says what snapshots may include.
//!
//! Owns the order of commits, and who is told of it when. Must not know how a commit was prepared.
//!
//! ```text
//!   Commit -> next timestamp: log, output, children, watchers -> Records to backups -> all Stored
//!          -> Settled, Apply to homes -> all Applied -> watermark -> Advance to all
//! ```

use crate::Nanos;
use crate::copies::Copies;
use crate::delta::Delta;
use crate::follower::Follower;
use crate::home::{Asked, Home};
use crate::ledger::{Entry, Facts, Happened, Ledger, Ready};
use crate::limits::{COPIED_AT_ONCE_MAX, TIMES_KEPT_MAX};
use crate::message::{Commit, End, Finished, Host, Message, Record, State, Txn};
use crate::node::Out;
use crate::place::Homes;
use crate::plant::{Plant, is};
use crate::program::Program;
use crate::schedule::Scheduler;
use dvm_disa::machine::report::{EndState, Report};
use dvm_disa::machine::runner::Runner;
use dvm_disa::machine::store::{Conflict, Timestamp};
use dvm_disa::types::ExitMode;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What the root knows beside what every host does.
#[derive(Debug)]
pub struct Head {
    program: Arc<Program>,
    me: Host,
    copies_max: usize,
    /// Who runs where.
    pub scheduler: Scheduler,
    /// What follows from the log.
    pub ledger: Ledger,
    copies: Copies,
    /// Commits that a home has been told of, or will be, and has not applied.
    unapplied: BTreeMap<Host, VecDeque<Timestamp>>,
    advertised: Timestamp,
    oldest: BTreeMap<Host, Timestamp>,
    /// How long commits took that needed another host, as hosts have told.
    pub took: BTreeMap<Host, Vec<u64>>,
    is_over: bool,
    /// For a planted bug only: the last commit of each host.
    doubtful: BTreeMap<Host, Runner>,
}

/// How a runner ended.
struct Close<'a> {
    host: Host,
    finished: &'a Finished,
    state: EndState,
    conflict: Option<Conflict>,
    keeps_watching: bool,
    commit: Option<Box<Commit>>,
}

/// What a root is made of beside what follows from the log.
#[derive(Debug)]
pub struct Seat<'a> {
    /// The host.
    pub me: Host,
    /// Runners at a time, by host.
    pub slots: &'a [usize],
    /// Hosts that shall have the log, this one included.
    pub copies_max: usize,
}

impl Head {
    /// The root of a run that begins: what the program's first runner is, a follower without an entry knows.
    #[must_use]
    pub fn new(program: Arc<Program>, seat: &Seat<'_>, follower: Follower, homes: &Homes) -> Self {
        Self::of(program, seat, follower, Timestamp(0), homes)
    }

    /// Whatever waits needs a snapshot of this age.
    fn of(program: Arc<Program>, seat: &Seat<'_>, follower: Follower, epoch_min: Timestamp, homes: &Homes) -> Self {
        let Follower { ledger, runners, oldest } = follower;
        let facts = &ledger.facts;
        let mut scheduler = Scheduler::new(seat.slots, program.settings.seed, program.settings.starts_max);
        scheduler.go_on(facts.statistics.starts);
        runners.into_values().for_each(|runner| scheduler.add(runner, epoch_min));
        Self {
            program,
            me: seat.me,
            copies_max: seat.copies_max,
            scheduler,
            ledger,
            copies: Copies::of(homes.backups(seat.copies_max)),
            unapplied: BTreeMap::new(),
            // Some hosts may have heard more from a former root, none less.
            advertised: oldest,
            oldest: homes.members().map(|host| (host, oldest)).collect(),
            took: BTreeMap::new(),
            is_over: false,
            doubtful: BTreeMap::new(),
        }
    }

    /// The root of a run whose former one is lost. Homes are told again what they may not have heard, then who is lost; backups
    /// get the log anew, since they may have what this one has not; and nothing is said before they have it.
    #[must_use]
    pub fn succeed(program: Arc<Program>, seat: &Seat<'_>, follower: Follower, log: &Home, homes: &Homes, out: &mut Out) -> Self {
        // Runs that the former root has started are forgotten; each runner runs again on a snapshot with all that happened.
        let mut head = Self::of(program, seat, follower, log.store().newest(), homes);
        head.copies = Copies::default();
        head.cover(log, homes, out);
        if is(Plant::OutputAgain) {
            head.ledger.facts.output.repeat();
        }
        if is(Plant::DecidedForgotten) {
            head.ledger.facts.decided.clear();
        }
        if !is(Plant::NotRepeated) {
            let pending: Vec<_> = head.ledger.facts.pending.iter().cloned().collect();
            pending.into_iter().for_each(|pending| head.tell_homes(pending.txn, pending.at, &pending.homes, homes));
        }
        head
    }

    /// Sees to it that as many hosts as there should be have the log, or get it.
    fn cover(&mut self, log: &Home, homes: &Homes, out: &mut Out) {
        self.flush(out);
        let new = self.copies.choose(homes.backups(self.copies_max));
        if new.is_empty() {
            return;
        }
        let (copies, state) = (log.copies(), self.state(log));
        for host in new {
            for some in copies.chunks(COPIED_AT_ONCE_MAX) {
                out.send(host, Message::Copies(some.to_vec()));
            }
            out.send(host, Message::State(Box::new(state.clone())));
        }
    }

    fn state(&self, log: &Home) -> State {
        let mut facts: Facts = self.ledger.facts.clone();
        facts.statistics.starts = self.scheduler.starts();
        State { facts, runners: self.scheduler.all(), newest: log.store().newest(), oldest: self.least_oldest() }
    }

    fn flush(&mut self, out: &mut Out) {
        let mut statistics = self.ledger.facts.statistics;
        statistics.starts = self.scheduler.starts();
        self.copies.flush(self.ledger.stable(), statistics, out);
    }

    fn least_oldest(&self) -> Timestamp {
        self.oldest.values().copied().min().unwrap_or_default()
    }

    /// The next end of a runner.
    pub fn poll_happened(&mut self) -> Option<Happened> {
        self.ledger.poll_happened()
    }

    /// What came of the program, once.
    pub fn poll_over(&mut self, log: &Home) -> Option<Report> {
        let is_stable = self.copies.stable(log.store().newest()) == Some(log.store().newest());
        if self.is_over || !self.scheduler.is_over() || !is_stable {
            return None;
        }
        self.is_over = true;
        let mut report = self.ledger.report();
        report.is_cut = !self.scheduler.is_empty();
        report.statistics.starts = self.scheduler.starts();
        Some(report)
    }

    /// Whether every host that shall have the log has all of it that there was when it was chosen.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        self.copies.is_complete()
    }

    /// When time alone makes something possible.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        self.scheduler.poll_timeout().filter(|_| self.is_covered())
    }

    /// A host asks for a commit that its homes have prepared.
    pub fn commit(&mut self, now: Nanos, from: Host, commit: Commit, log: &mut Home, homes: &Homes, out: &mut Out) {
        let (txn, id) = (commit.txn, commit.finished.id);
        if txn.host != from || self.scheduler.running(id, from).is_none() {
            return;
        }
        let is_held = commit.homes.iter().all(|home| homes.is_member(*home));
        let is_trusted = !is_held && is(Plant::LostHomeTrusted);
        if !is_held && !is_trusted {
            self.refuse(&commit, log, homes, out);
            return self.undone(from, id);
        }
        if let Err(conflict) = self.check(&commit, log, homes)
            && !is_trusted
        {
            self.refuse(&commit, log, homes, out);
            return self.conflict(now, from, &commit.finished, (commit.mode, conflict), log);
        }
        let Some(runner) = self.scheduler.take(id, from) else { return };
        if is(Plant::ReleasedTwice) {
            self.doubtful.insert(from, runner.clone());
        }
        let keeps_watching = commit.mode != ExitMode::CommitDelete && self.ledger.is_persistent(id);
        let (finished, prepared) = (commit.finished.clone(), commit.homes.clone());
        let state = EndState::Committed;
        let commit = Some(Box::new(commit));
        let at =
            self.publish(&runner, Close { host: from, finished: &finished, state, conflict: None, keeps_watching, commit }, log);
        self.tell_homes(txn, at, &prepared, homes);
        self.copies.hold(at, from, Message::Settled(txn, true));
    }

    /// Homes hear of it from here, sooner than from who asked: else the runner, which may run again on any host, would meet the
    /// locks of its own last try there.
    fn refuse(&self, commit: &Commit, log: &mut Home, homes: &Homes, out: &mut Out) {
        let txn = commit.txn;
        log.release(txn);
        for home in commit.homes.iter().filter(|home| **home != self.me && homes.is_member(**home)) {
            out.send(*home, Message::Release(txn));
        }
        out.send(txn.host, Message::Settled(txn, false));
    }

    /// Homes that do not have the log hear of a commit when it stands.
    fn tell_homes(&mut self, txn: Txn, at: Timestamp, prepared: &[Host], homes: &Homes) {
        for home in prepared.iter().filter(|home| **home != self.me && homes.is_member(**home)) {
            if self.copies.has(*home) {
                continue;
            }
            self.copies.hold(at, *home, Message::Apply(txn, at));
            self.unapplied.entry(*home).or_default().push_back(at);
        }
    }

    /// What only the root can know: memory given back is still allocated, and pages of which it is the home are as the snapshot shows
    /// them, exit codes among them.
    fn check(&self, commit: &Commit, log: &mut Home, homes: &Homes) -> Result<(), Conflict> {
        if let Some(base) = commit.freed.iter().find(|base| !self.ledger.facts.allocated.contains_key(base)) {
            return Err(Conflict { address: *base, winner: None });
        }
        let is_here = |page: u64| homes.of(page) == self.me;
        let changes: Vec<Delta> = commit.changes.iter().filter(|delta| is_here(delta.page)).cloned().collect();
        let reads: Vec<u64> = commit.reads.iter().copied().filter(|page| is_here(*page)).collect();
        if changes.is_empty() && reads.is_empty() {
            return Ok(());
        }
        let Finished { id: author, epoch, .. } = commit.finished;
        log.prepare(&Asked { txn: commit.txn, epoch, author, changes: &changes, reads: &reads })
    }

    /// Gives an end its timestamp.
    fn publish(&mut self, runner: &Runner, close: Close<'_>, log: &mut Home) -> Timestamp {
        let Close { host, finished, state, conflict, keeps_watching, commit } = close;
        let at = Timestamp(log.store().newest().0 + 1);
        let finished = finished.clone();
        let entry = Entry { at, host, tries: runner.tries, state, conflict, finished, keeps_watching, commit };
        let ready: Vec<Ready> = self.ledger.apply(runner, &entry, log);
        ready.into_iter().for_each(|(runner, epoch_min)| self.scheduler.add(runner, epoch_min));
        self.copies.ended(entry);
        at
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
            End::Trapped(kind) => (EndState::Trapped(kind), false),
        };
        let Some(runner) = self.scheduler.take(finished.id, from) else { return };
        self.publish(&runner, Close { host: from, finished, state, conflict: None, keeps_watching, commit: None }, log);
    }

    fn conflict(&mut self, now: Nanos, from: Host, finished: &Finished, (mode, conflict): (ExitMode, Conflict), log: &mut Home) {
        let Some(runner) = self.scheduler.take(finished.id, from) else { return };
        self.ledger.facts.statistics.conflicts += 1;
        if mode == ExitMode::CommitOnce || runner.tries > u64::from(self.program.settings.conflicts_max) {
            let state = EndState::Failed;
            let close = Close { host: from, finished, state, conflict: Some(conflict), keeps_watching: false, commit: None };
            self.publish(&runner, close, log);
        } else {
            self.ledger.facts.statistics.instructions += finished.fuel_used;
            self.copies.record(Record::Tried { id: runner.id, tries: runner.tries });
            let is_winner_known = conflict.winner.is_some();
            let epoch_min = if is_winner_known { log.store().newest() } else { Timestamp(0) };
            self.scheduler.add_after_conflict(now, runner, epoch_min, is_winner_known);
        }
    }

    fn undone(&mut self, from: Host, id: u64) {
        if let Some(mut runner) = self.scheduler.take(id, from) {
            self.ledger.facts.statistics.lost += 1;
            runner.tries = runner.tries.saturating_sub(1);
            self.scheduler.add(runner, Timestamp(0));
        }
    }

    /// A host asks what became of commits that it had asked a former root for. The answer must outlive this one, too.
    pub fn doubt(&mut self, from: Host, txns: &[Txn], log: &Home) {
        for txn in txns.iter().filter(|txn| txn.host == from) {
            let decided = self.ledger.facts.decided.get(txn).copied();
            let at = decided.unwrap_or(log.store().newest());
            self.copies.hold(at, from, Message::Settled(*txn, decided.is_some()));
        }
    }

    /// A home has applied all up to here.
    pub fn applied(&mut self, from: Host, at: Timestamp) {
        if let Some(waiting) = self.unapplied.get_mut(&from) {
            while waiting.pop_front_if(|waiting| *waiting <= at).is_some() {}
        }
    }

    /// A backup has the log up to here.
    pub fn stored(&mut self, from: Host, at: Timestamp) {
        self.copies.stored(from, at);
    }

    /// A host has no older snapshot.
    pub fn told_oldest(&mut self, from: Host, oldest: Timestamp) {
        if let Some(told) = self.oldest.get_mut(&from) {
            *told = oldest.max(*told);
        }
    }

    /// A host tells how long commits took.
    pub fn told_times(&mut self, from: Host, times: Vec<u64>) {
        let known = self.took.entry(from).or_default();
        let room = TIMES_KEPT_MAX.saturating_sub(known.len());
        known.extend(times.into_iter().take(room));
    }

    /// A host is lost: what ran there is ready again, what it has not applied is in the log. Homes may forget what it had prepared
    /// once they have heard of all its commits that stand.
    pub fn lose(&mut self, host: Host, log: &Home, homes: &Homes, out: &mut Out) {
        self.ledger.facts.statistics.lost += self.scheduler.lose(host);
        self.unapplied.remove(&host);
        self.oldest.remove(&host);
        self.cover(log, homes, out);
        let newest = log.store().newest();
        for member in homes.members().filter(|member| *member != self.me) {
            self.copies.hold(newest, member, Message::Lost(host));
        }
        if let Some(mut runner) = self.doubtful.remove(&host) {
            runner.tries -= 1;
            self.scheduler.add(runner, Timestamp(0));
        }
    }

    /// Tells backups what is new, all hosts how far snapshots may go, and starts what is ready.
    pub fn proceed(&mut self, now: Nanos, log: &Home, homes: &Homes, out: &mut Out) {
        self.flush(out);
        let newest = log.store().newest();
        if let Some(stable) = self.copies.stable(newest) {
            self.ledger.settle(stable);
            self.copies.release(stable, out);
        }
        let first = self.unapplied.values().filter_map(VecDeque::front).min();
        let applied = first.map_or(newest, |at| Timestamp(at.0 - 1)).min(self.ledger.stable());
        let watermark = if is(Plant::TimestampBeforeApply) { newest } else { applied };
        if watermark > self.advertised {
            self.advance(watermark, homes, out);
        }
        // A copy that is not complete may know of a commit that this host has never seen: until it has the log, nobody is to run again.
        if !self.copies.is_complete() {
            return;
        }
        for (host, runners) in self.scheduler.dispatch(now, self.advertised, homes) {
            out.send(host, Message::Start(runners));
        }
        if let Some((host, count)) = self.scheduler.recall(homes) {
            out.send(host, Message::Recall(count));
        }
    }

    fn advance(&mut self, watermark: Timestamp, homes: &Homes, out: &mut Out) {
        let oldest = self.least_oldest();
        let commits = self.ledger.summaries(self.advertised, watermark);
        self.advertised = watermark;
        self.ledger.forget(watermark, oldest);
        for host in homes.members() {
            out.send(host, Message::Advance { watermark, oldest, commits: commits.clone() });
        }
    }
}
