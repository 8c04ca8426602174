//! One host of a run: events in, actions out.
//!
//! Owns the ways between root, home and worker of a host, and to those of others. Must not perform anything.

use crate::follower::Follower;
use crate::head::{Head, Seat};
use crate::home::{Asked, Home};
use crate::ledger::Happened;
use crate::limits::HOSTS_MAX;
use crate::message::{Copied, FIRST_ROOT, Host, Message};
use crate::place::Homes;
use crate::plant::{Plant, is};
use crate::program::Program;
use crate::worker::{Run, RunKey, Worker};
use crate::{Delta, Nanos};
use dvm_disa::machine::arena::Arena;
use dvm_disa::machine::page::Page;
use dvm_disa::machine::report::Report;
use dvm_disa::machine::runner::Ran;
use dvm_disa::machine::store::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// What a host is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This host.
    pub me: Host,
    /// Runners that run at a time, by host; the first is the root.
    pub slots: Vec<usize>,
    /// The program.
    pub program: Arc<Program>,
    /// Words of a page's change that are told to all hosts; larger changes are fetched.
    pub told_words_max: usize,
    /// Hosts that have the log, the root included. With more than one the run goes on when its root is lost.
    pub copies: usize,
}

/// What a host has to say beside messages.
#[derive(Clone, Debug)]
pub enum Event {
    /// A page that this run waits for has come: ask again.
    PageReady(RunKey),
    /// A runner has ended. At the hosts that have the log.
    Happened(Happened),
    /// The program is over, and its output is what [`Node::take_output`] has given and will. Only at the root, once.
    Over(Box<Report>),
    /// The root is lost, and this host, which is the next one, does not have the log: nobody can go on.
    Stranded,
}

/// Messages on their way, to others and to this host itself.
#[derive(Debug)]
pub struct Out {
    me: Host,
    own: VecDeque<Message>,
    others: VecDeque<(Host, Message)>,
}

impl Out {
    /// Sends.
    pub fn send(&mut self, to: Host, message: Message) {
        if to == self.me { self.own.push_back(message) } else { self.others.push_back((to, message)) }
    }
}

/// A host.
#[derive(Debug)]
pub struct Node {
    me: Host,
    slots: Vec<usize>,
    program: Arc<Program>,
    told_words_max: usize,
    copies_max: usize,
    homes: Homes,
    home: Home,
    worker: Worker,
    /// Here if this is the root.
    head: Option<Head>,
    /// Here if this is a backup of it.
    follower: Option<Follower>,
    /// The log as far as it has come, at a host that shall be a backup.
    copies: Vec<Copied>,
    /// Hosts that the membership has given up, in its order.
    gone: BTreeSet<Host>,
    is_stranded: bool,
    out: Out,
}

impl Node {
    /// A host before anything has happened.
    ///
    /// # Panics
    /// If it is not among the hosts, or they are too many.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let Config { me, slots, program, told_words_max, copies: copies_max } = config;
        assert!(slots.len() <= usize::from(HOSTS_MAX), "{} hosts: at most {HOSTS_MAX}", slots.len());
        let hosts = slots.len() as u16;
        let own = *slots.get(usize::from(me.0)).expect("the host is one of those listed");
        let homes = Homes::new(hosts);
        let mut worker = Worker::new(me, own, hosts, Arc::clone(&program));
        worker.has_log = me == FIRST_ROOT || homes.backups(copies_max).any(|backup| backup == me);
        let mut follower = worker.has_log.then(|| Follower::new(Arc::clone(&program), told_words_max));
        let seat = Seat { me, slots: &slots, copies_max };
        let first = follower.take_if(|_| me == FIRST_ROOT);
        let head = first.map(|follower| Head::new(Arc::clone(&program), &seat, follower, &homes));
        Self {
            me,
            home: Home::new(program.store()),
            slots,
            program,
            told_words_max,
            copies_max,
            homes,
            worker,
            head,
            follower,
            copies: Vec::new(),
            gone: BTreeSet::new(),
            is_stranded: false,
            out: Out { me, own: VecDeque::new(), others: VecDeque::new() },
        }
    }

    /// The run begins.
    pub fn handle_start(&mut self, now: Nanos) {
        self.settle(now);
    }

    /// A message has come. Messages of one host are handled once and in the order they were sent.
    pub fn handle_message(&mut self, now: Nanos, from: Host, message: Message) {
        self.handle_messages(now, [(from, message)]);
    }

    /// Messages have come.
    pub fn handle_messages(&mut self, now: Nanos, messages: impl IntoIterator<Item = (Host, Message)>) {
        for (from, message) in messages {
            self.on_message(now, from, message);
        }
        self.settle(now);
    }

    /// A run is over.
    pub fn handle_ran(&mut self, now: Nanos, key: RunKey, ran: Ran) {
        self.worker.ran(now, key, ran, &self.homes, &mut self.out);
        self.settle(now);
    }

    /// The membership has given a host up for good. It says so of all hosts in the same order everywhere, and to a host itself
    /// before those that come later: that one must end. Without the word of a membership, only the root may be told, of others.
    pub fn handle_lost(&mut self, now: Nanos, host: Host) {
        self.gone.insert(host);
        if self.head.is_some() {
            self.lose(host);
        } else if self.gone.contains(&self.homes.root()) && self.is_next() {
            self.succeed();
        }
        self.settle(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Nanos) {
        self.settle(now);
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<(Host, Message)> {
        self.out.others.pop_front()
    }

    /// Whether there is something to send.
    #[must_use]
    pub fn has_messages(&self) -> bool {
        !self.out.others.is_empty()
    }

    /// Whether there is output to release.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.head.as_ref().is_some_and(|head| !head.ledger.facts.output.is_taken())
    }

    /// Whether a slot has nothing to do.
    #[must_use]
    pub fn has_free_slot(&self) -> bool {
        self.worker.has_free_slot()
    }

    /// The next runner to run.
    pub fn poll_run(&mut self) -> Option<Run> {
        self.worker.poll_run()
    }

    /// What else happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(key) = self.worker.poll_arrived() {
            return Some(Event::PageReady(key));
        }
        if std::mem::take(&mut self.is_stranded) {
            return Some(Event::Stranded);
        }
        if let Some(follower) = &mut self.follower {
            return follower.poll_happened().map(Event::Happened);
        }
        let head = self.head.as_mut()?;
        if let Some(happened) = head.poll_happened() {
            return Some(Event::Happened(happened));
        }
        head.poll_over(&self.home).map(|report| Event::Over(Box::new(report)))
    }

    /// How many runners ended on each host, as far as the log here says.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<Host, u64> {
        let ledger = self.head.as_ref().map(|head| &head.ledger).or(self.follower.as_ref().map(|follower| &follower.ledger));
        ledger.map(|ledger| ledger.ends().clone()).unwrap_or_default()
    }

    /// How long commits of each host took that needed another one, in nanoseconds, as far as hosts have told. Only at the root.
    #[must_use]
    pub fn took(&self) -> BTreeMap<Host, Vec<u64>> {
        self.head.as_ref().map(|head| head.took.clone()).unwrap_or_default()
    }

    /// Whether this is the root, and every host that shall have the log has it.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        self.head.as_ref().is_some_and(Head::is_covered)
    }

    /// Whether somebody waits for the end of a run: nobody does if the root that started it was lost meanwhile.
    #[must_use]
    pub fn is_wanted(&self, key: RunKey) -> bool {
        self.worker.is_wanted(key)
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        self.head.as_ref().and_then(Head::poll_timeout)
    }

    /// The host that gives out timestamps and releases output, as far as this one has heard.
    #[must_use]
    pub const fn root(&self) -> Host {
        self.homes.root()
    }

    /// Output of committed runners since the last time, and where in all output it begins. Only at the root. A new root begins with
    /// the first that it still has.
    pub fn take_output(&mut self) -> (u64, Vec<u8>) {
        self.head.as_mut().map(|head| head.ledger.facts.output.take()).unwrap_or_default()
    }

    /// A page as the snapshot of a run shows it; `None`: it is asked for, and [`Event::PageReady`] follows.
    pub fn page(&mut self, key: RunKey, page: u64) -> Option<Page> {
        if self.worker.has_log || self.homes.of(page) == self.me {
            return self.worker.epoch(key).map(|epoch| self.home.at(page, epoch));
        }
        self.worker.page(key, page, &self.homes, &mut self.out)
    }

    /// The pages around one, which a file fills, that are the file's in every snapshot from now on back to the first.
    #[must_use]
    pub fn unchanged(&self, page: u64) -> Range<u64> {
        let within = self.program.file_around(page).unwrap_or(page..page);
        self.worker.unchanged(&within, page)
    }

    /// The timestamp of the version that a run's snapshot shows of a page.
    #[must_use]
    pub fn version(&self, key: RunKey, page: u64) -> Option<Timestamp> {
        self.worker.epoch(key).map(|epoch| self.worker.version(page, epoch))
    }

    /// The slot of a run that is not over.
    #[must_use]
    pub fn slot(&self, key: RunKey) -> Option<usize> {
        self.worker.slot(key)
    }

    /// Memory that runners of this host may allocate.
    pub const fn arena(&mut self) -> &mut Arena {
        &mut self.worker.arena
    }

    /// Versions of pages kept as a home.
    #[must_use]
    pub fn versions(&self) -> usize {
        self.home.store().versions()
    }

    fn on_message(&mut self, now: Nanos, from: Host, message: Message) {
        if !self.homes.is_member(from) {
            if is(Plant::LostRootTrusted) && matches!(message, Message::Records { .. }) {
                self.out.send(from, Message::Stored(Timestamp(u64::MAX)));
            }
            return;
        }
        match message {
            Message::Prepare { txn, epoch, author, changes, reads } => {
                let asked = Asked { txn, epoch, author, changes: &changes, reads: &reads };
                let answer = match self.home.prepare(&asked) {
                    Ok(()) => Message::Prepared(txn),
                    Err(conflict) => Message::Refused(txn, conflict),
                };
                self.out.send(from, answer);
            }
            Message::Release(txn) if txn.host == from || from == self.homes.root() => self.home.release(txn),
            Message::Fetch(wanted) => {
                let pages = wanted.into_iter().map(|(page, at)| (at, Delta::whole(page, &self.home.at(page, at)))).collect();
                self.out.send(from, Message::Pages(pages));
            }
            Message::Pages(pages) => self.worker.pages(from, pages),
            Message::Prepared(txn) => self.worker.prepared(from, txn, &self.homes, &mut self.out),
            Message::Refused(txn, conflict) => self.worker.refused(from, txn, conflict, &self.homes, &mut self.out),
            // Roots follow each other in the order of hosts: from a former one it is too late.
            Message::Root if from > self.homes.root() => self.follow(from),
            Message::Start(_)
            | Message::Recall(_)
            | Message::Advance { .. }
            | Message::Apply(..)
            | Message::Settled(..)
            | Message::Lost(_)
                if from == self.homes.root() =>
            {
                self.on_word_of_root(now, message);
            }
            Message::Records { .. } | Message::Copies(_) | Message::State(_) if from == self.homes.root() => {
                self.on_log(from, message);
            }
            Message::Returned(_)
            | Message::Oldest(_)
            | Message::Took(_)
            | Message::Commit(_)
            | Message::Applied(_)
            | Message::Ended(..)
            | Message::Stored(_)
            | Message::Doubt(_) => self.on_word_to_root(now, from, message),
            // From one who has no right to say so.
            Message::Release(_)
            | Message::Start(_)
            | Message::Recall(_)
            | Message::Advance { .. }
            | Message::Apply(..)
            | Message::Settled(..)
            | Message::Lost(_)
            | Message::Records { .. }
            | Message::Copies(_)
            | Message::State(_)
            | Message::Root => {}
        }
    }

    fn on_word_of_root(&mut self, now: Nanos, message: Message) {
        match message {
            Message::Start(runners) => self.worker.start(runners, &self.homes, &mut self.out),
            Message::Recall(count) => self.worker.recall(count, &self.homes, &mut self.out),
            Message::Advance { watermark, oldest, commits } => {
                self.worker.advance(watermark, oldest, &commits, &self.homes);
                self.home.forget(oldest);
                if let Some(follower) = &mut self.follower {
                    follower.advance(watermark, oldest);
                }
            }
            Message::Apply(txn, at) if self.head.is_none() => {
                self.home.apply(txn, at);
                self.out.send(self.homes.root(), Message::Applied(at));
            }
            Message::Settled(txn, is_committed) => self.worker.settled(now, txn, is_committed, &mut self.out),
            Message::Lost(host) => self.lose(host),
            _ => {}
        }
    }

    fn on_word_to_root(&mut self, now: Nanos, from: Host, message: Message) {
        let Some(head) = &mut self.head else { return };
        match message {
            Message::Returned(ids) => head.scheduler.returned(from, &ids),
            Message::Oldest(oldest) => head.told_oldest(from, oldest),
            Message::Took(times) => head.told_times(from, times),
            Message::Commit(commit) => head.commit(now, from, *commit, &mut self.home, &self.homes, &mut self.out),
            Message::Applied(at) => head.applied(from, at),
            Message::Ended(finished, end) => head.ended(now, from, &finished, end, &mut self.home),
            Message::Stored(at) => head.stored(from, at),
            Message::Doubt(txns) => head.doubt(from, &txns, &self.home),
            _ => {}
        }
    }

    /// The root's log, as a backup gets it.
    fn on_log(&mut self, from: Host, message: Message) {
        match message {
            Message::Records { records, stable, statistics } => {
                let Some(follower) = &mut self.follower else { return };
                follower.record(records, stable, statistics, &mut self.home);
            }
            Message::Copies(copies) => return self.copies.extend(copies),
            Message::State(state) => {
                let facts = &state.facts;
                let applied = facts.decided.keys().chain(facts.pending.iter().map(|pending| &pending.txn));
                self.home.restore(state.newest, std::mem::take(&mut self.copies), applied);
                self.follower = Some(Follower::of(Arc::clone(&self.program), self.told_words_max, *state));
                self.worker.has_log = true;
            }
            _ => return,
        }
        self.out.send(from, Message::Stored(self.home.store().newest()));
    }

    /// Whether of all hosts that are left this is the first.
    fn is_next(&self) -> bool {
        self.homes.members().find(|host| !self.gone.contains(host)) == Some(self.me)
    }

    /// The root is lost, and this host is the next: it goes on with the log as it has it.
    fn succeed(&mut self) {
        let Some(follower) = self.follower.take() else {
            self.is_stranded = true;
            return;
        };
        for host in self.gone.clone() {
            self.homes.lose(host);
            // What stands of its commits is in the log, and so in this home.
            self.home.lose(host);
        }
        self.follow(self.me);
        self.homes.members().filter(|member| *member != self.me).for_each(|member| self.out.send(member, Message::Root));
        let seat = Seat { me: self.me, slots: &self.slots, copies_max: self.copies_max };
        let mut head = Head::succeed(Arc::clone(&self.program), &seat, follower, &self.home, &self.homes, &mut self.out);
        for host in &self.gone {
            head.lose(*host, &self.home, &self.homes, &mut self.out);
            self.worker.lose(*host, &self.homes, &mut self.out);
        }
        self.head = Some(head);
    }

    /// There is a new root.
    fn follow(&mut self, root: Host) {
        self.homes.set_root(root);
        self.copies.clear();
        self.worker.follow(&self.homes, &mut self.out);
    }

    fn lose(&mut self, host: Host) {
        if host == self.me || !self.homes.lose(host) {
            return;
        }
        self.home.lose(host);
        if let Some(head) = &mut self.head {
            head.lose(host, &self.home, &self.homes, &mut self.out);
        }
        self.worker.lose(host, &self.homes, &mut self.out);
    }

    /// Delivers what this host says to itself, and goes on with what became possible.
    fn settle(&mut self, now: Nanos) {
        loop {
            while let Some(message) = self.out.own.pop_front() {
                self.on_message(now, self.me, message);
            }
            if let Some(head) = &mut self.head {
                head.proceed(now, &self.home, &self.homes, &mut self.out);
            }
            self.worker.tell_oldest(&self.homes, &mut self.out);
            if self.out.own.is_empty() {
                return;
            }
        }
    }
}
