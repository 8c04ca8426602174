//! Reading ahead: which faults continue a sequence, and how many pages to ask for.
//!
//! Owns the streams. Must not know who answers.

use crate::extent::LocalState;
use crate::face::FaultKind;
use crate::node::Node;
use dsm_wire::{PAGES_PER_EXTENT, PAGES_PER_MESSAGE_MAX, PageNumber};

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
}
