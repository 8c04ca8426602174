//! Reading ahead: which faults continue a sequence, and how many pages to ask for.
//!
//! Owns the streams. Must not know who answers.

use crate::extent::LocalState;
use crate::face::FaultKind;
use crate::limits::REQUESTS_AHEAD_MAX;
use crate::node::Node;
use crate::transient::{Fault, Want};
use dsm_wire::{NodeId, PAGES_PER_EXTENT, PAGES_PER_MESSAGE_MAX, PageNumber};

const STREAMS: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// The page that would continue it.
    next: PageNumber,
    /// Pages asked for last time.
    window: u16,
    used_at: u64,
}

/// The sequences of read faults seen last.
#[derive(Debug, Default)]
pub struct Streams {
    streams: [Stream; STREAMS],
    clock: u64,
}

impl Streams {
    /// Pages worth asking for at `page`: 1 for a page that continues nothing, then 2, 4, … 16.
    pub fn on_read_fault(&mut self, page: PageNumber) -> u16 {
        self.clock += 1;
        let clock = self.clock;
        let known = self.streams.iter_mut().find(|stream| stream.window > 0 && stream.next == page);
        let (stream, window) = match known {
            Some(stream) => {
                let window = (stream.window * 2).min(PAGES_PER_MESSAGE_MAX);
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

impl Node {
    /// Pages to ask for with the want of `page`: those that follow, while they are absent here and nothing is in flight for them.
    pub(crate) fn count_to_ask(&mut self, page: PageNumber) -> u16 {
        let Some(want) = self.transients.get(&page).and_then(|transient| transient.want) else { return 1 };
        if want.ask.is_some() || want.fault.kind == FaultKind::Write {
            return 1;
        }
        let window = u64::from(self.streams.on_read_fault(page)).min(PAGES_PER_EXTENT - page.index_in_extent() as u64);
        let is_wanted = |offset: &u64| {
            let next = page.offset(*offset);
            self.local(next).state == LocalState::Invalid && !self.transients.contains_key(&next) && !self.operations.is_on(next)
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
            let is_free = next.extent() == page.extent()
                && self.local(next).state == LocalState::Invalid
                && !self.transients.contains_key(&next)
                && !self.operations.is_on(next);
            if !is_free {
                break;
            }
            let fault = Fault {
                kind: FaultKind::Read,
                raised_at: self.now,
                request_at: None,
                grant_at: None,
                retries: 0,
                is_ahead: true,
            };
            self.transients.entry(next).or_default().want = Some(Want { fault, count: 1, ask: None, is_raised_again: false });
            self.counters.requests_ahead += 1;
            self.ask_for(next, home, count);
            self.settle(next);
            next = next.offset(u64::from(count));
        }
        self.streams.advance(first, next);
    }
}
