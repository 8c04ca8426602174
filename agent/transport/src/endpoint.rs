//! The endpoint: the one type the shard talks to.
//!
//! Owns the order of work in a batch. Must not know the protocol.

use crate::{Counters, EndpointConfig, Nanos, SendRefusal, TransportError};
use dsm_wire::{Epoch, Message, NodeId, PAGE_BYTES};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

/// Which socket a frame takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Control and single pages somebody waits for.
    Urgent,
    /// Many pages at once.
    Bulk,
}

/// Why a peer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LostReason {
    /// Nothing authenticated came from it for a lease.
    Lease,
    /// It never finished a handshake.
    NoHandshake,
    /// It came back as another incarnation: what it held is gone.
    Restarted,
}

/// What came out of a batch.
#[derive(Debug)]
pub enum Event<'a> {
    /// A checked, authenticated, fresh message.
    Frame {
        /// Who sent it.
        from: NodeId,
        /// What it says.
        message: Message,
        /// The pages it carries; empty unless it grants bytes. Gone at the next call.
        pages: &'a [[u8; PAGE_BYTES]],
    },
    /// A watched descriptor is ready: drain it until it would block.
    Ready {
        /// As given to [`Endpoint::watch`].
        token: u32,
    },
    /// The handshake with a peer is done.
    PeerUp {
        /// The peer.
        node: NodeId,
    },
    /// A peer is lost; said once. Frames to and from it are refused until it is added again.
    PeerLost {
        /// The peer.
        node: NodeId,
        /// Why.
        reason: LostReason,
    },
}

/// Two sockets, one ring, all peers of one space. May be made on one thread and moved to another before the first
/// [`Endpoint::wait`]; from then on it stays there.
pub struct Endpoint {
    counters: Counters,
}

impl Endpoint {
    /// Makes the sockets and the ring, and listens.
    ///
    /// # Errors
    /// [`TransportError`] when a socket, the ring or randomness is refused, or the MTU is too small.
    pub fn bind(_config: EndpointConfig) -> Result<Endpoint, TransportError> {
        Ok(Endpoint { counters: Counters::default() })
    }

    /// Where the urgent and the bulk socket listen.
    #[must_use]
    pub fn listening(&self) -> (SocketAddr, SocketAddr) {
        todo!()
    }

    /// Begins (again) to talk with `node`; [`Event::PeerUp`] follows. A lost peer may be added again.
    ///
    /// # Errors
    /// [`TransportError::Peer`].
    pub fn add_peer(&mut self, _now: Nanos, _node: NodeId, _urgent: SocketAddr, _bulk: SocketAddr) -> Result<(), TransportError> {
        todo!()
    }

    /// Forgets `node` and what was to be sent to it; no event follows.
    pub fn remove_peer(&mut self, _node: NodeId) {}

    /// Takes a frame for `to`; it leaves with the next [`Endpoint::wait`]. `payload` is the pages of a Grant of bytes, else empty;
    /// they are copied. Waits inside for the handshake and for credits. A Grant of several pages becomes as many
    /// self-contained Grants as the MTU asks for.
    ///
    /// # Errors
    /// [`SendRefusal`], counted; the frame is as good as lost.
    pub fn send(
        &mut self,
        _now: Nanos,
        _to: NodeId,
        _message: &Message,
        _payload: &[&[u8; PAGE_BYTES]],
        _class: Class,
    ) -> Result<(), SendRefusal> {
        todo!()
    }

    /// Reports [`Event::Ready`] with `token` each time `fd` becomes readable. Edge: drain it until it would block. The endpoint
    /// keeps a duplicate of the descriptor until [`Endpoint::unwatch`].
    ///
    /// # Errors
    /// [`TransportError::Watch`] or `WatchToken`.
    pub fn watch(&mut self, _fd: BorrowedFd<'_>, _token: u32) -> Result<(), TransportError> {
        todo!()
    }

    /// Stops watching; no event with `token` follows.
    pub fn unwatch(&mut self, _token: u32) {}

    /// Stamps frames with `epoch` from now on, and drops frames of any other.
    pub fn set_epoch(&mut self, _epoch: Epoch) {}

    /// Sends everything that may go and waits for something to happen, until `deadline` at the latest (`None`: as long as it
    /// takes; the endpoint's own timers bound it). One system call. Does not wait while events are pending.
    ///
    /// # Errors
    /// [`TransportError::Wait`] when the ring is broken.
    pub fn wait(&mut self, _now: Nanos, _deadline: Option<Nanos>) -> Result<(), TransportError> {
        todo!()
    }

    /// The next thing that happened; urgent frames before bulk. `None`: call [`Endpoint::wait`].
    pub fn next_event(&mut self, _now: Nanos) -> Option<Event<'_>> {
        todo!()
    }

    /// Counts so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
