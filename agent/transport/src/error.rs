//! Why an endpoint cannot be made or used, and why a frame is not taken.
//!
//! Owns the error types. Must not know who reports them.

use dsm_wire::NodeId;
use std::io;
use std::net::SocketAddr;

/// A failure of the endpoint itself. After one from [`crate::Endpoint::wait`] the endpoint is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A socket could not be made.
    #[error("socket on {address} refused ({source}): check that this host has the address")]
    Socket {
        /// Where it should have listened.
        address: SocketAddr,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The ring could not be made.
    #[error("io_uring refused ({0}): needs Linux 6.1 or later and kernel.io_uring_disabled=0")]
    Ring(#[source] io::Error),
    /// Waiting failed.
    #[error("io_uring wait failed ({0}): the endpoint cannot go on")]
    Wait(#[source] io::Error),
    /// A descriptor could not be watched.
    #[error("descriptor with token {token} not watched ({source}): pass one that can be polled")]
    Watch {
        /// Token of the call.
        token: u32,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// A token is in use, or all places are.
    #[error("token {token} not watched: it is watched already or {max} descriptors are; unwatch first")]
    WatchToken {
        /// Token of the call.
        token: u32,
        /// Most descriptors at once.
        max: usize,
    },
    /// The MTU cannot carry even a sixteenth of a page.
    #[error("mtu {mtu} too small: needs at least {min}")]
    Mtu {
        /// As configured.
        mtu: u16,
        /// Smallest that works.
        min: u16,
    },
    /// The kernel gave no randomness.
    #[error("no random bytes from the kernel ({0}): nothing to do but try again")]
    Random(#[source] io::Error),
    /// A peer cannot be added.
    #[error("peer {node} not added: it is this node, or {max} peers are known; name each host once")]
    Peer {
        /// The node.
        node: NodeId,
        /// Most peers at once.
        max: usize,
    },
    /// The Noise library refused its parameters.
    #[error("handshake could not start ({0}): the cluster key is unusable")]
    Noise(#[source] snow::Error),
}

/// Why a frame was not taken. Nothing was sent; the protocol's own retry covers all but the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendRefusal {
    /// Too many frames to this peer wait for credits or for the handshake.
    #[error("queue to the peer is full: send again later")]
    QueueFull,
    /// No send slot is free.
    #[error("no send slot is free: send again later")]
    NoSlot,
    /// The peer was never added.
    #[error("unknown peer: add it first")]
    UnknownPeer,
    /// The peer is lost.
    #[error("peer is lost: add it again if it is a member again")]
    PeerLost,
    /// The number of pages does not fit the message.
    #[error("payload does not fit the message: pass exactly the pages a grant of bytes counts")]
    Payload,
}
