//! Home: takes over the transactions that kernel programs have begun.
//!
//! Owns the step from a program's record to a deal. Must not end a transaction: from here on it is one like any other.
//!
//! A program locks a page, names its record of acknowledgements, and tells the readers. Whatever brings this node to the page next (the
//! request itself, mostly; its retry; the last acknowledgement; a discard; a death) finds it busy without a deal, and the record
//! named, or about to be.

use crate::face::Nanos;
use crate::limits::RTO_MIN;
use crate::node::Node;
use crate::plant::{Plant, is, pause};
use crate::transient::{Asked, Deal, Pending, Phase, Then, Waiter};
use dsm_fast::{Acks, Entry, Opened, State};
use dsm_wire::{Line, Message, NodeId, PageNumber, RequestId};

impl Node {
    /// Where acknowledgements are counted with the kernel programs.
    pub(crate) fn shared_acks(&self) -> Option<Acks> {
        pause();
        self.acks
    }

    /// Takes over the transaction that a program has begun on `page`, if there is one, for the request it was begun for. `asked` is
    /// the request that has brought this node here.
    pub(crate) fn adopt(&mut self, page: PageNumber, asked: Option<&Asked>) -> Option<RequestId> {
        let has_deal = self.transients.get(&page).is_some_and(|transient| transient.deal.is_some());
        if has_deal || is(Plant::TransactionNotAdopted) {
            return None;
        }
        let acks = self.shared_acks()?;
        let opened = acks.opened(page).filter(|opened| self.is_busy_with(opened))?;
        let Opened { request, era, spared, is_told, .. } = opened;
        let writer = request.requester();
        let pending = if is_told {
            acks.adopt(page);
            Pending::Counted
        } else {
            acks.end(request, page);
            let sharers = self.entry(page).sharers;
            Pending::Listed(self.members_of(sharers).filter(|node| *node != writer && *node != spared).collect())
        };
        let is_misled = is(Plant::SparedByRetry) && asked.is_some_and(|asked| asked.request == request && asked.copy.is_some());
        let is_upgrade = spared == writer || is_misled;
        let then = if is_upgrade { Then::Upgrade } else { Then::Forward(spared) };
        let line = asked.filter(|asked| asked.request == request).map_or(Line::default(), |asked| asked.line);
        let phase = Phase::Acks { pending, then };
        self.deal(page, Deal { request, line, era, phase, deadline: None, tries: 0 });
        self.counters.fan_outs_adopted += 1;
        if !self.peers.contains_key(&writer) || !self.peers.contains_key(&spared) {
            // They died while the program was at work: nobody has the page any more, or is to get it.
            self.lose(page, era);
        } else if is_told {
            self.await_told(page, request, era);
        } else {
            self.send_deal(page);
        }
        self.proceed(page);
        self.settle(page);
        Some(request)
    }

    fn is_busy_with(&self, opened: &Opened) -> bool {
        let Entry { word, .. } = self.entry(opened.page);
        word.is_busy() && word.state() == State::Shared && word.era().0.checked_add(1) == Some(opened.era.0)
    }

    /// The program has told everybody but this node; the dead do not answer.
    fn await_told(&mut self, page: PageNumber, request: RequestId, era: dsm_wire::Era) {
        let left = self.left(page, &Pending::Counted);
        for node in &left {
            if *node == self.me {
                self.send(*node, Message::Invalidate { request, page, era });
            } else if !self.peers.contains_key(node) {
                self.acknowledge(page, *node);
            }
        }
        let slowest: NodeId = left.first().copied().unwrap_or(self.me);
        let deadline: Nanos = self.now + self.timeout(slowest, 0);
        if let Some(deal) = self.transients.get_mut(&page).and_then(|transient| transient.deal.as_mut()) {
            deal.deadline = Some(deadline);
        }
    }

    /// Has `waiter` wait until `page`, which is busy, is at rest.
    pub(crate) fn wait(&mut self, page: PageNumber, waiter: Waiter) {
        match waiter {
            Waiter::Request(asked) => self.enqueue(page, asked),
            Waiter::Discard(_) => self.transients.entry(page).or_default().waiters.push_back(waiter),
        }
        self.watch(page);
    }

    /// If somebody waits for `page` and a program keeps it busy, its transaction is taken over; or, not being named yet, looked for
    /// again.
    pub(crate) fn watch(&mut self, page: PageNumber) {
        let is_waited_for =
            self.transients.get(&page).is_some_and(|transient| transient.deal.is_none() && !transient.waiters.is_empty());
        let word = self.entry(page).word;
        let is_programs = word.is_busy() && word.state() == State::Shared;
        if !is_waited_for || !is_programs || self.adopt(page, None).is_some() {
            return;
        }
        if let Some(transient) = self.transients.get_mut(&page) {
            transient.look_at = Some(self.now + RTO_MIN);
        }
        self.settle(page);
    }

    pub(crate) fn on_look_due(&mut self, page: PageNumber) {
        let now = self.now;
        let transient = self.transients.get_mut(&page);
        if transient.is_some_and(|transient| transient.look_at.take_if(|look_at| *look_at <= now).is_some()) {
            self.watch(page);
        }
    }
}
