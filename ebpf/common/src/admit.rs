//! Whether a frame is for us at all: the checks that need neither key nor session, cheapest first.
//!
//! Owns the reasons for which frames are refused. Must not know what kinds mean beyond whose they are.

use dsm_wire::{Header, HeaderError, Kind, PAGE_BYTES, PayloadShape};

/// What every frame for an endpoint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressing {
    /// Fingerprint of the cluster.
    pub cluster: u32,
    /// Present epoch.
    pub epoch: u32,
    /// Space.
    pub space: u32,
    /// This node.
    pub me: u16,
}

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drop {
    /// Fewer than 64 bytes.
    Short,
    /// Another protocol version.
    Version,
    /// No such kind.
    Kind,
    /// The payload does not have the length the header says.
    Length,
    /// Another cluster.
    Cluster,
    /// Another node, or another space.
    Destination,
    /// Another membership epoch.
    Epoch,
    /// Not tagged with the key of the pair.
    Tag,
    /// Its sequence was seen, or is too old to tell.
    Replay,
}

impl From<HeaderError> for Drop {
    fn from(error: HeaderError) -> Drop {
        match error {
            HeaderError::Short => Drop::Short,
            HeaderError::Version => Drop::Version,
            HeaderError::Kind => Drop::Kind,
            HeaderError::Length | HeaderError::Field => Drop::Length,
        }
    }
}

/// Whether `bytes` payload bytes are what `shape` announces.
///
/// # Errors
/// [`Drop::Length`].
pub const fn check_length(shape: PayloadShape, bytes: usize) -> Result<(), Drop> {
    let fits = match shape {
        PayloadShape::Empty => bytes == 0,
        PayloadShape::Pages(pages) => bytes == pages as usize * PAGE_BYTES,
        PayloadShape::Fragment { .. } => bytes > 0 && bytes < PAGE_BYTES,
        PayloadShape::Handshake => bytes > 0,
    };
    if fits { Ok(()) } else { Err(Drop::Length) }
}

/// Whether the transport itself is the receiver: leases, credits and handshakes outlive an epoch; what moves pages does not.
#[must_use]
pub const fn is_transport(kind: Kind) -> bool {
    matches!(kind, Kind::Ping | Kind::Pong | Kind::Credit | Kind::HandshakeInit | Kind::HandshakeReply | Kind::HandshakeFinish)
}

/// Whether `header` is addressed to `us`.
///
/// # Errors
/// [`Drop::Cluster`], `Destination` or `Epoch`.
pub fn check_addressing(header: &Header, kind: Kind, us: &Addressing) -> Result<(), Drop> {
    if header.cluster.get() != us.cluster {
        return Err(Drop::Cluster);
    }
    if header.destination.get() != us.me || header.space.get() != us.space {
        return Err(Drop::Destination);
    }
    if !is_transport(kind) && header.epoch.get() != us.epoch {
        return Err(Drop::Epoch);
    }
    Ok(())
}
