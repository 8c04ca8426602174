//! Home: one transaction at a time for each page, and the directory entry that results.
//!
//! Owns `deal` and `waiters` of a transient, and every change of a directory entry. Must not touch a page: what
//! this host holds itself it asks of its own holder half, like of any other.

use crate::extent::{Form, LocalState};
use crate::face::{Contents, Event, Frame, Nanos, PageContent, PageOp};
use crate::limits::{PAGES_PER_OP_MAX, TRANSIENTS_MAX, WAITERS_PER_PAGE_MAX};
use crate::node::{Node, whole_extent};
use crate::operation::Follow;
use crate::plant::{Plant, is};
use crate::transient::{Asked, Deal, Pending, Phase, Then, Waiter};
use alloc::vec::Vec;
use dsm_fast::{Entry, NARROW_NODES_MAX, Refused, Sharers, State, Step, Word};
use dsm_wire::{Era, GrantContent, Line, Message, NodeId, PAGES_PER_EXTENT, PageNumber, PageRange, RequestId, Rights};

/// Those of the pages asked for, from `page`, that come after the first `served`.
fn pages_after(page: PageNumber, served: u64, asked: Asked) -> PageRange {
    let room = PAGES_PER_EXTENT - page.index_in_extent() as u64;
    let count = u64::from(asked.count.clamp(1, PAGES_PER_OP_MAX)).min(room);
    PageRange::new(page.offset(served), count.saturating_sub(served))
}

/// Why a page was not made busy.
enum NotLocked {
    /// It was; the waiter waits.
    Waits,
    /// Its eras are used up.
    Lost,
}

impl Node {
    pub(crate) fn on_request(&mut self, page: PageNumber, frame: Frame) {
        let Message::Request { request, rights, count, copy, line, .. } = frame.message else { return };
        if request.requester() != frame.from {
            self.counters.dropped_nonsense += 1;
            return;
        }
        let is_unknown = self.extents.get(&page.extent()).is_none_or(|extent| matches!(extent.form, Form::Unknown));
        if is_unknown && self.rooted_home(page.extent()) == Some(self.me) {
            self.settle_home(page.extent(), Some(self.me));
        }
        match self.extents.get(&page.extent()).map(|extent| &extent.form) {
            None | Some(Form::Unknown) => {
                self.send(frame.from, Message::Retry { request, page, home: None });
                return;
            }
            Some(Form::Remote(home, _)) => {
                let home = Some(if is(Plant::ForwardLoop) { self.me } else { *home });
                self.send(frame.from, Message::Retry { request, page, home });
                return;
            }
            Some(Form::Lost) => {
                self.send(frame.from, Message::Lost { request, page, era: Era(u32::MAX) });
                return;
            }
            Some(Form::Whole(_)) => {
                if self.operations.overlapping(whole_extent(page.extent())).is_some() {
                    self.defer_extent(page, frame);
                    return;
                }
                self.split(page);
            }
            Some(Form::Split(..)) => {}
        }
        if self.transients.len() >= TRANSIENTS_MAX && frame.from != self.me && !self.transients.contains_key(&page) {
            self.counters.dropped_full += 1;
            return;
        }
        let asked = Asked { request, rights, count, copy, line };
        let adopted = self.adopt(page, Some(&asked));
        if !self.entry(page).word.is_busy() {
            self.serve(page, asked);
        } else if adopted != Some(request) {
            self.wait(page, Waiter::Request(asked));
        }
        self.settle(page);
    }

    fn split(&mut self, page: PageNumber) {
        let me = self.me;
        let is_wide = self.is_wide();
        if let Some(extent) = self.extents.get_mut(&page.extent()) {
            extent.split(me, is_wide);
            self.counters.extents_split += 1;
            self.emit(Event::DirectoryOpened(page.extent()));
        }
    }

    pub(crate) fn enqueue(&mut self, page: PageNumber, asked: Asked) {
        let transient = self.transients.entry(page).or_default();
        let is_known = transient.deal.as_ref().is_some_and(|deal| deal.request == asked.request)
            || transient.waiters.iter().any(|waiter| matches!(waiter, Waiter::Request(other) if other.request == asked.request));
        if is_known {
            self.counters.dropped_stale += 1;
        } else if transient.waiters.len() >= WAITERS_PER_PAGE_MAX {
            self.counters.dropped_full += 1;
        } else {
            transient.waiters.push_back(Waiter::Request(asked));
            self.counters.waits += 1;
        }
    }

    /// Serves a request on a page that was not busy a moment ago.
    fn serve(&mut self, page: PageNumber, asked: Asked) {
        let Entry { word, .. } = self.entry(page);
        let reader = asked.request.requester();
        match (word.state(), asked.rights) {
            (State::Fresh, _) => {
                self.grant_fresh(page, asked);
                self.serve_rest(page, 1, asked);
            }
            (State::Owned, _) if word.owner() == reader => self.counters.dropped_stale += 1,
            (State::Owned | State::Shared, Rights::Read) => self.serve_read(page, asked),
            (State::Owned | State::Shared, Rights::Write) => self.serve_write(page, asked),
            (State::Lost, _) => {
                self.change(page, Step::Joined(reader));
                self.send(reader, Message::Lost { request: asked.request, page, era: word.era() });
            }
        }
    }

    /// Nobody has the page: the requester gets it, zero, to write.
    fn grant_fresh(&mut self, page: PageNumber, asked: Asked) {
        let Asked { request, line, .. } = asked;
        let Ok(era) = self.lock_for(page, Waiter::Request(Asked { count: 1, ..asked })) else { return };
        self.deal(page, Deal { request, line, era, phase: Phase::Granted { provider: self.me }, deadline: None, tries: 0 });
        self.hold(page, request, era, GrantContent::Zero, Contents::EMPTY);
    }

    fn serve_read(&mut self, page: PageNumber, asked: Asked) {
        let Entry { word, .. } = self.entry(page);
        let reader = asked.request.requester();
        let local = self.local(page);
        let is_here = local.era == word.era() && matches!(local.state, LocalState::Shared | LocalState::Modified);
        let waits = if self.operations.is_on(page) {
            is_here || word.owner() == self.me
        } else {
            is_here && self.must_stay(page, asked.line)
        };
        if waits && reader != self.me {
            let Asked { request, rights, count, copy, line } = asked;
            let message = Message::Request { request, page, rights, count, copy, line };
            self.defer(page, Frame { from: reader, epoch: self.epoch, message, contents: Contents::EMPTY });
        } else if is_here && reader != self.me && self.is_unread(page) && !self.evictor.has_room_for(1) {
            // It passes through, and takes no memory here.
            self.serve_write(page, Asked { rights: Rights::Write, ..asked });
            self.serve_rest(page, 1, asked);
        } else if is_here && reader != self.me {
            self.read_batch(page, asked);
        } else if word.owner() == reader {
            self.counters.dropped_stale += 1;
        } else {
            if !is(Plant::ForgottenSharer) && !self.try_change(page, Step::Joined(reader)) {
                return self.wait(page, Waiter::Request(asked));
            }
            let Asked { request, line, .. } = asked;
            self.send(word.owner(), Message::Forward { request, page, rights: Rights::Read, era: word.era(), line });
            self.serve_rest(page, 1, asked);
        }
    }

    /// Home has the bytes: reads the page, and those after it that are as easily had.
    fn read_batch(&mut self, page: PageNumber, asked: Asked) {
        let era = self.entry(page).word.era();
        let taken = 1 + self.easily_read(pages_after(page, 1, asked), era, asked.request.requester());
        self.read_run(PageRange::new(page, taken), asked.request);
        self.serve_rest(page, taken, asked);
    }

    /// The pages asked for after the first `served` ones, each from whoever has it; of those that something is in the way of the
    /// requester is told.
    fn serve_rest(&mut self, page: PageNumber, served: u64, asked: Asked) {
        let mut rest = pages_after(page, served, asked);
        while rest.count > 0 {
            let era = self.entry(rest.first).word.era();
            let run = self.easily_read(rest, era, asked.request.requester());
            if run > 0 {
                self.read_run(PageRange::new(rest.first, run), asked.request);
            } else {
                self.serve_if_idle(rest.first, asked);
            }
            let done = run.max(1);
            rest = PageRange::new(rest.first.offset(done), rest.count - done);
        }
    }

    /// How many pages at the beginning of `range` are at home in this era, with nothing in the way.
    fn easily_read(&self, range: PageRange, era: Era, reader: NodeId) -> u64 {
        let mut coming = 0;
        let mut is_taken = |page: &PageNumber| {
            let is_coming = self.is_unread(*page);
            coming += u64::from(is_coming);
            self.is_easily_read(*page, era, reader) && (!is_coming || self.evictor.has_room_for(coming + 1))
        };
        range.pages().take_while(|page| is_taken(page)).count() as u64
    }

    /// Reads pages that are here, in one era, for a request.
    fn read_run(&mut self, range: PageRange, request: RequestId) {
        let era = self.entry(range.first).word.era();
        let mut has_modified = false;
        for page in range.pages() {
            self.evictor.spend(u64::from(self.is_unread(page)));
            if self.entry(page).word.state() == State::Owned {
                self.change(page, Step::Joined(self.me));
            }
            has_modified |= self.local(page).state == LocalState::Modified;
        }
        let op = if has_modified { PageOp::ProtectRead { range } } else { PageOp::Read { range } };
        self.start(op, Follow::ServeBatch { request, era });
    }

    /// Serves one page of several that were asked for, if nothing is in the way: nobody's becomes the requester's, and that of another
    /// host is sent by it. Else the requester is told.
    fn serve_if_idle(&mut self, page: PageNumber, asked: Asked) {
        let Entry { word, .. } = self.entry(page);
        let request = asked.request;
        let reader = request.requester();
        let is_elsewhere = matches!(word.state(), State::Owned | State::Shared) && ![self.me, reader].contains(&word.owner());
        if word.state() == State::Fresh && !word.is_busy() {
            self.grant_fresh(page, asked);
            self.settle(page);
        } else if is_elsewhere && !word.is_busy() && self.try_change(page, Step::Joined(reader)) {
            let line = Line::default();
            self.send(word.owner(), Message::Forward { request, page, rights: Rights::Read, era: word.era(), line });
        } else {
            self.send(reader, Message::Retry { request, page, home: Some(self.me) });
        }
    }

    fn is_easily_read(&self, page: PageNumber, era: Era, reader: NodeId) -> bool {
        let Entry { word, .. } = self.entry(page);
        let local = self.local(page);
        let is_at_rest = match word.state() {
            State::Shared => word.owner() != reader,
            State::Owned => word.owner() == self.me,
            State::Fresh | State::Lost => false,
        };
        is_at_rest
            && (!word.is_busy() || is_over_writer(word))
            && word.era() == era
            && local.era == era
            && matches!(local.state, LocalState::Shared | LocalState::Modified)
            && !self.operations.is_on(page)
    }

    /// The pages of a batch are read, and read-only here: grants those whose entry has not moved on meanwhile.
    pub(crate) fn on_batch_read(&mut self, range: PageRange, request: RequestId, era: Era, contents: Contents) {
        let reader = request.requester();
        for page in range.pages() {
            if self.local(page).state == LocalState::Modified {
                self.note_departure(page);
                self.note_provider(page);
            }
            let local = crate::extent::Local { state: LocalState::Shared, era };
            self.set_local(page, local);
        }
        let is_zero = |content: &PageContent| *content == PageContent::Zero;
        // One grant for each run of pages with bytes, or without.
        let (mut first, mut granted) = (range.first, Contents::EMPTY);
        for (page, content) in range.pages().zip(contents.as_slice()) {
            let word = self.entry(page).word;
            let is_same = word.state() == State::Shared && (!word.is_busy() || is_over_writer(word)) && word.era() == era;
            let is_given = is_same && (word.is_busy() || self.try_change(page, Step::Joined(reader)));
            if !is_given || granted.as_slice().first().is_some_and(|before| is_zero(before) != is_zero(content)) {
                self.grant_read_if_any(request, first, era, core::mem::replace(&mut granted, Contents::EMPTY));
            }
            if is_given {
                first = if granted.is_empty() { page } else { first };
                granted.push(*content);
            } else {
                self.free(&Contents::one(*content));
                self.send(reader, Message::Retry { request, page, home: Some(self.me) });
            }
        }
        self.grant_read_if_any(request, first, era, granted);
    }

    fn grant_read_if_any(&mut self, request: RequestId, first: PageNumber, era: Era, granted: Contents) {
        if !granted.is_empty() {
            self.grant_read(request, first, era, granted);
        }
    }

    /// Somebody has the page: whoever reads it drops it, then the owner or provider hands it over.
    fn serve_write(&mut self, page: PageNumber, asked: Asked) {
        let writer = asked.request.requester();
        let early = is(Plant::SharersBeforeLock).then(|| self.entry(page).sharers);
        let Ok(era) = self.lock_for(page, Waiter::Request(asked)) else { return };
        // Readers may have come until the word was busy.
        let Entry { word, sharers } = self.entry(page);
        let sharers = early.unwrap_or(sharers);
        let phase = if word.state() == State::Owned {
            Phase::Granted { provider: word.owner() }
        } else {
            let has_copy = sharers.may_contain(writer, word.is_wide()) && asked.copy == Some(word.era());
            let is_upgrade = word.owner() == writer || has_copy;
            let spared = if is_upgrade { writer } else { word.owner() };
            let pending = self.members_of(sharers).filter(|node| *node != writer && *node != spared).collect();
            let then = if is_upgrade { Then::Upgrade } else { Then::Forward(word.owner()) };
            Phase::Acks { pending: self.pending(asked.request, page, era, pending), then }
        };
        self.deal(page, Deal { request: asked.request, line: asked.line, era, phase, deadline: None, tries: 0 });
        self.send_deal(page);
        self.proceed(page);
    }

    /// Whether sharer sets have to name nodes of number 64 and more.
    pub(crate) fn is_wide(&self) -> bool {
        self.members.iter().any(|node| node.0 >= NARROW_NODES_MAX)
    }

    pub(crate) fn members_of(&self, sharers: Sharers) -> impl Iterator<Item = NodeId> + '_ {
        let is_wide = self.is_wide();
        self.peers.keys().copied().filter(move |node| sharers.may_contain(*node, is_wide))
    }

    /// Starts the transaction of a discard on a page, as soon as it is not busy. Returns false if there is nothing to do.
    pub(crate) fn forget_page(&mut self, page: PageNumber, job: RequestId) -> bool {
        let word = self.entry(page).word;
        if word.state() == State::Fresh && !word.is_busy() {
            return false;
        }
        let era = match self.lock_for(page, Waiter::Discard(job)) {
            Ok(era) => era,
            Err(NotLocked::Waits) => return true,
            Err(NotLocked::Lost) => return false,
        };
        let Entry { word, sharers } = self.entry(page);
        let pending: Vec<NodeId> = match word.state() {
            State::Owned => Vec::from([word.owner()]),
            State::Fresh | State::Shared | State::Lost => self.members_of(sharers).collect(),
        };
        let phase = Phase::Acks { pending: self.pending(job, page, era, pending), then: Then::Forget };
        self.deal(page, Deal { request: job, line: Line::default(), era, phase, deadline: None, tries: 0 });
        self.send_deal(page);
        self.proceed(page);
        self.settle(page);
        true
    }

    /// Who is to acknowledge: counted with the kernel programs where more than one is, and they have room for it.
    fn pending(&self, request: RequestId, page: PageNumber, era: Era, nodes: Vec<NodeId>) -> Pending {
        let is_counted = nodes.len() > 1 && self.shared_acks().is_some_and(|acks| acks.begin(request, page, era, &nodes));
        if is_counted { Pending::Counted } else { Pending::Listed(nodes) }
    }

    /// Who has not acknowledged yet.
    pub(crate) fn left(&self, page: PageNumber, pending: &Pending) -> Vec<NodeId> {
        match (pending, self.shared_acks()) {
            (Pending::Listed(nodes), _) => nodes.clone(),
            (Pending::Counted, Some(acks)) => acks.pending(page).collect(),
            (Pending::Counted, None) => Vec::new(),
        }
    }

    /// The acknowledgement of `node` has come, or is not awaited any more. Returns whether it was awaited.
    pub(crate) fn acknowledge(&mut self, page: PageNumber, node: NodeId) -> bool {
        let deal = self.transients.get_mut(&page).and_then(|transient| transient.deal.as_mut());
        let Some(Deal { phase: Phase::Acks { pending, .. }, .. }) = deal else { return false };
        match (pending, self.acks) {
            (Pending::Listed(nodes), _) => {
                let place = nodes.iter().position(|other| *other == node);
                if place.is_none() && is(Plant::AckCountedTwice) {
                    nodes.pop();
                }
                place.map(|place| nodes.swap_remove(place)).is_some()
            }
            (Pending::Counted, Some(acks)) => {
                let is_awaited = acks.pending(page).any(|other| other == node);
                let other = acks.pending(page).next().filter(|_| !is_awaited && is(Plant::AckCountedTwice));
                acks.acknowledge(page, other.unwrap_or(node));
                true
            }
            (Pending::Counted, None) => false,
        }
    }

    pub(crate) fn deal(&mut self, page: PageNumber, deal: Deal) {
        let transient = self.transients.entry(page).or_default();
        assert!(transient.deal.is_none(), "one transaction at a time");
        transient.deal = Some(deal);
    }

    /// Sends what the transaction of `page` waits for an answer to, for the first time or again.
    pub(crate) fn send_deal(&mut self, page: PageNumber) {
        let Some(deal) = self.transients.get(&page).and_then(|transient| transient.deal.as_ref()) else { return };
        let (request, era, line) = (deal.request, deal.era, deal.line);
        let slowest = match &deal.phase {
            Phase::Acks { pending, .. } => {
                let pending = self.left(page, pending);
                for node in &pending {
                    self.send(*node, Message::Invalidate { request, page, era });
                }
                pending.first().copied().unwrap_or(self.me)
            }
            Phase::Granted { provider } => {
                let provider = *provider;
                self.send(provider, Message::Forward { request, page, rights: Rights::Write, era, line });
                provider
            }
        };
        let now = self.now;
        let peers = &self.peers;
        if let Some(deal) = self.transients.get_mut(&page).and_then(|transient| transient.deal.as_mut()) {
            let timeout: Nanos = peers.get(&slowest).copied().unwrap_or_default().timeout(deal.tries);
            deal.deadline = Some(now + timeout);
        }
    }

    pub(crate) fn on_deal_due(&mut self, page: PageNumber) {
        let Some(deal) = self.transients.get_mut(&page).and_then(|transient| transient.deal.as_mut()) else { return };
        if deal.deadline.is_some_and(|deadline| deadline <= self.now) {
            deal.tries += 1;
            self.counters.transactions_again += 1;
            self.send_deal(page);
            // The last acknowledgement may have been counted, and lost on its way up.
            self.proceed(page);
        }
    }

    pub(crate) fn on_ack(&mut self, from: NodeId, request: RequestId, page: PageNumber, era: Era) {
        self.adopt(page, None);
        let deal = self.transients.get(&page).and_then(|transient| transient.deal.as_ref());
        let is_named = deal.is_some_and(|deal| deal.request == request && deal.era == era);
        if is_named && self.acknowledge(page, from) {
            self.proceed(page);
        } else {
            self.counters.dropped_stale += 1;
        }
        self.settle(page);
    }

    /// Takes the step after the last acknowledgement, if it was the last.
    pub(crate) fn proceed(&mut self, page: PageNumber) {
        let deal = self.transients.get(&page).and_then(|transient| transient.deal.as_ref());
        let Some(Deal { phase: Phase::Acks { pending, then }, request, era, .. }) = deal else { return };
        let (then, request, era) = (*then, *request, *era);
        if !self.left(page, pending).is_empty() && !is(Plant::GrantBeforeAcks) {
            return;
        }
        self.end_counting(page);
        let Some(deal) = self.transients.get_mut(&page).and_then(|transient| transient.deal.as_mut()) else { return };
        deal.tries = 0;
        deal.deadline = None;
        match then {
            Then::Upgrade => {
                deal.phase = Phase::Granted { provider: self.me };
                self.hold(page, request, era, GrantContent::Copy, Contents::EMPTY);
            }
            Then::Forward(provider) => {
                deal.phase = Phase::Granted { provider };
                self.send_deal(page);
            }
            Then::Forget => {
                self.counters.pages_discarded += 1;
                self.change(page, Step::Forgotten);
                self.regain(page);
                self.on_page_forgotten(request);
                self.finish(page);
            }
        }
    }

    pub(crate) fn on_done_frame(&mut self, from: NodeId, request: RequestId, page: PageNumber, era: Era) {
        self.release_held(from, page, era);
        let deal = self.transients.get(&page).and_then(|transient| transient.deal.as_ref());
        let is_done = deal.filter(|deal| deal.request == request && deal.era == era).is_some_and(|deal| match deal.phase {
            Phase::Granted { provider } => from == request.requester() || from == provider,
            Phase::Acks { .. } => false,
        });
        if is_done {
            self.change(page, Step::Granted(request.requester()));
            self.finish(page);
        }
        self.settle(page);
    }

    /// Frees the record that counts for the transaction of `page`, if one does.
    fn end_counting(&self, page: PageNumber) {
        let deal = self.transients.get(&page).and_then(|transient| transient.deal.as_ref());
        if let (Some(Deal { phase: Phase::Acks { pending: Pending::Counted, .. }, request, .. }), Some(acks)) = (deal, self.acks)
        {
            acks.end(*request, page);
        }
    }

    /// Ends the transaction of `page` and serves who waits, until the page is busy again.
    pub(crate) fn finish(&mut self, page: PageNumber) {
        self.end_counting(page);
        if let Some(transient) = self.transients.get_mut(&page) {
            transient.deal = None;
        }
        while !self.entry(page).word.is_busy() {
            let Some(waiter) = self.transients.get_mut(&page).and_then(|transient| transient.waiters.pop_front()) else { break };
            match waiter {
                Waiter::Request(asked) => self.serve(page, asked),
                Waiter::Discard(job) => {
                    if !self.forget_page(page, job) {
                        self.on_page_forgotten(job);
                    }
                }
            }
        }
        self.watch(page);
    }

    /// Makes the page busy and returns the era after the present one; a page whose eras are used up is lost. If somebody was first,
    /// `waiter` waits.
    fn lock_for(&mut self, page: PageNumber, waiter: Waiter) -> Result<Era, NotLocked> {
        let word = self.entry(page).word;
        if word.is_busy() {
            self.wait(page, waiter);
            return Err(NotLocked::Waits);
        }
        let era = self.era_after(page, word).ok_or(NotLocked::Lost)?;
        if !self.try_change(page, Step::Lock) {
            self.wait(page, waiter);
            return Err(NotLocked::Waits);
        }
        Ok(era)
    }

    /// The same for a page that nobody has: no kernel program locks that.
    pub(crate) fn lock_fresh(&mut self, page: PageNumber) -> Option<Era> {
        let era = self.era_after(page, self.entry(page).word)?;
        self.change(page, Step::Lock);
        Some(era)
    }

    /// The era after that of `word`; none, and the page is lost, if they are used up.
    fn era_after(&mut self, page: PageNumber, word: Word) -> Option<Era> {
        let era = word.era().0.checked_add(1).map(Era);
        if era.is_none() {
            self.change(page, Step::LostAt(Era(0)));
        }
        era
    }

    /// The directory entry of a page homed here.
    pub(crate) fn entry(&self, page: PageNumber) -> Entry {
        match self.extents.get(&page.extent()).map(|extent| &extent.form) {
            Some(Form::Split(_, directory)) => dsm_fast::load(directory, page.index_in_extent()),
            Some(Form::Unknown | Form::Whole(_) | Form::Remote(..) | Form::Lost) | None => Entry::default(),
        }
    }

    /// A step that no program can come before: it begins at a busy page, or at one that programs leave alone.
    pub(crate) fn change(&mut self, page: PageNumber, step: Step) {
        self.step(page, step).expect("home takes only steps the entry allows");
    }

    /// A step at rest. Returns false, and nothing has happened, if a program has made the page busy meanwhile.
    pub(crate) fn try_change(&mut self, page: PageNumber, step: Step) -> bool {
        match self.step(page, step) {
            Ok(()) => true,
            Err(refused) => {
                assert!(refused.entry.word.is_busy(), "home takes only steps the entry allows");
                false
            }
        }
    }

    fn step(&self, page: PageNumber, step: Step) -> Result<(), Refused> {
        let Some(Form::Split(_, directory)) = self.extents.get(&page.extent()).map(|extent| &extent.form) else { return Ok(()) };
        dsm_fast::step(directory, page.index_in_extent(), step).map(drop)
    }
}

fn is_over_writer(word: Word) -> bool {
    is(Plant::PrefetchOverWriter) && word.state() == State::Shared
}
