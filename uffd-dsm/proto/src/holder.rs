//! Holder: serves readers, hands the page over, drops copies; always on the home's order.
//!
//! Owns `held` of a transient. Must not decide who gets a page.

use crate::extent::{Form, Local, LocalState};
use crate::face::{Contents, PageContent, PageOp};
use crate::node::Node;
use crate::operation::{Follow, Operation};
use crate::plant::{Plant, is};
use crate::transient::Held;
use dsm_wire::{Era, GrantContent, Message, NodeId, PageNumber, PageRange, RequestId, Rights};

impl Node {
    pub(crate) fn on_forward(&mut self, from: NodeId, request: RequestId, page: PageNumber, rights: Rights, era: Era) {
        if self.home_of(page) != Some(from) {
            self.counters.dropped_nonsense += 1;
            return;
        }
        match rights {
            Rights::Read => self.on_forward_read(from, request, page, era),
            Rights::Write => self.on_forward_write(from, request, page, era),
        }
    }

    fn on_forward_read(&mut self, home: NodeId, request: RequestId, page: PageNumber, era: Era) {
        let local = self.local(page);
        let range = PageRange::new(page, 1);
        let follow = Follow::ServeRead { request, era };
        match local.state {
            LocalState::Modified if local.era == era && is(Plant::ReadWithoutProtect) => {
                self.start(PageOp::Read { range }, follow)
            }
            LocalState::Modified if local.era == era => self.start(PageOp::ProtectRead { range }, follow),
            LocalState::Shared if local.era == era => self.start(PageOp::Read { range }, follow),
            LocalState::Invalid | LocalState::Shared | LocalState::Modified | LocalState::Poisoned => {
                self.counters.dropped_stale += 1;
                self.send(request.requester(), Message::Retry { request, page, home: Some(home) });
            }
        }
    }

    fn on_forward_write(&mut self, home: NodeId, request: RequestId, page: PageNumber, era: Era) {
        let local = self.local(page);
        if era > local.era {
            match local.state {
                LocalState::Shared | LocalState::Modified => {
                    self.start(PageOp::Take { page }, Follow::Take { request, era, home });
                }
                // A provider always has a copy; the home asks again until membership says otherwise.
                LocalState::Invalid | LocalState::Poisoned => self.counters.dropped_stale += 1,
            }
            return;
        }
        self.counters.dropped_stale += 1;
        let held = self.transients.get(&page).and_then(|transient| transient.held);
        if held.is_some_and(|held| held.era == era) {
            self.send_held(page);
        } else {
            self.send(home, Message::Done { request, page, era });
        }
    }

    pub(crate) fn on_invalidate(&mut self, from: NodeId, request: RequestId, page: PageNumber, era: Era) {
        if self.home_of(page) != Some(from) {
            // Nothing of an extent whose home is unknown is here: the order is carried out already.
            self.send(from, Message::InvalidateAck { request, page, era });
            return;
        }
        let local = self.local(page);
        let has_copy = match local.state {
            LocalState::Shared | LocalState::Modified | LocalState::Poisoned => local.era < era,
            LocalState::Invalid => false,
        };
        if has_copy {
            if is(Plant::AckBeforeDrop) {
                self.send(from, Message::InvalidateAck { request, page, era });
            }
            self.start(PageOp::Drop { range: PageRange::new(page, 1) }, Follow::Invalidate { request, era, home: from });
        } else {
            if !is(Plant::InstallAfterInvalidate) {
                self.set_local(page, Local { era: local.era.max(era), ..local });
            }
            self.send(from, Message::InvalidateAck { request, page, era });
        }
    }

    /// What follows an operation that is done.
    pub(crate) fn on_done(&mut self, op: Operation, contents: Contents) {
        let page = op.range.first;
        if self.extents.get(&page.extent()).is_some_and(|extent| matches!(extent.form, Form::Lost)) {
            self.on_done_in_lost(&op, &contents);
            return;
        }
        match op.follow {
            Follow::FirstTouch { page, fault } => {
                self.note_come(op.range);
                self.report(page, &fault);
            }
            Follow::Refresh => self.on_refreshed(page),
            Follow::AcceptWrite { request, era, grantor } => self.on_write_accepted(page, request, era, grantor),
            Follow::AcceptRead { era } => self.on_read_accepted(op.range, era),
            Follow::ServeRead { request, era } => self.on_read_for_forward(page, request, era, contents),
            Follow::ServeBatch { request, era } => self.on_batch_read(op.range, request, era, contents),
            Follow::Take { request, era, home } => self.on_taken(page, request, era, home, contents),
            Follow::Invalidate { request, era, home } => self.on_invalidated(page, request, era, home),
            Follow::Forget { job } => self.on_page_forgotten(job),
            Follow::ForgetOwn { job } => self.on_own_forgotten(op.range, job),
            Follow::Evict => self.on_evicted(op.range),
            Follow::Pin => self.on_protected_for_pin(page, &contents),
            Follow::Unpin | Follow::DropLost => {}
            Follow::Poison => self.on_poisoned(page),
        }
    }

    fn on_read_for_forward(&mut self, page: PageNumber, request: RequestId, era: Era, contents: Contents) {
        if self.local(page).state == LocalState::Modified {
            self.note_departure(page);
            self.note_provider(page);
        }
        self.set_local(page, Local { state: LocalState::Shared, era });
        self.grant_read(request, page, era, contents);
    }

    /// Sends read copies of pages that are read-only here; all of `contents` is of one kind.
    pub(crate) fn grant_read(&mut self, request: RequestId, page: PageNumber, era: Era, contents: Contents) {
        let count = contents.len().max(1);
        let is_zero = contents.buffers().next().is_none();
        let (content, payload) = if is_zero { (GrantContent::Zero, Contents::EMPTY) } else { (GrantContent::Bytes, contents) };
        self.counters.grants_read += 1;
        self.counters.grants_ahead += u64::from(count - 1);
        let grant = Message::Grant { request, page, rights: Rights::Read, era, count, content };
        self.send_contents(request.requester(), grant, payload, false);
    }

    fn on_taken(&mut self, page: PageNumber, request: RequestId, era: Era, _home: NodeId, contents: Contents) {
        self.set_local(page, Local { state: LocalState::Invalid, era });
        self.counters.pages_taken += 1;
        self.note_departure(page);
        self.note_gone(page);
        let content = match contents.as_slice().first() {
            Some(PageContent::Buffer(_)) => GrantContent::Bytes,
            Some(PageContent::Zero) | None => GrantContent::Zero,
        };
        self.hold(page, request, era, content, if content == GrantContent::Bytes { contents } else { Contents::EMPTY });
    }

    fn on_invalidated(&mut self, page: PageNumber, request: RequestId, era: Era, home: NodeId) {
        self.set_local(page, Local { state: LocalState::Invalid, era });
        self.counters.copies_dropped += 1;
        self.note_gone(page);
        if !is(Plant::AckBeforeDrop) {
            self.send(home, Message::InvalidateAck { request, page, era });
        }
    }

    /// Gives the page away for good: kept, and sent again, until the requester says that it is installed.
    pub(crate) fn hold(&mut self, page: PageNumber, request: RequestId, era: Era, content: GrantContent, contents: Contents) {
        match content {
            GrantContent::Copy => self.counters.grants_upgrade += 1,
            GrantContent::Bytes | GrantContent::Zero => self.counters.grants_write += 1,
        }
        let to = request.requester();
        if !self.peers.contains_key(&to) {
            // It died meanwhile; the home, which waits for it, knows the page as lost.
            self.free(&contents);
            return;
        }
        if to == self.me {
            // One role of this node to another: that is never lost, and the bytes go with it.
            let grant = Message::Grant { request, page, rights: Rights::Write, era, count: 1, content };
            self.send_contents(to, grant, contents, false);
            return;
        }
        let deadline = self.now + self.timeout(to, 0);
        let held = Held { request, to, era, content, contents, deadline, tries: 0 };
        let old = self.transients.entry(page).or_default().held.replace(held);
        if let Some(old) = old {
            self.free(&old.contents);
        }
        self.transmit_held(page, &held);
        self.settle(page);
    }

    fn transmit_held(&mut self, page: PageNumber, held: &Held) {
        let Held { request, era, content, .. } = *held;
        let grant = Message::Grant { request, page, rights: Rights::Write, era, count: 1, content };
        self.send_contents(held.to, grant, held.contents, true);
    }

    fn send_held(&mut self, page: PageNumber) {
        let Some(held) = self.transients.get(&page).and_then(|transient| transient.held) else { return };
        self.counters.grants_again += 1;
        let again = Held { tries: held.tries + 1, deadline: self.now + self.timeout(held.to, held.tries + 1), ..held };
        if let Some(transient) = self.transients.get_mut(&page) {
            transient.held = Some(again);
        }
        self.transmit_held(page, &again);
    }

    pub(crate) fn on_held_due(&mut self, page: PageNumber) {
        let held = self.transients.get(&page).and_then(|transient| transient.held);
        if held.is_some_and(|held| held.deadline <= self.now) {
            self.send_held(page);
        }
    }

    /// The exclusive grant of `era` has arrived: its bytes are not needed here any more.
    pub(crate) fn release_held(&mut self, from: NodeId, page: PageNumber, era: Era) {
        let Some(transient) = self.transients.get_mut(&page) else { return };
        if let Some(held) = transient.held.take_if(|held| held.era == era && held.to == from) {
            self.free(&held.contents);
        }
        self.settle(page);
    }

    /// The page came back in a later era: what is still held of an earlier one has arrived long ago.
    pub(crate) fn free_held_before(&mut self, page: PageNumber, era: Era) {
        let Some(transient) = self.transients.get_mut(&page) else { return };
        if let Some(held) = transient.held.take_if(|held| held.era < era) {
            self.free(&held.contents);
        }
    }
}
