//! Frames in: checked in the order of what a check costs, authenticated, then delivered or dropped with a counter.
//!
//! Owns the checks and the loan of the delivered bytes. Must not know what messages mean.

use crate::endpoint::Place;
use crate::framing::datagram_bytes;
use crate::peer::{Counter, split_sequence};
use crate::reassembly::{Contradiction, PieceOf};
use crate::tags::{header_tag, payload_tag};
use crate::{Class, Endpoint, Nanos};
use dsm_fast::{check_addressing, check_length};
use dsm_wire::{Era, FLAG_FRAGMENT, HEADER_BYTES, Header, Kind, Message, NodeId, PAGE_BYTES, PageNumber, PayloadShape};

/// Datagrams in a receive buffer: what is left of it, or one of them.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) buffer: u16,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Nothing of the buffer comes after it.
    pub(crate) is_last: bool,
}

impl Arrival {
    fn bytes(self) -> usize {
        self.end - self.start
    }
}

/// What the caller may be looking at until its next call.
pub(crate) enum Lent {
    Nothing,
    /// A receive buffer.
    Buffer(Class, Arrival),
    /// A page that came in pieces.
    Page(Box<[u8; PAGE_BYTES]>),
}

/// A frame for the caller; its pages are what is lent.
pub(crate) struct Delivery {
    pub(crate) from: NodeId,
    pub(crate) message: Message,
}

/// Why a frame is dropped; each has its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drop {
    Short,
    Version,
    Kind,
    Length,
    Field,
    Cluster,
    Epoch,
    Destination,
    UnknownPeer,
    NoSession,
    HeaderTag,
    PayloadTag,
    Replay,
    Handshake,
    Fragment,
}

/// What becomes of an accepted frame.
enum Accepted {
    /// It was the transport's own, or not the last piece.
    Consumed,
    /// For the caller; the pages lie in the receive buffer.
    InPlace(Delivery),
    /// For the caller; the page came in pieces.
    Whole(Delivery, Box<[u8; PAGE_BYTES]>),
}

impl Endpoint {
    /// The next frame for the caller among what arrived. Stops early when there is something else to tell.
    pub(crate) fn receive(&mut self, now: Nanos) -> Option<Delivery> {
        while self.notices.is_empty() {
            let (class, arrival) = self.next_arrival()?;
            match self.accept(now, class, arrival) {
                Ok(Accepted::InPlace(delivery)) => {
                    self.lent = Lent::Buffer(class, arrival);
                    return Some(delivery);
                }
                Ok(Accepted::Whole(delivery, page)) => {
                    self.release(class, arrival);
                    self.lent = Lent::Page(page);
                    return Some(delivery);
                }
                Ok(Accepted::Consumed) => self.release(class, arrival),
                Err(drop) => {
                    self.release(class, arrival);
                    self.count(drop);
                }
            }
        }
        None
    }

    /// Takes back what the caller looked at.
    pub(crate) fn give_back(&mut self) {
        if self.stashed.is_some() {
            return;
        }
        match std::mem::replace(&mut self.lent, Lent::Nothing) {
            Lent::Nothing => {}
            Lent::Buffer(class, arrival) => self.release(class, arrival),
            Lent::Page(page) => self.reassembly.give_back(page),
        }
    }

    /// Whether the frame told last was not the last of its datagram, or of those that the kernel has joined.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        matches!(self.lent, Lent::Buffer(_, arrival) if !arrival.is_last)
    }

    /// The pages of `delivery`, which is the last one.
    pub(crate) fn lent_pages(&self, _delivery: &Delivery) -> &[[u8; PAGE_BYTES]] {
        match &self.lent {
            Lent::Nothing => &[],
            Lent::Buffer(class, arrival) => self.datagram(*class, *arrival).get(HEADER_BYTES..).unwrap_or_default().as_chunks().0,
            Lent::Page(page) => std::slice::from_ref(page),
        }
    }

    fn next_arrival(&mut self) -> Option<(Class, Arrival)> {
        if let Some(arrival) = self.next_datagram(Class::Urgent) {
            return Some((Class::Urgent, arrival));
        }
        if self.bulk_left == 0 {
            return None;
        }
        let arrival = self.next_datagram(Class::Bulk)?;
        self.bulk_left = self.bulk_left.saturating_sub(arrival.bytes().max(HEADER_BYTES));
        Some((Class::Bulk, arrival))
    }

    /// Parts the first datagram from what arrived on the socket of `class`.
    fn next_datagram(&mut self, class: Class) -> Option<Arrival> {
        let rest = *self.arrived[class as usize].front()?;
        let said = match Header::split(self.datagram(class, rest)) {
            Ok((header, kind, _)) => datagram_bytes(header.shape(kind)),
            Err(_) => None,
        };
        match said.filter(|bytes| *bytes < rest.bytes()) {
            None => self.arrived[class as usize].pop_front(),
            Some(bytes) => {
                let end = rest.start + bytes;
                self.arrived[class as usize][0].start = end;
                Some(Arrival { end, is_last: false, ..rest })
            }
        }
    }

    fn datagram(&self, class: Class, arrival: Arrival) -> &[u8] {
        self.ring.received(class, arrival.buffer, arrival.end).get(arrival.start..).unwrap_or_default()
    }

    /// Gives the buffer of a datagram back when nothing of it is left.
    fn release(&mut self, class: Class, arrival: Arrival) {
        if arrival.is_last {
            self.ring.recycle(class, arrival.buffer);
        }
    }

    fn accept(&mut self, now: Nanos, class: Class, arrival: Arrival) -> Result<Accepted, Drop> {
        let (header, kind, payload) = Header::split(self.datagram(class, arrival)).map_err(dsm_fast::Drop::from)?;
        let header = *header;
        let shape = header.shape(kind);
        check_length(shape, payload.len())?;
        self.check_addressing(&header, kind)?;
        let from = NodeId(header.source.get());
        if shape == PayloadShape::Handshake {
            let payload = payload.to_vec();
            self.handle_greeting(now, from, kind, &header, &payload)?;
            return Ok(Accepted::Consumed);
        }
        let message = if is_own(kind) { None } else { Some(Message::decode(&header, kind).map_err(|_| Drop::Field)?) };
        let (counter, sequence) = split_sequence(header.sequence.get());
        if counter.class() != class {
            return Err(Drop::Field);
        }
        self.authenticate(now, from, &header)?;
        self.check_fresh(from, counter, sequence)?;
        self.check_payload(from, class, arrival, &header)?;
        self.on_accepted(now, from, (counter, sequence), arrival.bytes(), shape != PayloadShape::Empty);
        match (message, shape) {
            (None, _) => {
                self.handle_own(from, kind, &header);
                Ok(Accepted::Consumed)
            }
            (Some(message), PayloadShape::Fragment { index, count }) => {
                self.add_piece(now, class, arrival, &header, (index, count)).map(|page| match page {
                    Some(page) => Accepted::Whole(Delivery { from, message }, page),
                    None => Accepted::Consumed,
                })
            }
            (Some(message), _) => Ok(Accepted::InPlace(Delivery { from, message })),
        }
    }

    fn check_addressing(&self, header: &Header, kind: Kind) -> Result<(), Drop> {
        check_addressing(header, kind, &self.addressing())?;
        if !matches!(self.peers.get(usize::from(header.source.get())), Some(Place::Known(_))) {
            return Err(Drop::UnknownPeer);
        }
        Ok(())
    }

    /// Checks the header tag. A frame under the key of our latest Reply proves the peer alive and begins that session.
    fn authenticate(&mut self, now: Nanos, from: NodeId, header: &Header) -> Result<(), Drop> {
        let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(from.0)) else { return Err(Drop::UnknownPeer) };
        let tag = header.header_tag.get();
        let pair = peer.session.as_ref().map(|session| session.agreement.pair);
        if pair.is_some_and(|pair| header_tag(pair, header) == tag) {
            return Ok(());
        }
        let answered = peer.handshake.answered_pair();
        if answered.is_some_and(|pair| header_tag(pair, header) == tag)
            && let Some(agreement) = peer.handshake.on_proved()
        {
            self.begin_session(now, from, agreement);
            return Ok(());
        }
        Err(if pair.is_some() { Drop::HeaderTag } else { Drop::NoSession })
    }

    fn check_fresh(&self, from: NodeId, counter: Counter, sequence: u64) -> Result<(), Drop> {
        let Some(Place::Known(peer)) = self.peers.get(usize::from(from.0)) else { return Err(Drop::UnknownPeer) };
        let session = peer.session.as_ref().ok_or(Drop::NoSession)?;
        if session.windows[counter as usize].is_fresh(sequence) { Ok(()) } else { Err(Drop::Replay) }
    }

    fn check_payload(&self, from: NodeId, class: Class, arrival: Arrival, header: &Header) -> Result<(), Drop> {
        let Some(Place::Known(peer)) = self.peers.get(usize::from(from.0)) else { return Err(Drop::UnknownPeer) };
        let session = peer.session.as_ref().ok_or(Drop::NoSession)?;
        let payload = self.datagram(class, arrival).get(HEADER_BYTES..).unwrap_or_default();
        let expected = if payload.is_empty() {
            0
        } else {
            let (page, era) = (PageNumber(header.page.get()), Era(header.page_version.get()));
            payload_tag(session.agreement.peer.publisher, self.identity.space, page, era, payload)
        };
        if header.payload_tag.get() == expected { Ok(()) } else { Err(Drop::PayloadTag) }
    }

    /// An authentic, fresh frame: lease, replay window, counters, credits.
    fn on_accepted(&mut self, now: Nanos, from: NodeId, (counter, sequence): (Counter, u64), bytes: usize, has_pages: bool) {
        let Some(Place::Known(peer)) = self.peers.get_mut(usize::from(from.0)) else { return };
        peer.on_heard(now);
        let Some(session) = &mut peer.session else { return };
        let class = counter.class();
        session.windows[counter as usize].insert(sequence);
        // What a kernel program sends it was asked for by this node, which bounds it: no credits.
        let report = has_pages && counter != Counter::Kernel && session.consumed[class as usize].on_consumed(bytes as u32);
        let highest = session.windows[class as usize].highest();
        match counter {
            Counter::Urgent => self.counters.frames_in_urgent += 1,
            Counter::Bulk => self.counters.frames_in_bulk += 1,
            Counter::Kernel => self.counters.frames_in_kernel += 1,
        }
        self.counters.bytes_in += bytes as u64;
        if report {
            self.queue_own(from, Kind::Credit, Class::Urgent, class as u64, highest);
        }
    }

    fn add_piece(
        &mut self,
        now: Nanos,
        class: Class,
        arrival: Arrival,
        header: &Header,
        (index, pieces): (u16, u16),
    ) -> Result<Option<Box<[u8; PAGE_BYTES]>>, Drop> {
        let of = PieceOf {
            source: header.source.get(),
            request: header.request.get(),
            page: header.page.get(),
            era: header.page_version.get(),
            flags: header.flags.get() & (FLAG_FRAGMENT - 1),
            pieces,
        };
        let piece =
            self.ring.received(class, arrival.buffer, arrival.end).get(arrival.start + HEADER_BYTES..).unwrap_or_default();
        self.reassembly.add(now, of, index, piece).map_err(|Contradiction| Drop::Fragment)
    }

    fn count(&mut self, drop: Drop) {
        let counters = &mut self.counters;
        let counter = match drop {
            Drop::Short => &mut counters.dropped_short,
            Drop::Version => &mut counters.dropped_version,
            Drop::Kind => &mut counters.dropped_kind,
            Drop::Length => &mut counters.dropped_length,
            Drop::Field => &mut counters.dropped_field,
            Drop::Cluster => &mut counters.dropped_cluster,
            Drop::Epoch => &mut counters.dropped_epoch,
            Drop::Destination => &mut counters.dropped_destination,
            Drop::UnknownPeer => &mut counters.dropped_unknown_peer,
            Drop::NoSession => &mut counters.dropped_no_session,
            Drop::HeaderTag => &mut counters.dropped_header_tag,
            Drop::PayloadTag => &mut counters.dropped_payload_tag,
            Drop::Replay => &mut counters.dropped_replay,
            Drop::Handshake => &mut counters.dropped_handshake,
            Drop::Fragment => &mut counters.dropped_fragment,
        };
        *counter += 1;
    }
}

impl From<dsm_fast::Drop> for Drop {
    fn from(drop: dsm_fast::Drop) -> Drop {
        match drop {
            dsm_fast::Drop::Short => Drop::Short,
            dsm_fast::Drop::Version => Drop::Version,
            dsm_fast::Drop::Kind => Drop::Kind,
            dsm_fast::Drop::Length => Drop::Length,
            dsm_fast::Drop::Cluster => Drop::Cluster,
            dsm_fast::Drop::Destination => Drop::Destination,
            dsm_fast::Drop::Epoch => Drop::Epoch,
            dsm_fast::Drop::Tag => Drop::HeaderTag,
            dsm_fast::Drop::Replay => Drop::Replay,
        }
    }
}

/// Whether the transport itself is the receiver.
fn is_own(kind: Kind) -> bool {
    matches!(kind, Kind::Ping | Kind::Pong | Kind::Credit)
}
