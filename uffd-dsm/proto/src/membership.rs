//! Membership: what becomes of what the dead had, owed or were asked.
//!
//! Owns the walk over every table when the epoch changes. Must not decide who is dead.

use crate::extent::{Extent, Form, LocalState};
use crate::face::{Contents, PageOp};
use crate::node::Node;
use crate::operation::{Follow, Operation};
use crate::transient::{Phase, Waiter};
use alloc::boxed::Box;
use alloc::vec::Vec;
use dsm_fast::{Entry, State, Step};
use dsm_wire::{Epoch, ExtentNumber, NodeId, PageNumber, PageRange};

impl Node {
    pub(crate) fn on_membership(&mut self, epoch: Epoch, members: &[NodeId]) {
        self.epoch = epoch;
        let me = self.me;
        let dead: Vec<NodeId> = self.peers.keys().copied().filter(|node| !members.contains(node) && *node != me).collect();
        self.peers.retain(|node, _| members.contains(node) || *node == me);
        if dead.is_empty() {
            return;
        }
        self.bury_transients(&dead);
        self.bury_entries(&dead);
        self.bury_homes();
        self.forget_dead_homes();
        self.jobs.is_dirty = true;
    }

    /// Grants to the dead are not sent again, their requests not served, their answers not awaited.
    fn bury_transients(&mut self, dead: &[NodeId]) {
        let pages: Vec<PageNumber> = self.transients.keys().copied().collect();
        for page in pages {
            let Some(transient) = self.transients.get_mut(&page) else { continue };
            let peers = &self.peers;
            let held = transient.held.take_if(|held| !peers.contains_key(&held.to));
            transient.waiters.retain(|waiter| match waiter {
                Waiter::Request(asked) => peers.contains_key(&asked.request.requester()),
                Waiter::Discard(_) => true,
            });
            for node in dead {
                self.acknowledge(page, *node);
            }
            if let Some(held) = held {
                self.free(&held.contents);
            }
            self.settle(page);
        }
    }

    fn bury_entries(&mut self, dead: &[NodeId]) {
        let homed: Vec<ExtentNumber> =
            self.extents.iter().filter(|(_, extent)| matches!(extent.form, Form::Split(..))).map(|(number, _)| *number).collect();
        for number in homed {
            for index in 0..dsm_wire::PAGES_PER_EXTENT as usize {
                self.bury_entry(number.page(index), dead);
            }
        }
    }

    fn bury_entry(&mut self, page: PageNumber, dead: &[NodeId]) {
        self.adopt(page, None);
        let Entry { word, .. } = self.entry(page);
        if word.state() == State::Shared {
            dead.iter().for_each(|node| self.change(page, Step::Left(*node)));
        }
        if word.state() == State::Shared && dead.contains(&word.owner()) && self.local(page).era == word.era() {
            let me = self.me;
            let has_copy = self.local(page).state == LocalState::Shared;
            if has_copy {
                self.change(page, Step::Provider(me));
            }
        }
        let word = self.entry(page).word;
        let is_gone = matches!(word.state(), State::Shared | State::Owned) && dead.contains(&word.owner());
        match self.dead_end(page, dead) {
            Some(era) => self.lose(page, era),
            // A transaction among the living ends by itself, and names a living owner; a program's that is not named yet is judged
            // when it is taken over.
            None if is_gone && self.try_change(page, Step::Lock) => self.lose(page, word.era()),
            None => {}
        }
        self.proceed(page);
        self.settle(page);
    }

    /// The era of the transaction on `page` if it can only end by an answer of the dead.
    fn dead_end(&self, page: PageNumber, dead: &[NodeId]) -> Option<dsm_wire::Era> {
        let deal = self.transients.get(&page).and_then(|transient| transient.deal.as_ref())?;
        let is_dead = match &deal.phase {
            Phase::Granted { provider } => dead.contains(provider) || dead.contains(&deal.request.requester()),
            Phase::Acks { then: crate::transient::Then::Forget, .. } => false,
            Phase::Acks { then: crate::transient::Then::Upgrade, .. } => dead.contains(&deal.request.requester()),
            Phase::Acks { then: crate::transient::Then::Forward(provider), .. } => {
                dead.contains(provider) || dead.contains(&deal.request.requester())
            }
        };
        is_dead.then_some(deal.era)
    }

    /// The page's content is gone: every waiter, and everybody who asks later, is told so.
    pub(crate) fn lose(&mut self, page: PageNumber, era: dsm_wire::Era) {
        let word = self.entry(page).word;
        let deal = self.transients.get(&page).and_then(|transient| transient.deal.as_ref());
        let requester = deal.map(|deal| deal.request.requester());
        let owner = matches!(word.state(), State::Owned | State::Shared).then_some(word.owner());
        self.change(page, Step::LostAt(era));
        // These may have a copy, or be about to get one: a discard has to ask them too.
        for node in [requester, owner].into_iter().flatten() {
            self.change(page, Step::Joined(node));
        }
        self.finish(page);
    }

    /// Extents whose home, or unknowing anchor, is dead have no directory any more.
    fn bury_homes(&mut self) {
        let peers = &self.peers;
        let lost: Vec<ExtentNumber> = self
            .extents
            .iter()
            .filter(|(_, extent)| matches!(&extent.form, Form::Remote(home, _) if !peers.contains_key(home)))
            .map(|(number, _)| *number)
            .collect();
        for number in lost {
            self.drop_copies(number);
            if let Some(extent) = self.extents.get_mut(&number) {
                extent.form = Form::Lost;
            }
            self.forget_asks(number);
            self.pursue_extent(number);
        }
        let searched: Vec<ExtentNumber> = self.searches.keys().copied().collect();
        for number in searched {
            if !self.peers.contains_key(&self.anchor_of(number)) {
                self.end_search(number);
                self.extents.entry(number).or_insert_with(|| Box::new(Extent::unknown()));
                self.settle_home(number, None);
            }
        }
    }

    /// Nobody can order this node's copies of a lost extent away any more: they go now, and what is in flight follows
    /// in [`Node::on_done_in_lost`].
    fn drop_copies(&mut self, number: ExtentNumber) {
        for page in crate::node::whole_extent(number).pages() {
            let has_copy = matches!(self.local(page).state, LocalState::Shared | LocalState::Modified);
            if has_copy && !self.operations.is_on(page) {
                self.start(PageOp::Drop { range: PageRange::new(page, 1) }, Follow::DropLost);
            }
        }
    }

    /// An operation ended in an extent that was lost meanwhile: what it left is dropped.
    pub(crate) fn on_done_in_lost(&mut self, op: &Operation, contents: &Contents) {
        self.free(contents);
        match op.follow {
            Follow::DropLost
            | Follow::Invalidate { .. }
            | Follow::Forget { .. }
            | Follow::ForgetOwn { .. }
            | Follow::Take { .. } => {}
            Follow::Evict => self.on_evicted(op.range),
            Follow::Poison => self.on_poisoned(op.range.first),
            Follow::FirstTouch { .. }
            | Follow::Refresh
            | Follow::AcceptWrite { .. }
            | Follow::AcceptRead { .. }
            | Follow::ServeRead { .. }
            | Follow::ServeBatch { .. }
            | Follow::Pin
            | Follow::Unpin => self.start(PageOp::Drop { range: op.range }, Follow::DropLost),
        }
    }

    /// Requests on their way to a home that is gone are not on their way any more.
    fn forget_asks(&mut self, extent: ExtentNumber) {
        let range = crate::node::whole_extent(extent);
        for (_, transient) in self.transients.range_mut(range.first..range.end()) {
            if let Some(want) = &mut transient.want {
                want.ask = None;
            }
        }
    }
}
