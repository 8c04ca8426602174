//! Asking ahead of use: which faults continue a sequence, and how many pages to ask for.
//!
//! Owns the streams, and the requests for several pages whose grants come in parts. Must not know who answers.

use crate::extent::LocalState;
use crate::face::{FaultKind, Nanos};
use crate::limits::{BATCHES_MAX, PART_PATIENCE, PATIENCE_MAX, REQUESTS_AHEAD_MAX, WRITES_AHEAD_MAX};
use crate::node::Node;
use crate::transient::{Ask, Fault, Want};
use alloc::collections::VecDeque;
use dsm_wire::{NodeId, PAGES_PER_EXTENT, PAGES_PER_MESSAGE_MAX, PageNumber, PageRange, RequestId, Rights};

const STREAMS: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// The page that would continue it.
    next: PageNumber,
    /// Pages asked for last time.
    window: u16,
    used_at: u64,
}

/// The sequences of faults of one kind seen last.
#[derive(Debug, Default)]
pub struct Streams {
    streams: [Stream; STREAMS],
    clock: u64,
}

impl Streams {
    /// Pages worth asking for at `page`: 1 for a page that continues nothing, then 2, 4, … `max`.
    pub fn on_fault(&mut self, page: PageNumber, max: u16) -> u16 {
        self.clock += 1;
        let clock = self.clock;
        let known = self.streams.iter_mut().find(|stream| stream.window > 0 && stream.next == page);
        let (stream, window) = match known {
            Some(stream) => {
                let window = (stream.window * 2).min(max);
                (stream, window)
            }
            None => {
                let oldest = self.streams.iter_mut().min_by_key(|stream| stream.used_at);
                (oldest.expect("there are eight streams"), 1)
            }
        };
        *stream = Stream { next: page.offset(u64::from(window)), window, used_at: clock };
        window
    }

    /// The stream that would go on at `from` goes on at `to`.
    fn advance(&mut self, from: PageNumber, to: PageNumber) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.window > 0 && stream.next == from) {
            stream.next = to;
        }
    }
}

/// A read request for several pages.
#[derive(Clone, Copy, Debug)]
struct Batch {
    request: RequestId,
    range: PageRange,
    sent_at: Nanos,
    /// Bit n: page n of the range has not come.
    pending: u16,
}

impl Batch {
    fn bit(&self, page: PageNumber) -> u16 {
        if self.range.contains(page) { self.pending & 1 << (page.0 - self.range.first.0) } else { 0 }
    }
}

/// The requests for several pages sent last. A grant travels in as many frames as the MTU asks for, each a grant of its
/// own; eras decide whether a late one may still be installed, as for every grant.
#[derive(Debug, Default)]
pub struct Batches {
    recent: VecDeque<Batch>,
    /// A part came last.
    part_at: Nanos,
}

impl Batches {
    /// A request for `count` pages, 2 to 16, has left.
    pub fn note(&mut self, request: RequestId, first: PageNumber, count: u16, now: Nanos) {
        if self.recent.len() >= BATCHES_MAX {
            self.recent.pop_front();
        }
        let pending = u16::MAX >> (PAGES_PER_MESSAGE_MAX - count.min(PAGES_PER_MESSAGE_MAX));
        self.recent.push_back(Batch { request, range: PageRange::new(first, u64::from(count)), sent_at: now, pending });
    }

    /// Whether `page` was asked for with `request` and has not come; it has now.
    pub fn take(&mut self, request: RequestId, page: PageNumber, now: Nanos) -> bool {
        self.part_at = now;
        self.strike(request, page)
    }

    /// `page` is not to be waited for with `request` any more; false if it was not.
    pub fn strike(&mut self, request: RequestId, page: PageNumber) -> bool {
        let Some(batch) = self.recent.iter_mut().find(|batch| batch.request == request) else { return false };
        let bit = batch.bit(page);
        batch.pending &= !bit;
        if batch.pending == 0 {
            self.recent.retain(|batch| batch.request != request);
        }
        bit != 0
    }

    /// The request that will bring `page` presently, and when it left: parts have come lately, or it has just left.
    fn bringing(&self, page: PageNumber, now: Nanos) -> Option<(RequestId, Nanos)> {
        let is_bringing = |batch: &&Batch| {
            batch.bit(page) != 0 && now < batch.sent_at.max(self.part_at) + PART_PATIENCE && now < batch.sent_at + PATIENCE_MAX
        };
        self.recent.iter().rev().find(is_bringing).map(|batch| (batch.request, batch.sent_at))
    }
}

impl Node {
    /// Lets a new read want of `page` wait for a request that asked for the page already. False if there is none.
    pub(crate) fn await_part(&mut self, page: PageNumber, home: NodeId) -> bool {
        let Some((request, sent_at)) = self.batches.bringing(page, self.now) else { return false };
        let Some(want) = self.transients.get_mut(&page).and_then(|transient| transient.want.as_mut()) else { return false };
        if want.ask.is_some() || want.fault.kind == FaultKind::Write {
            return false;
        }
        want.fault.request_at = Some(sent_at.max(want.fault.raised_at));
        want.count = 1;
        want.ask = Some(Ask { request, rights: Rights::Read, to: home, sent_at, deadline: self.now + PART_PATIENCE, tries: 0 });
        true
    }

    /// The deadline of a want that waits for a part has come: true if it goes on waiting, because parts are coming.
    pub(crate) fn waits_on(&mut self, page: PageNumber) -> bool {
        let bringing = self.batches.bringing(page, self.now).map(|(request, _)| request);
        let want = self.transients.get_mut(&page).and_then(|transient| transient.want.as_mut());
        let ask = want.and_then(|want| want.ask.as_mut()).filter(|ask| ask.tries == 0 && Some(ask.request) == bringing);
        let Some(ask) = ask else { return false };
        ask.deadline = self.now + PART_PATIENCE;
        true
    }

    /// Pages to ask for with the want of `page`: those that follow, while they are absent here and nothing is in flight for them.
    pub(crate) fn count_to_ask(&mut self, page: PageNumber) -> u16 {
        let Some(want) = self.transients.get(&page).and_then(|transient| transient.want) else { return 1 };
        if want.ask.is_some() || want.fault.kind == FaultKind::Write {
            return 1;
        }
        let room = self.evictor.window_max().min(PAGES_PER_EXTENT - page.index_in_extent() as u64);
        let window = u64::from(self.reading.on_fault(page, PAGES_PER_MESSAGE_MAX)).min(room);
        let is_wanted = |offset: &u64| {
            let next = page.offset(*offset);
            self.local(next).state == LocalState::Invalid && self.is_idle(next)
        };
        1 + (1..window).take_while(is_wanted).count() as u16
    }

    /// A sequential reader waits for `count` pages from `page`: asks for the ones after them too, before it needs them.
    pub(crate) fn ask_ahead(&mut self, page: PageNumber, count: u16, home: NodeId) {
        if count < PAGES_PER_MESSAGE_MAX {
            return;
        }
        let first = page.offset(u64::from(count));
        let mut next = first;
        for _ in 0..REQUESTS_AHEAD_MAX {
            if next.extent() != page.extent() || self.local(next).state != LocalState::Invalid || !self.is_idle(next) {
                break;
            }
            self.ask_unasked(next, count, home, FaultKind::Read);
            next = next.offset(u64::from(count));
        }
        self.reading.advance(first, next);
    }

    /// The want of `page` to write it has just been sent: asks for the pages after it too, if it continues a sequence of writes.
    pub(crate) fn ask_to_write_ahead(&mut self, page: PageNumber, home: NodeId) {
        let room = self.evictor.window_max().min(PAGES_PER_EXTENT - page.index_in_extent() as u64);
        let window = u64::from(self.writing.on_fault(page, WRITES_AHEAD_MAX + 1)).min(room);
        for offset in 1..window {
            let next = page.offset(offset);
            let is_wanted = matches!(self.local(next).state, LocalState::Invalid | LocalState::Shared);
            if is_wanted && self.is_idle(next) && !self.pins.contains(next) {
                self.ask_unasked(next, 1, home, FaultKind::Write);
            }
        }
    }

    fn is_idle(&self, page: PageNumber) -> bool {
        !self.transients.contains_key(&page) && !self.operations.is_on(page)
    }

    /// Asks for `count` pages from `page`, for which no thread waits yet.
    fn ask_unasked(&mut self, page: PageNumber, count: u16, home: NodeId, kind: FaultKind) {
        let fault = Fault::ahead(kind, self.now);
        self.transients.entry(page).or_default().want = Some(Want { fault, count: 1, ask: None, is_raised_again: false });
        self.counters.requests_ahead += 1;
        self.ask_for(page, home, count, kind.rights());
        self.settle(page);
    }
}
