//! One host of a run: events in, actions out.
//!
//! Owns the ways between root, home and worker of a host, and to those of others. Must not perform anything.

use crate::head::{Happened, Head};
use crate::home::{Asked, Home};
use crate::limits::HOSTS_MAX;
use crate::message::{Host, Message, ROOT};
use crate::place::Homes;
use crate::program::Program;
use crate::worker::{Run, RunKey, Worker};
use crate::{Delta, Nanos};
use dvm_disa::machine::arena::Arena;
use dvm_disa::machine::page::Page;
use dvm_disa::machine::report::Report;
use dvm_disa::machine::runner::Ran;
use dvm_disa::machine::store::Timestamp;
use std::collections::VecDeque;
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
}

/// What a host has to say beside messages.
#[derive(Clone, Debug)]
pub enum Event {
    /// A page that this run waits for has come: ask again.
    PageReady(RunKey),
    /// A runner has ended. Only at the root.
    Happened(Happened),
    /// The program is over. Only at the root, once.
    Over(Box<Report>),
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
    homes: Homes,
    home: Home,
    worker: Worker,
    head: Option<Head>,
    out: Out,
}

impl Node {
    /// A host before anything has happened.
    ///
    /// # Panics
    /// If it is not among the hosts, or they are too many.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let Config { me, slots, program, told_words_max } = config;
        assert!(slots.len() <= usize::from(HOSTS_MAX), "{} hosts: at most {HOSTS_MAX}", slots.len());
        let hosts = slots.len() as u16;
        let own = *slots.get(usize::from(me.0)).expect("the host is one of those listed");
        let head = (me == ROOT).then(|| Head::new(Arc::clone(&program), &slots, told_words_max));
        let home = Home::new(program.store());
        let out = Out { me, own: VecDeque::new(), others: VecDeque::new() };
        Self { me, homes: Homes::new(hosts), home, worker: Worker::new(me, own, hosts, program), head, out }
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
        self.worker.ran(key, ran, &self.homes, &mut self.out);
        self.settle(now);
    }

    /// A host is of the run no more. At the root: it says so to all others.
    pub fn handle_lost(&mut self, now: Nanos, host: Host) {
        self.lose(host);
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

    /// Whether there is nothing to send and no output to release.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.out.others.is_empty() && self.head.as_ref().is_none_or(Head::has_no_output)
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
        let head = self.head.as_mut()?;
        if let Some(happened) = head.poll_happened() {
            return Some(Event::Happened(happened));
        }
        head.poll_over().map(|report| Event::Over(Box::new(report)))
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        self.head.as_ref().and_then(|head| head.scheduler.poll_timeout())
    }

    /// Output of committed runners since the last time. Only at the root.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.head.as_mut().map(Head::take_output).unwrap_or_default()
    }

    /// A page as the snapshot of a run shows it; `None`: it is asked for, and [`Event::PageReady`] follows.
    pub fn page(&mut self, key: RunKey, page: u64) -> Option<Page> {
        if self.me == ROOT || self.homes.of(page) == self.me {
            return self.worker.epoch(key).map(|epoch| self.home.at(page, epoch));
        }
        self.worker.page(key, page, &self.homes, &mut self.out)
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
            Message::Release(txn) if txn.host == from => self.home.release(txn),
            Message::Fetch(wanted) => {
                let pages = wanted.into_iter().map(|(page, at)| (at, Delta::whole(page, &self.home.at(page, at)))).collect();
                self.out.send(from, Message::Pages(pages));
            }
            Message::Pages(pages) => self.worker.pages(from, pages),
            Message::Prepared(txn) => self.worker.prepared(from, txn, &mut self.out),
            Message::Refused(txn, conflict) => self.worker.refused(from, txn, conflict, &mut self.out),
            Message::Start(_)
            | Message::Recall(_)
            | Message::Advance { .. }
            | Message::Apply(..)
            | Message::Settled(..)
            | Message::Lost(_)
                if from == ROOT =>
            {
                self.on_word_of_root(message);
            }
            Message::Returned(_)
            | Message::Oldest(_)
            | Message::Commit(_)
            | Message::Applied(_)
            | Message::Ended(..)
            | Message::Unreachable(_) => self.on_word_to_root(now, from, message),
            // From one who has no right to say so.
            Message::Release(_)
            | Message::Start(_)
            | Message::Recall(_)
            | Message::Advance { .. }
            | Message::Apply(..)
            | Message::Settled(..)
            | Message::Lost(_) => {}
        }
    }

    fn on_word_of_root(&mut self, message: Message) {
        match message {
            Message::Start(runners) => self.worker.start(runners, &self.homes, &mut self.out),
            Message::Recall(count) => self.worker.recall(count, &mut self.out),
            Message::Advance { watermark, oldest, commits } => {
                self.worker.advance(watermark, oldest, &commits, &self.homes);
                self.home.forget(oldest);
            }
            Message::Apply(txn, at) if self.me != ROOT => {
                self.home.apply(txn, at);
                self.out.send(ROOT, Message::Applied(at));
            }
            Message::Settled(txn, is_committed) => self.worker.settled(txn, is_committed, &mut self.out),
            Message::Lost(host) => self.lose(host),
            _ => {}
        }
    }

    fn on_word_to_root(&mut self, now: Nanos, from: Host, message: Message) {
        let Some(head) = &mut self.head else { return };
        match message {
            Message::Returned(ids) => head.scheduler.returned(from, &ids),
            Message::Oldest(oldest) => head.told_oldest(from, oldest),
            Message::Commit(commit) => head.commit(now, from, *commit, &mut self.home, &self.homes, &mut self.out),
            Message::Applied(at) => head.applied(from, at),
            Message::Ended(finished, end) => head.ended(now, from, &finished, end, &mut self.home),
            Message::Unreachable(host) => self.lose(host),
            _ => {}
        }
    }

    fn lose(&mut self, host: Host) {
        // Without the root nothing can go on: whoever drives this ends the run.
        if host == ROOT || !self.homes.lose(host) {
            return;
        }
        self.home.lose(host);
        if let Some(head) = &mut self.head {
            head.lose(host);
            self.homes.members().filter(|member| *member != ROOT).for_each(|member| self.out.send(member, Message::Lost(host)));
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
            self.worker.tell_oldest(&mut self.out);
            if self.out.own.is_empty() {
                return;
            }
        }
    }
}
