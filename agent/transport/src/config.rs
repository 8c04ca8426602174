//! What an endpoint is told at birth.
//!
//! Owns the configuration types. Must not know how any of it is used.

use dsm_wire::{Epoch, NodeId, SpaceId};
use std::net::IpAddr;
use std::time::Duration;

/// A point in time: nanoseconds since some fixed moment of the caller's choice. Never runs backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The moment `duration` later.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Nanos {
        Nanos(self.0.saturating_add(duration.as_nanos() as u64))
    }

    /// Time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Nanos) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Who this endpoint is and where it listens.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// This node.
    pub me: NodeId,
    /// The space whose frames these are.
    pub space: SpaceId,
    /// Membership epoch to begin with.
    pub epoch: Epoch,
    /// Fingerprint of the cluster's configuration.
    pub cluster: u32,
    /// The secret all nodes of the cluster share.
    pub cluster_key: [u8; 32],
    /// Local address; both sockets take a free port of it.
    pub address: IpAddr,
    /// Largest IP packet the link to the peers carries, in bytes.
    pub mtu: u16,
    /// Faults to inject into what is sent; [`FaultPlan::NONE`] outside tests.
    pub faults: FaultPlan,
}

/// Faults the send side inflicts on its own frames, each in thousandths of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// The same seed gives the same faults for the same frames.
    pub seed: u64,
    /// Frames not sent at all.
    pub loss_permille: u16,
    /// Frames sent twice.
    pub duplicate_permille: u16,
    /// Frames held back for up to `delay_max` and so overtaken by later ones.
    pub delay_permille: u16,
    /// Longest time a frame is held back.
    pub delay_max: Duration,
}

impl FaultPlan {
    /// No faults.
    pub const NONE: FaultPlan =
        FaultPlan { seed: 0, loss_permille: 0, duplicate_permille: 0, delay_permille: 0, delay_max: Duration::ZERO };
}
