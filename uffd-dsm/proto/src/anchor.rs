//! Anchor: who is home of an extent; asked once, cached for ever.
//!
//! Owns the anchor's table and the searches of this node. Must not know pages.

use crate::extent::{Extent, Form};
use crate::face::Nanos;
use crate::node::{Node, whole_extent};
use crate::plant::{Plant, is};
use crate::timer::TimerKey;
use alloc::boxed::Box;
use dsm_wire::{ExtentNumber, Message, NodeId, PageNumber, RequestId};

/// A search for the home of an extent.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    request: RequestId,
    sent_at: Nanos,
    tries: u32,
}

impl Node {
    /// The member that grants the first touch of `extent` and remembers its home.
    pub(crate) fn anchor_of(&self, extent: ExtentNumber) -> NodeId {
        let mixed = (extent.0 ^ extent.0 >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let index = mixed % self.members.len().max(1) as u64;
        self.members.get(index as usize).copied().unwrap_or(self.me)
    }

    /// Finds the home of the extent of `page`, on behalf of the want there.
    pub(crate) fn search(&mut self, page: PageNumber) {
        let extent = page.extent();
        if let Some(home) = self.rooted_home(extent) {
            self.settle_home(extent, Some(home).filter(|home| self.peers.contains_key(home)));
            return;
        }
        let anchor = self.anchor_of(extent);
        if !self.peers.contains_key(&anchor) {
            self.settle_home(extent, None);
            return;
        }
        let is_remote = anchor != self.me;
        if let Some(want) = self.transients.get_mut(&page).and_then(|transient| transient.want.as_mut()) {
            want.fault.request_at = want.fault.request_at.or(is_remote.then_some(self.now));
        }
        if !self.searches.contains_key(&extent) {
            let request = self.next_request();
            self.searches.insert(extent, Search { request, sent_at: self.now, tries: 0 });
            self.send_search(extent);
        }
    }

    fn send_search(&mut self, extent: ExtentNumber) {
        let Some(search) = self.searches.get(&extent).copied() else { return };
        let anchor = self.anchor_of(extent);
        let deadline = self.now + self.timeout(anchor, search.tries);
        self.timers.set(TimerKey::Extent(extent), Some(deadline));
        self.send(anchor, Message::Locate { request: search.request, extent });
    }

    pub(crate) fn on_search_due(&mut self, extent: ExtentNumber) {
        match self.searches.get_mut(&extent) {
            Some(search) => {
                search.tries += 1;
                self.counters.searches_again += 1;
                self.send_search(extent);
            }
            None => self.timers.set(TimerKey::Extent(extent), None),
        }
    }

    pub(crate) fn on_locate(&mut self, from: NodeId, request: RequestId, extent: ExtentNumber) {
        if self.anchor_of(extent) != self.me || request.requester() != from {
            self.counters.dropped_nonsense += 1;
            return;
        }
        let home = *self.anchored.entry(extent).or_insert(from);
        let home = if is(Plant::ForwardLoop) && home != from { self.me } else { home };
        let home = self.peers.contains_key(&home).then_some(home);
        self.send(from, Message::Located { request, extent, home });
    }

    pub(crate) fn on_located(&mut self, from: NodeId, request: RequestId, extent: ExtentNumber, home: Option<NodeId>) {
        let is_asked = self.searches.get(&extent).is_some_and(|search| search.request == request);
        if !is_asked || from != self.anchor_of(extent) {
            self.counters.dropped_stale += 1;
            return;
        }
        if let Some(search) = self.searches.remove(&extent)
            && search.tries == 0
            && let Some(trip) = self.peers.get_mut(&from)
        {
            trip.on_sample(self.now.since(search.sent_at));
        }
        self.timers.set(TimerKey::Extent(extent), None);
        self.settle_home(extent, home.filter(|home| self.peers.contains_key(home)));
    }

    pub(crate) fn end_search(&mut self, extent: ExtentNumber) {
        self.searches.remove(&extent);
        self.timers.set(TimerKey::Extent(extent), None);
    }

    /// Records the home of an extent, or that it is lost, and lets the waiting faults go on.
    pub(crate) fn settle_home(&mut self, extent: ExtentNumber, home: Option<NodeId>) {
        let ramp = self.first_ramp(extent);
        let me = self.me;
        let record = self.extents.entry(extent).or_insert_with(|| Box::new(Extent::unknown()));
        if matches!(record.form, Form::Unknown) {
            match home {
                Some(home) => record.locate(home, me, ramp),
                None => record.form = Form::Lost,
            }
            if let Form::Whole(whole) = &mut record.form {
                self.sources.add_to(&mut whole.present, whole_extent(extent));
                record.unread = whole.present;
            }
            self.counters.extents_homed += u64::from(home == Some(me));
        }
        self.pursue_extent(extent);
    }
}
