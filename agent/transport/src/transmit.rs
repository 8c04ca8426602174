//! Frames out: into a slot, into a lane, and through the ring when session and credits allow.
//!
//! Owns stamping and the order of sending. Must not know what messages mean.

use crate::endpoint::Place;
use crate::faults::Fate;
use crate::handshake::Greeting;
use crate::limits::{BULK_BYTES_PER_BATCH, SENDS_PER_BATCH_MAX, SMALL_SLOT_BYTES};
use crate::peer::{Lane, Peer, split_sequence};
use crate::slots::{Load, SlotId};
use crate::tags::{SipKey, header_tag, sip};
use crate::{Class, Endpoint, Nanos, SendRefusal};
use dsm_wire::{GrantContent, HEADER_BYTES, Header, Kind, Message, NodeId, PAGE_BYTES, VERSION};
use std::io;
use zerocopy::{FromBytes, IntoBytes};

/// A submission the fault plan holds back.
pub(crate) struct Delayed {
    pub(crate) due: Nanos,
    slot: SlotId,
    class: Class,
    offset: usize,
    length: usize,
}

/// What one batch may still submit.
struct Budget {
    sends: usize,
    bulk_bytes: usize,
}

/// How emptying a lane ended.
#[derive(PartialEq, Eq)]
enum Drained {
    /// Nothing is left, or what is left waits for session or credits.
    Done,
    /// The batch is full.
    More,
}

impl Endpoint {
    /// Takes a frame for `to`; it leaves with the next [`Endpoint::wait`]. `payload` is the pages of a Grant of bytes, else empty;
    /// they are copied. Waits inside for the handshake and for credits. A Grant of several pages becomes as many self-contained
    /// Grants as the MTU asks for. Frames without pages always take the urgent socket.
    ///
    /// # Errors
    /// [`SendRefusal`], counted; the frame is as good as lost.
    pub fn send(
        &mut self,
        _now: Nanos,
        to: NodeId,
        message: &Message,
        payload: &[&[u8; PAGE_BYTES]],
        class: Class,
    ) -> Result<(), SendRefusal> {
        let result = self.queue_message(to, message, payload, class);
        match result {
            Ok(()) => {}
            Err(SendRefusal::QueueFull) => self.counters.refused_queue_full += 1,
            Err(SendRefusal::NoSlot) => self.counters.refused_no_slot += 1,
            Err(SendRefusal::UnknownPeer | SendRefusal::PeerLost | SendRefusal::Payload) => self.counters.refused_peer += 1,
        }
        result
    }

    fn queue_message(
        &mut self,
        to: NodeId,
        message: &Message,
        payload: &[&[u8; PAGE_BYTES]],
        class: Class,
    ) -> Result<(), SendRefusal> {
        let pages = match message {
            Message::Grant { count, content: GrantContent::Bytes, .. } => *count,
            _ => 0,
        };
        if payload.len() != usize::from(pages) || pages > dsm_wire::PAGES_PER_MESSAGE_MAX {
            return Err(SendRefusal::Payload);
        }
        let (lane, class) = match (pages, class) {
            (0, _) => (Lane::Control, Class::Urgent),
            (_, Class::Urgent) => (Lane::Urgent, Class::Urgent),
            (_, Class::Bulk) => (Lane::Bulk, Class::Bulk),
        };
        let mut header = self.header(to);
        message.encode(&mut header);
        let bytes = if pages == 0 { HEADER_BYTES } else { self.layout.train_bytes(usize::from(pages)) };
        let slot = self.take_slot(lane, Load { to, class, pages, bytes: bytes as u32, is_order: is_order(message) })?;
        let out = self.ring.slot_mut(slot);
        if pages == 0 {
            out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        } else {
            let written = self.layout.write(&self.writer, &header, payload, out);
            assert_eq!(written, bytes, "a train has the length its layout says");
        }
        self.enqueue(lane, slot);
        Ok(())
    }

    /// Queues a frame of the transport itself. A full queue drops it: each of them is repeated by a timer.
    pub(crate) fn queue_own(&mut self, to: NodeId, kind: Kind, class: Class, page: u64, request: u64) {
        let mut header = self.header(to);
        header.kind = kind as u8;
        header.page.set(page);
        header.request.set(request);
        match self.take_slot(Lane::Control, Load { to, class, pages: 0, bytes: HEADER_BYTES as u32, is_order: false }) {
            Ok(slot) => {
                self.ring.slot_mut(slot)[..HEADER_BYTES].copy_from_slice(header.as_bytes());
                self.enqueue(Lane::Control, slot);
            }
            Err(_) => self.counters.refused_queue_full += 1,
        }
    }

    /// Queues a handshake message.
    pub(crate) fn queue_greeting(&mut self, to: NodeId, greeting: &Greeting) {
        self.counters.handshake_retries += u64::from(greeting.is_retry);
        let mut header = self.header(to);
        header.kind = greeting.kind as u8;
        header.payload_tag.set(sip(self.greeting_key, &greeting.payload));
        header.header_tag.set(header_tag(greeting.pair.unwrap_or(self.greeting_key), &header));
        let bytes = HEADER_BYTES + greeting.payload.len();
        match self.take_slot(Lane::Greeting, Load { to, class: Class::Urgent, pages: 0, bytes: bytes as u32, is_order: false }) {
            Ok(slot) => {
                let out = self.ring.slot_mut(slot);
                out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
                out[HEADER_BYTES..bytes].copy_from_slice(&greeting.payload);
                self.enqueue(Lane::Greeting, slot);
            }
            Err(_) => self.counters.refused_queue_full += 1,
        }
    }

    /// Has `node` looked at in the next flush.
    pub(crate) fn mark_pending(&mut self, node: NodeId) {
        if let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(node.0))
            && !peer.is_pending
        {
            peer.is_pending = true;
            self.pending.push(node);
        }
    }

    /// Pushes everything that may go to the ring. Returns whether more could go but for the batch's bounds.
    pub(crate) fn flush(&mut self, now: Nanos) -> io::Result<bool> {
        let mut budget = Budget { sends: SENDS_PER_BATCH_MAX, bulk_bytes: BULK_BYTES_PER_BATCH };
        self.push_due(now)?;
        if self.pending.is_empty() {
            return Ok(false);
        }
        let mut pending = std::mem::take(&mut self.pending);
        let mut has_more = false;
        for lane in Lane::ALL {
            for node in &pending {
                has_more |= self.drain_lane(now, *node, lane, &mut budget)? == Drained::More;
            }
        }
        if has_more {
            // Whoever came last goes first next time.
            pending.rotate_left(1);
        } else {
            for node in pending.drain(..) {
                if let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(node.0)) {
                    peer.is_pending = false;
                }
            }
        }
        self.pending = pending;
        Ok(has_more)
    }

    fn drain_lane(&mut self, now: Nanos, node: NodeId, lane: Lane, budget: &mut Budget) -> io::Result<Drained> {
        loop {
            let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(node.0)) else { return Ok(Drained::Done) };
            let Some(slot) = peer.front(lane) else { return Ok(Drained::Done) };
            let load = self.slots.load(slot);
            if lane != Lane::Greeting {
                let Some(session) = &mut peer.session else { return Ok(Drained::Done) };
                let credits = &mut session.credits[load.class as usize];
                if load.pages > 0 && !credits.is_open(load.bytes) {
                    if credits.on_blocked(now) {
                        self.counters.no_credit += 1;
                        self.timer_at = self.timer_at.min(credits.probe_at().unwrap_or(now));
                    }
                    return Ok(Drained::Done);
                }
            }
            if budget.sends == 0 || lane == Lane::Bulk && budget.bulk_bytes == 0 {
                return Ok(Drained::More);
            }
            if lane == Lane::Bulk {
                budget.bulk_bytes = budget.bulk_bytes.saturating_sub(load.bytes as usize);
            }
            peer.pop(lane);
            if lane != Lane::Greeting {
                self.stamp(slot, load);
            }
            let load = if load.is_order { self.join(slot, load) } else { load };
            budget.sends = budget.sends.saturating_sub(self.push_load(now, slot, load)?);
        }
    }

    /// Puts the orders that wait behind the one in `slot`, which is about to leave, into its datagram; returns what it carries then.
    fn join(&mut self, slot: SlotId, load: Load) -> Load {
        let most = SMALL_SLOT_BYTES.min(self.layout.datagram_bytes());
        let mut end = HEADER_BYTES;
        while end + HEADER_BYTES <= most {
            let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(load.to.0)) else { break };
            let Some(next) = peer.front(Lane::Control).filter(|next| self.slots.load(*next).is_order) else { break };
            peer.pop(Lane::Control);
            self.stamp(next, load);
            let mut frame = [0; HEADER_BYTES];
            frame.copy_from_slice(&self.ring.slot_mut(next)[..HEADER_BYTES]);
            self.slots.give_back(next);
            self.ring.slot_mut(slot)[end..end + HEADER_BYTES].copy_from_slice(&frame);
            end += HEADER_BYTES;
        }
        self.counters.frames_out_urgent += (end / HEADER_BYTES - 1) as u64;
        Load { bytes: end as u32, ..load }
    }

    /// Gives every datagram of `slot` its sequence and its header tag.
    fn stamp(&mut self, slot: SlotId, load: Load) {
        let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(load.to.0)) else { return };
        let Some(session) = &mut peer.session else { return };
        let out = self.ring.slot_mut(slot);
        let pair = session.agreement.pair;
        if load.pages == 0 {
            stamp_one(&mut out[..HEADER_BYTES], session.next_sequence(load.class), pair);
            return;
        }
        for (offset, length) in self.layout.cuts(usize::from(load.pages), false) {
            let sequence = session.next_sequence(load.class);
            stamp_one(&mut out[offset..offset + HEADER_BYTES], sequence, pair);
            session.credits[load.class as usize].on_sent(split_sequence(sequence).1, length as u32);
        }
    }

    /// Pushes the submissions of `slot`; returns how many.
    fn push_load(&mut self, now: Nanos, slot: SlotId, load: Load) -> io::Result<usize> {
        // Held once more, so that the slot is not free before the last submission is decided on.
        self.slots.hold(slot);
        let mut count = 0;
        if load.pages == 0 {
            self.push_datagram(now, slot, load.class, (0, load.bytes as usize))?;
            count = 1;
        } else {
            for cut in self.layout.cuts(usize::from(load.pages), self.is_segmented) {
                self.push_datagram(now, slot, load.class, cut)?;
                count += 1;
            }
        }
        self.slots.release(slot);
        Ok(count)
    }

    fn push_datagram(&mut self, now: Nanos, slot: SlotId, class: Class, cut: (usize, usize)) -> io::Result<()> {
        match self.dice.roll(now) {
            Fate::Send => self.submit(slot, class, cut),
            Fate::Lose => {
                self.counters.injected_loss += 1;
                Ok(())
            }
            Fate::Double => {
                self.counters.injected_duplicate += 1;
                self.submit(slot, class, cut)?;
                self.submit(slot, class, cut)
            }
            Fate::Delay(due) => {
                self.counters.injected_delay += 1;
                self.slots.hold(slot);
                self.delayed.push(Delayed { due, slot, class, offset: cut.0, length: cut.1 });
                Ok(())
            }
        }
    }

    fn submit(&mut self, slot: SlotId, class: Class, (offset, length): (usize, usize)) -> io::Result<()> {
        let datagrams = length.div_ceil(self.layout.datagram_bytes()) as u64;
        match class {
            Class::Urgent => self.counters.frames_out_urgent += datagrams,
            Class::Bulk => self.counters.frames_out_bulk += datagrams,
        }
        self.counters.bytes_out += length as u64;
        self.slots.hold(slot);
        self.ring.push_send(class, slot, offset, length)
    }

    /// Pushes what was held back long enough.
    fn push_due(&mut self, now: Nanos) -> io::Result<()> {
        let mut index = 0;
        while index < self.delayed.len() {
            if self.delayed[index].due > now {
                index += 1;
                continue;
            }
            let Delayed { slot, class, offset, length, .. } = self.delayed.swap_remove(index);
            self.submit(slot, class, (offset, length))?;
            self.slots.release(slot);
        }
        Ok(())
    }

    fn take_slot(&mut self, lane: Lane, load: Load) -> Result<SlotId, SendRefusal> {
        let peer: &Peer = match self.peers.get(usize::from(load.to.0)) {
            None | Some(Place::Unknown) => return Err(SendRefusal::UnknownPeer),
            Some(Place::Lost) => return Err(SendRefusal::PeerLost),
            Some(Place::Known(peer)) => peer,
        };
        if peer.is_full(lane) {
            return Err(SendRefusal::QueueFull);
        }
        let slot = self.slots.take(load).ok_or(SendRefusal::NoSlot)?;
        self.ring.set_address(slot, peer.addresses[load.class as usize]);
        Ok(slot)
    }

    fn enqueue(&mut self, lane: Lane, slot: SlotId) {
        let to = self.slots.load(slot).to;
        if let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(to.0)) {
            peer.push(lane, slot);
        }
        self.mark_pending(to);
    }

    /// A header for `to`, with everything that is the same in all of them.
    fn header(&self, to: NodeId) -> Header {
        let mut header = Header { version: VERSION, ..Header::default() };
        header.cluster.set(self.identity.cluster);
        header.epoch.set(self.epoch.0);
        header.source.set(self.identity.me.0);
        header.destination.set(to.0);
        header.space.set(self.identity.space.0);
        header
    }
}

/// Whether `message` is of those that are often ready together and that no kernel program answers, which look at datagrams of one frame
/// only: they leave in one datagram, and whoever gets them may carry them out together.
#[must_use]
pub const fn is_order(message: &Message) -> bool {
    matches!(message, Message::Invalidate { .. } | Message::InvalidateAck { .. } | Message::Done { .. })
}

fn stamp_one(bytes: &mut [u8], sequence: u64, pair: SipKey) {
    let header = Header::mut_from_bytes(bytes).expect("a header's bytes are a header");
    header.sequence.set(sequence);
    header.header_tag.set(header_tag(pair, header));
}
