//! Requester: turns faults into requests, and grants into installed pages.
//!
//! Owns `want` of a transient. Must not know who else has the page.

use crate::extent::{Form, Local, LocalState, RAMP_MAX};
use crate::face::{Contents, Event, FaultKind, FaultStages, Frame, Nanos, PageContent, PageOp};
use crate::node::{Node, is_in_space, whole_extent};
use crate::operation::Follow;
use crate::plant::{Plant, is};
use crate::transient::{Ask, Fault, Want};
use alloc::vec::Vec;
use dsm_wire::{
    Era, ExtentNumber, GrantContent, Line, Message, NodeId, PAGES_PER_EXTENT, PageNumber, PageRange, RequestId, Rights,
};

/// First wait before a refused request is sent again.
const RETRY_DELAY: Nanos = Nanos::from_micros(100);
/// Present pages of a neighbour that make a first touch install as much as it can.
const FULL_NEIGHBOUR: usize = PAGES_PER_EXTENT as usize * 7 / 8;

impl Node {
    pub(crate) fn on_fault(&mut self, page: PageNumber, kind: FaultKind, line: Line) {
        let fault = Fault::new(kind, line, self.now);
        if !is_in_space(page) {
            self.counters.dropped_nonsense += 1;
            return;
        }
        if self.is_blocked(page, fault) {
            return;
        }
        let is_free = !self.operations.is_on(page) && !self.transients.contains_key(&page);
        if is_free && self.is_whole(page.extent()) && !self.lacks_room(page) {
            self.first_touch(page, fault);
            return;
        }
        self.note_wanted(page);
        let is_in_operation = self.operations.is_on(page);
        let transient = self.transients.entry(page).or_default();
        match &mut transient.want {
            Some(want) => {
                self.counters.faults_merged += u64::from(!want.fault.is_ahead);
                if want.fault.is_ahead {
                    want.fault = Fault { request_at: want.fault.request_at, ..fault };
                }
                want.is_raised_again |= is_in_operation;
            }
            None => transient.want = Some(Want { fault, count: 1, ask: None, is_raised_again: false }),
        }
        self.pursue(page);
        self.settle(page);
    }

    fn is_whole(&self, extent: ExtentNumber) -> bool {
        self.extents.get(&extent).is_some_and(|extent| matches!(extent.form, Form::Whole(_)))
    }

    /// Serves a fault in an extent that only this node uses: nobody need be asked.
    fn first_touch(&mut self, page: PageNumber, fault: Fault) {
        let number = page.extent();
        let index = page.index_in_extent();
        let Some(extent) = self.extents.get_mut(&number) else { return };
        let Form::Whole(whole) = &mut extent.form else { return };
        let follow = Follow::FirstTouch { page, fault };
        if whole.present.contains(index) {
            self.counters.faults_refreshed += 1;
            self.refresh(page, !self.pins.is_still(page), follow);
            return;
        }
        let (mut first, mut count) = whole.first_touch_run(index, self.evictor.ramp_max());
        if self.operations.overlapping(PageRange::new(number.page(first), count as u64)).is_some() {
            (first, count) = (index, 1);
        }
        whole.present.insert_run(first, count);
        whole.ramp = (whole.ramp + 1).min(RAMP_MAX);
        self.evictor.spend(count as u64);
        self.counters.pages_first_touched += count as u64;
        self.start(PageOp::InstallZero { range: PageRange::new(number.page(first), count as u64) }, follow);
    }

    /// Ramp of a new extent: all at once after a fully used neighbour, one page otherwise.
    pub(crate) fn first_ramp(&self, extent: ExtentNumber) -> u8 {
        let is_full = |number: u64| match self.extents.get(&ExtentNumber(number)).map(|extent| &extent.form) {
            Some(Form::Whole(whole)) => whole.present.len() >= FULL_NEIGHBOUR,
            Some(Form::Unknown | Form::Split(..) | Form::Remote(..) | Form::Lost) | None => false,
        };
        let has_full = is_full(extent.0.wrapping_sub(1)) || is_full(extent.0 + 1);
        if has_full { RAMP_MAX } else { 0 }
    }

    /// Takes the next step for a want, if it is this node's turn: nothing while an operation or a request is on its way.
    pub(crate) fn pursue(&mut self, page: PageNumber) {
        let Some(want) = self.transients.get(&page).and_then(|transient| transient.want) else { return };
        if want.ask.is_some() || self.operations.is_on(page) {
            return;
        }
        if self.is_blocked(page, want.fault) {
            return self.take_want(page);
        }
        match self.extents.get(&page.extent()).map(|extent| &extent.form) {
            None | Some(Form::Unknown) => self.search(page),
            Some(Form::Lost) => self.poison(page),
            Some(Form::Whole(_)) => {
                if !self.waits_for_room(page) {
                    self.take_want(page);
                    self.first_touch(page, want.fault);
                }
            }
            Some(Form::Remote(home, _)) => self.pursue_words(page, want, *home),
            Some(Form::Split(..)) => self.pursue_words(page, want, self.me),
        }
    }

    fn pursue_words(&mut self, page: PageNumber, want: Want, home: NodeId) {
        let state = self.local(page).state;
        match (state, want.fault.kind) {
            (LocalState::Poisoned, _) => self.poison(page),
            (LocalState::Invalid | LocalState::Modified, _) if self.waits_for_room(page) => {}
            (LocalState::Modified, _) | (LocalState::Shared, FaultKind::Read) => {
                self.counters.faults_refreshed += 1;
                if is(Plant::LostWakeUp) {
                    self.take_want(page);
                    return;
                }
                self.refresh(page, state == LocalState::Modified && !self.pins.is_still(page), Follow::Refresh);
            }
            (LocalState::Shared, FaultKind::Write) => {
                self.habits.on_upgrade(page);
                self.ask(page, home);
            }
            (LocalState::Invalid, _) => self.ask(page, home),
        }
    }

    /// Sends the request for a want, for the first time or again; the id survives retries.
    pub(crate) fn ask(&mut self, page: PageNumber, home: NodeId) {
        if self.await_part(page, home) {
            return;
        }
        if self.expects_write(page) {
            self.ask_for(page, home, 1, Rights::Write);
            return;
        }
        let is_first_write = self
            .transients
            .get(&page)
            .and_then(|transient| transient.want)
            .is_some_and(|want| want.fault.kind == FaultKind::Write && want.ask.is_none());
        let count = self.count_to_ask(page);
        self.ask_for(page, home, count, Rights::Read);
        self.ask_ahead(page, count, home);
        if is_first_write {
            self.ask_to_write_ahead(page, home);
        }
    }

    /// Whether the want of `page`, if it wants to read and was not asked for yet, is likely to want to write soon.
    fn expects_write(&mut self, page: PageNumber) -> bool {
        let Some(want) = self.transients.get(&page).and_then(|transient| transient.want) else { return false };
        let is_open = want.ask.is_none() && want.fault.kind == FaultKind::Read && !self.pins.contains(page);
        let expects_write = is_open && self.habits.on_read(page);
        self.counters.reads_to_write += u64::from(expects_write);
        expects_write
    }

    /// Sends the request for a want and up to `count - 1` pages after it, for what it needs and at least for `rights`.
    pub(crate) fn ask_for(&mut self, page: PageNumber, home: NodeId, count: u16, rights: Rights) {
        let count = count.min((PAGES_PER_EXTENT - page.index_in_extent() as u64) as u16);
        let local = self.local(page);
        let fresh = self.next_request();
        let Some(want) = self.transients.get_mut(&page).and_then(|transient| transient.want.as_mut()) else { return };
        let tries = want.ask.map_or(0, |ask| ask.tries + 1);
        let request = want.ask.map_or(fresh, |ask| ask.request);
        if tries > 0 {
            want.fault.retries += 1;
            self.counters.requests_again += 1;
        } else {
            want.count = count;
            self.evictor.spend(u64::from(count));
            if count > 1 {
                self.batches.note(request, page, count, self.now);
            }
        }
        want.fault.request_at = want.fault.request_at.or(Some(self.now));
        let rights = want.ask.map_or(want.fault.kind.rights().max(rights), |ask| ask.rights);
        let (count, line) = (want.count, want.fault.line);
        let deadline = self.now + self.peers.get(&home).copied().unwrap_or_default().timeout(tries);
        want.ask = Some(Ask { request, rights, to: home, sent_at: self.now, deadline, tries });
        let copy = (rights == Rights::Write && local.state == LocalState::Shared).then_some(local.era);
        self.send(home, Message::Request { request, page, rights, count, copy, line });
    }

    pub(crate) fn on_want_due(&mut self, page: PageNumber) {
        let ask = self.transients.get(&page).and_then(|transient| transient.want).and_then(|want| want.ask);
        if ask.is_some_and(|ask| ask.deadline <= self.now) && !self.waits_on(page) {
            match self.home_of(page) {
                Some(home) => self.ask(page, home),
                None => self.forget_ask(page),
            }
        }
    }

    /// A request that has no addressee any more starts again from the search for a home.
    pub(crate) fn forget_ask(&mut self, page: PageNumber) {
        if let Some(want) = self.transients.get_mut(&page).and_then(|transient| transient.want.as_mut()) {
            want.ask = None;
        }
        self.pursue(page);
    }

    pub(crate) fn on_retry(&mut self, from: NodeId, request: RequestId, page: PageNumber, home: Option<NodeId>) {
        let me = self.me;
        let is_part = self.batches.strike(request, page);
        let home = home.filter(|home| self.peers.contains_key(home) && *home != me);
        let extent = self.extents.get_mut(&page.extent());
        let want = self.transients.get_mut(&page).and_then(|transient| transient.want.as_mut());
        let Some((want, ask)) = want.and_then(|want| want.ask.filter(|ask| ask.request == request).map(|ask| (want, ask))) else {
            self.counters.dropped_stale += u64::from(!is_part);
            return;
        };
        if let (Some(home), Some(Form::Remote(known, _))) = (home, extent.map(|extent| &mut extent.form))
            && ask.to == from
        {
            *known = home;
        }
        // One of several pages that cannot be had together is asked for alone.
        let delay = if is_part && ask.tries == 0 { Nanos::default() } else { Nanos(RETRY_DELAY.0 << ask.tries.min(8)) };
        want.ask = Some(Ask { deadline: ask.deadline.min(self.now + delay), ..ask });
        self.settle(page);
    }

    pub(crate) fn on_lost(&mut self, from: NodeId, request: RequestId, page: PageNumber, era: Era) {
        let ask = self.transients.get(&page).and_then(|transient| transient.want).and_then(|want| want.ask);
        let is_mine = ask.is_some_and(|ask| ask.request == request && ask.to == from);
        if is_mine && era >= self.local(page).era && !self.operations.is_on(page) {
            self.poison(page);
        } else {
            self.counters.dropped_stale += 1;
        }
    }

    fn poison(&mut self, page: PageNumber) {
        self.start(PageOp::Poison { page }, Follow::Poison);
    }

    pub(crate) fn on_grant(&mut self, frame: Frame) {
        let Message::Grant { request, page, rights, era, count, content } = frame.message else { return };
        let contents = if content == GrantContent::Zero { Contents::zero(count) } else { frame.contents };
        if let Some(want) = self.transients.get_mut(&page).and_then(|transient| transient.want.as_mut())
            && let Some(ask) = want.ask.filter(|ask| ask.request == request)
        {
            want.fault.grant_at = Some(self.now);
            if ask.tries == 0
                && let Some(trip) = self.peers.get_mut(&ask.to)
            {
                trip.on_sample(self.now.since(ask.sent_at));
            }
        }
        match rights {
            Rights::Write => {
                self.batches.take(request, page, self.now);
                self.on_write_grant(frame.from, request, page, era, content, contents);
            }
            Rights::Read => self.on_read_grant(request, page, era, contents),
        }
    }

    fn on_write_grant(
        &mut self,
        from: NodeId,
        request: RequestId,
        page: PageNumber,
        era: Era,
        content: GrantContent,
        contents: Contents,
    ) {
        let local = self.local(page);
        match self.extents.get(&page.extent()).map(|extent| &extent.form) {
            Some(Form::Split(..) | Form::Remote(..)) => {}
            Some(Form::Lost | Form::Whole(_)) => {
                // Nobody uses the page here any more, or a discard has put an end to it since this was first sent: the grantor need
                // not keep it.
                self.counters.dropped_stale += 1;
                self.free(&contents);
                self.confirm(from, request, page, era);
                return;
            }
            Some(Form::Unknown) | None => {
                self.refuse(&contents);
                return;
            }
        }
        if era <= local.era && !(is(Plant::DoubleOwner) && local.state == LocalState::Invalid) {
            self.counters.dropped_stale += 1;
            self.free(&contents);
            self.confirm(from, request, page, era);
            return;
        }
        let follow = Follow::AcceptWrite { request, era, grantor: from };
        let is_next = local.era.0.checked_add(1) == Some(era.0);
        match (local.state, content) {
            (LocalState::Invalid, GrantContent::Bytes | GrantContent::Zero) => {
                self.counters.pages_in += u64::from(content == GrantContent::Bytes);
                self.start(PageOp::Install { first: page, contents, writable: true }, follow);
            }
            (LocalState::Shared, GrantContent::Copy) => self.start(PageOp::Unprotect { page }, follow),
            (LocalState::Shared, GrantContent::Bytes | GrantContent::Zero) if is_next => {
                self.free(&contents);
                self.start(PageOp::Unprotect { page }, follow);
            }
            // Home believed in a reader that never got its copy from here: the page was writable all the time.
            (LocalState::Modified, GrantContent::Copy) if is_next => self.on_write_accepted(page, request, era, from),
            (LocalState::Invalid, GrantContent::Copy)
            | (LocalState::Shared, GrantContent::Bytes | GrantContent::Zero)
            | (LocalState::Modified | LocalState::Poisoned, _) => self.refuse(&contents),
        }
    }

    fn refuse(&mut self, contents: &Contents) {
        self.counters.dropped_nonsense += 1;
        self.free(contents);
    }

    /// Tells who gave the page, and the home, that the exclusive grant is installed.
    pub(crate) fn confirm(&mut self, grantor: NodeId, request: RequestId, page: PageNumber, era: Era) {
        let done = Message::Done { request, page, era };
        self.send(grantor, done);
        if let Some(home) = self.home_of(page).filter(|home| *home != grantor) {
            self.send(home, done);
        }
    }

    fn on_read_grant(&mut self, request: RequestId, page: PageNumber, era: Era, contents: Contents) {
        let asked = self.transients.get(&page).and_then(|transient| transient.want).and_then(|want| want.ask);
        let is_part = self.batches.take(request, page, self.now);
        let is_asked = is_part || asked.is_some_and(|ask| ask.request == request);
        if !is_asked || !self.may_install(page, era) {
            self.counters.dropped_stale += 1;
            self.free(&contents);
            self.ask_anew(page, request);
            return;
        }
        let mut kept = Contents::EMPTY;
        for (offset, content) in contents.as_slice().iter().enumerate() {
            let next = page.offset(offset as u64);
            let fits = usize::from(kept.len()) == offset && (offset == 0 || self.may_install(next, era));
            if fits {
                self.batches.take(request, next, self.now);
                kept.push(*content);
            } else if let PageContent::Buffer(buffer) = content {
                self.emit(Event::FreeBuffer(*buffer));
            }
        }
        self.counters.pages_in += kept.buffers().count() as u64;
        self.start(PageOp::Install { first: page, contents: kept, writable: false }, Follow::AcceptRead { era });
    }

    /// The answer to `request` came too late, so it is sent again, now.
    fn ask_anew(&mut self, page: PageNumber, request: RequestId) {
        let want = self.transients.get_mut(&page).and_then(|transient| transient.want.as_mut());
        if let Some(want) = want.filter(|want| want.ask.is_some_and(|ask| ask.request == request))
            && let Some(ask) = want.ask.as_mut()
        {
            ask.deadline = self.now;
            self.settle(page);
        }
    }

    fn may_install(&self, page: PageNumber, era: Era) -> bool {
        let local = self.local(page);
        let is_recent = era >= local.era || is(Plant::InstallAfterInvalidate);
        local.state == LocalState::Invalid && is_recent && !self.operations.is_on(page)
    }

    pub(crate) fn on_write_accepted(&mut self, page: PageNumber, request: RequestId, era: Era, grantor: NodeId) {
        self.set_local(page, Local { state: LocalState::Modified, era });
        self.free_held_before(page, era);
        self.note_come(PageRange::new(page, 1));
        self.confirm(grantor, request, page, era);
        let line = self.transients.get(&page).and_then(|transient| transient.want).map(|want| want.fault.line);
        self.resolve(page, FaultKind::Write);
        self.note_arrival(page, line.unwrap_or_default());
    }

    pub(crate) fn on_read_accepted(&mut self, range: PageRange, era: Era) {
        self.note_come(range);
        for page in range.pages() {
            self.set_local(page, Local { state: LocalState::Shared, era });
            self.resolve(page, FaultKind::Read);
        }
    }

    /// Ends the want of `page` if it wanted no more than `kind`. A fault raised while the operation was in flight may
    /// have missed its wake-up: it stays, and the page is refreshed.
    pub(crate) fn resolve(&mut self, page: PageNumber, kind: FaultKind) {
        let Some(want) = self.transients.get_mut(&page).and_then(|transient| transient.want.as_mut()) else { return };
        let Some(ask) = want.ask else { return };
        if want.fault.kind > kind {
            if ask.rights <= kind.rights() {
                // What was asked for came, and is not enough by now.
                *want = Want { count: 1, ask: None, ..*want };
            }
            return;
        }
        let fault = want.fault;
        if want.is_raised_again {
            *want = Want { fault: Fault { is_ahead: true, ..fault }, count: 1, ask: None, is_raised_again: false };
        } else {
            self.take_want(page);
        }
        self.report(page, &fault);
    }

    /// The page was mapped again for the fault that waited.
    pub(crate) fn on_refreshed(&mut self, page: PageNumber) {
        let Some(want) = self.transients.get_mut(&page).and_then(|transient| transient.want.as_mut()) else { return };
        let fault = want.fault;
        if want.is_raised_again {
            want.is_raised_again = false;
        } else {
            self.take_want(page);
        }
        self.report(page, &fault);
    }

    pub(crate) fn take_want(&mut self, page: PageNumber) {
        if let Some(transient) = self.transients.get_mut(&page) {
            transient.want = None;
        }
        self.evictor.forget(page);
        self.settle(page);
    }

    /// Reports a served fault.
    pub(crate) fn report(&mut self, page: PageNumber, fault: &Fault) {
        if fault.is_ahead {
            return;
        }
        match fault.request_at {
            Some(_) => self.counters.faults_remote += 1,
            None => self.counters.faults_local += 1,
        }
        let stages = FaultStages {
            raised_at: fault.raised_at,
            request_at: fault.request_at,
            grant_at: fault.grant_at,
            installed_at: self.now,
            retries: fault.retries,
        };
        self.emit(Event::FaultResolved { page, kind: fault.kind, stages });
    }

    pub(crate) fn on_poisoned(&mut self, page: PageNumber) {
        let era = self.local(page).era;
        self.set_local(page, Local { state: LocalState::Poisoned, era });
        self.take_want(page);
        self.counters.pages_lost += 1;
        self.emit(Event::PageLost { page });
    }

    /// Pursues every want of an extent whose home has become known, or is lost.
    pub(crate) fn pursue_extent(&mut self, extent: ExtentNumber) {
        let range = whole_extent(extent);
        let pages: Vec<PageNumber> = self.transients.range(range.first..range.end()).map(|(page, _)| *page).collect();
        for page in pages {
            self.pursue(page);
            self.settle(page);
        }
    }
}
