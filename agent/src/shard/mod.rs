//! One space's part of this host: the thread that drives pager, protocol and transport.
//!
//! Owns the only place where those three meet. Must not know jobs, users or the control sockets: it takes
//! [`ShardCommand`]s and emits [`ShardEvent`]s.

use dsm_wire::{Epoch, NodeId, PageRange, SpaceId};
use dvm_api::local::HostStatistics;
use dvm_api::peer::SpaceMember;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use tokio::sync::mpsc;

/// What a shard needs to start.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// This host.
    pub me: NodeId,
    /// Name of this host, for statistics.
    pub host: String,
    /// The space.
    pub space: SpaceId,
    /// All members, in the order every member knows them.
    pub members: Vec<NodeId>,
    /// Membership epoch.
    pub epoch: Epoch,
    /// Fingerprint of the cluster's configuration.
    pub cluster: u32,
    /// The cluster key.
    pub cluster_key: [u8; 32],
    /// Address the data sockets bind to.
    pub address: IpAddr,
    /// Bytes of the largest IP packet to peers.
    pub mtu: u16,
}

/// Orders to a shard.
#[derive(Debug)]
pub enum ShardCommand {
    /// Where the other members listen; handshakes start.
    AddPeers(Vec<SpaceMember>),
    /// Serve the faults of this userfaultfd.
    AttachView(OwnedFd),
    /// Forget these pages everywhere; answered by [`ShardEvent::Completed`].
    Discard {
        /// Comes back.
        tag: u64,
        /// Pages.
        range: PageRange,
    },
    /// Report figures; answered by [`ShardEvent::Statistics`].
    Statistics {
        /// Comes back.
        tag: u64,
    },
    /// End; the thread exits and everything is closed.
    Stop,
}

/// What a shard reports.
#[derive(Debug)]
pub enum ShardEvent {
    /// All peers of [`ShardCommand::AddPeers`] have answered the handshake.
    PeersReady,
    /// The order with this tag is carried out.
    Completed {
        /// Tag of the order.
        tag: u64,
    },
    /// Answer to [`ShardCommand::Statistics`].
    Statistics {
        /// Tag of the order.
        tag: u64,
        /// The figures.
        statistics: HostStatistics,
    },
    /// A peer's lease on the data path ran out.
    PeerLost {
        /// The peer.
        node: NodeId,
        /// What was seen.
        reason: String,
    },
    /// The shard cannot go on; its space is dead on this host.
    Failed {
        /// What failed, on what, and what to do.
        reason: String,
    },
}

/// A running shard.
#[derive(Debug)]
pub struct ShardHandle {
    _private: (),
}

impl ShardHandle {
    /// Starts the shard thread. Events arrive on the returned channel until it closes.
    ///
    /// # Errors
    /// When the memfd, the sockets or the ring cannot be made; the text says which and what to do.
    pub fn spawn(_config: ShardConfig) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<ShardEvent>)> {
        anyhow::bail!("shard: not built yet")
    }

    /// Where this shard listens.
    #[must_use]
    pub fn listening(&self) -> SpaceMember {
        unreachable!("no shard exists yet")
    }

    /// The space's memfd on this host.
    #[must_use]
    pub fn backing(&self) -> BorrowedFd<'_> {
        unreachable!("no shard exists yet")
    }

    /// Queues an order; ignored once the shard has ended.
    pub fn send(&self, _command: ShardCommand) {}
}
