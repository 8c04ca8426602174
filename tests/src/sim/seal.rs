//! What the transport puts into a header: addresses, sequence, tags; and whether they are right.
//!
//! Owns the keys. Must not know what a frame is for.

use super::pager::Stamp;
use dsm_fast::{SipKey, header_tag};
use dsm_wire::{Epoch, Era, Header, NodeId, PageNumber};

/// Fingerprint of the cluster.
pub const CLUSTER: u32 = 0x00d5_0a11;
/// The space.
pub const SPACE: u32 = 1;

/// What a host seals its frames for another with.
#[derive(Clone, Copy, Debug)]
pub struct Seal {
    /// Sender.
    pub from: NodeId,
    /// Receiver.
    pub to: NodeId,
    /// Epoch the sender is in.
    pub epoch: Epoch,
    /// Number of this transmission among those of the pair.
    pub sequence: u64,
    /// Tells the keys of a restarted host from those it had before.
    pub salt: u64,
}

impl Seal {
    /// Seals `header`, whose message is complete.
    pub fn put(&self, header: &mut Header) {
        header.cluster.set(CLUSTER);
        header.space.set(SPACE);
        header.epoch.set(self.epoch.0);
        header.source.set(self.from.0);
        header.destination.set(self.to.0);
        header.sequence.set(self.sequence);
        header.header_tag.set(header_tag(pair_key(self.from, self.to, self.salt), header));
    }
}

/// Whether a program of `from` may have sealed this frame for `to`; `stamps` are the bytes it carries.
#[must_use]
pub fn is_sound(header: &Header, from: NodeId, to: NodeId, salt: u64, stamps: &[Stamp]) -> bool {
    let era = Era(header.page_version.get());
    let page = PageNumber(header.page.get());
    let payload = stamps.first().map_or(0, |stamp| payload_tag(page, era, *stamp));
    (header.cluster.get(), header.space.get(), header.source.get(), header.destination.get()) == (CLUSTER, SPACE, from.0, to.0)
        && header.payload_tag.get() == payload
        && header.header_tag.get() == header_tag(pair_key(from, to, salt), header)
}

/// The key of two hosts.
#[must_use]
pub fn pair_key(one: NodeId, other: NodeId, salt: u64) -> SipKey {
    let (low, high) = (one.min(other), one.max(other));
    SipKey(u64::from(low.0) << 16 | u64::from(high.0), 0x5ea1 ^ salt << 32)
}

/// A payload tag: not a secret here, but another one for other bytes, another page or another era.
#[must_use]
pub const fn payload_tag(page: PageNumber, era: Era, stamp: Stamp) -> u64 {
    (page.0.rotate_left(40) ^ (era.0 as u64).rotate_left(20) ^ stamp).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}
