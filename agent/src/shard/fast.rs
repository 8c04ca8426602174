//! The shard's seat in the fast path: its peers, its directories, and the pages it lets the kernel serve.
//!
//! Owns what is published when. Must not know what the programs make of it.
//!
//! A page is published when it is first served to a reader, if there is a host left that may read it, too: the kernel answers that
//! one. Home's bytes cannot change before the page's era does, and the programs look at the era.

use crate::fastpath::Seats;
use dsm_bpf::{Bytes, Seat, SipKey};
use dsm_proto::Node;
use dsm_transport::Endpoint;
use dsm_wire::{Era, ExtentNumber, NodeId, PAGE_BYTES, PageNumber};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Members from which on a page that was served once may be asked for by somebody else.
const MEMBERS_MIN: usize = 3;

/// See the file's head; without a seat everything here does nothing.
#[derive(Debug, Default)]
pub(super) struct Fast {
    seat: Option<Seat>,
    is_attached: Arc<AtomicBool>,
    is_shared: bool,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    published: u64,
    no_room: u64,
    directories: u64,
}

impl Fast {
    /// Takes a seat for `endpoint`, if there is one.
    pub(super) fn new(seats: Option<Seats>, endpoint: &Endpoint, members: usize, now_ns: u64) -> Self {
        let (urgent, _) = endpoint.listening();
        let (Some(Seats { tables, is_attached }), SocketAddr::V4(address)) = (seats, urgent) else { return Self::default() };
        let seat = Seat::take(tables, address, &endpoint.addressing(), endpoint.pages_fit(), now_ns);
        Self { seat, is_attached, is_shared: members >= MEMBERS_MIN, tally: Tally::default() }
    }

    /// Has `node` count acknowledgements where the programs do.
    pub(super) fn share_acks(&self, node: &mut Node) {
        if let Some(acks) = self.seat.as_ref().and_then(Seat::acks) {
            node.share_acks(acks);
        }
    }

    /// The shard is alive at `now_ns` of CLOCK_MONOTONIC.
    pub(super) fn note_alive(&self, now_ns: u64) {
        if let Some(seat) = &self.seat {
            seat.note_alive(now_ns);
        }
    }

    pub(super) fn open_peer(&self, node: NodeId, key: SipKey, address: SocketAddr) {
        if let (Some(seat), SocketAddr::V4(address)) = (&self.seat, address) {
            seat.open_peer(node, key, address);
        }
    }

    pub(super) fn answer_peer(&self, node: NodeId, key: SipKey) {
        if let Some(seat) = &self.seat {
            seat.answer_peer(node, key);
        }
    }

    pub(super) fn close_peer(&self, node: NodeId) {
        if let Some(seat) = &self.seat {
            seat.close_peer(node);
        }
    }

    /// Shares the directory of `extent` with the programs, if there is room for it.
    pub(super) fn open_directory(&mut self, node: &mut Node, extent: ExtentNumber) {
        if let Some(seat) = &mut self.seat
            && let Some(memory) = seat.take_directory(extent)
            && node.share_directory(extent, memory)
        {
            seat.enter_directory(extent);
            self.tally.directories += 1;
        }
    }

    pub(super) fn close_directory(&mut self, extent: ExtentNumber) {
        if let Some(seat) = &mut self.seat {
            seat.leave(extent);
        }
    }

    /// Whether pages that are served are to be published.
    pub(super) fn publishes(&self) -> bool {
        self.seat.is_some() && self.is_shared && self.is_attached.load(Ordering::Relaxed)
    }

    /// Publishes `page` of `era`, which is read-only here; without bytes it is all zero.
    pub(super) fn publish(&mut self, endpoint: &Endpoint, page: PageNumber, era: Era, bytes: Option<&[u8; PAGE_BYTES]>) {
        let Some(seat) = self.seat.as_mut().filter(|seat| !seat.has_published(page, era)) else { return };
        let bytes = bytes.map_or(Bytes::Zero, |bytes| Bytes::Page(bytes, endpoint.page_tag(page, era, bytes)));
        let counter = if seat.publish(page, era, bytes) { &mut self.tally.published } else { &mut self.tally.no_room };
        *counter += 1;
    }

    pub(super) fn counters(&self) -> [(&'static str, u64); 3] {
        let Tally { published, no_room, directories } = self.tally;
        [("pages_published", published), ("pages_not_published", no_room), ("directories_shared", directories)]
    }
}
