//! One simulated host: a real node, a fake pager, and the threads of its program.
//!
//! Owns what a driver's shard owns, without its sockets. Must not judge.

use super::fast::Fast;
use super::pager::Pager;
use super::picture::Picture;
use super::rng::Rng;
use dsm_proto::{Config, FaultKind, Nanos, Node};
use dsm_wire::{Epoch, ExtentNumber, NodeId, PageNumber, SpaceId};
use std::collections::BTreeMap;

/// The first extent whose home is the first host, whoever touches it.
pub const ROOTED_FROM: ExtentNumber = ExtentNumber(8);

/// A thread of the simulated program.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its own chance.
    pub rng: Rng,
    /// Accesses still to make.
    pub left: u64,
    /// The access it is at.
    pub access: Option<(PageNumber, FaultKind)>,
    /// Pages of a scan still to touch.
    pub scan: u64,
    /// What the scan does with them.
    pub scan_kind: FaultKind,
}

/// One host.
#[derive(Debug)]
pub struct Host {
    /// Its part of the protocol.
    pub node: Node,
    /// Its memory.
    pub pager: Pager,
    /// Its program.
    pub threads: Vec<Thread>,
    /// Starts so far; what was meant for an earlier one is void.
    pub incarnation: u64,
    /// Whether it runs.
    pub is_up: bool,
    /// Whether the others have buried it: nothing it does counts.
    pub is_fenced: bool,
    /// Epoch its frames carry.
    pub epoch: Epoch,
    /// The timer that is set.
    pub timer: Option<Nanos>,
    /// Its own chance, for operations.
    pub rng: Rng,
    /// What it shares with its kernel programs, if it has any.
    pub fast: Option<Fast>,
    /// Pages of installs under way.
    pub coming: u64,
    /// The picture it takes.
    pub picture: Picture,
    /// Frames sent to each host.
    pub sequences: BTreeMap<usize, u64>,
}

impl Host {
    /// A host that knows nothing.
    #[must_use]
    pub fn new(me: NodeId, members: Vec<NodeId>, epoch: Epoch, threads: Vec<Thread>, rng: Rng) -> Self {
        let node = Node::new(Config { me, space: SpaceId(1), members, epoch, rooted_from: ROOTED_FROM });
        Self {
            node,
            pager: Pager::default(),
            threads,
            incarnation: 0,
            is_up: true,
            is_fenced: false,
            epoch,
            timer: None,
            rng,
            fast: None,
            coming: 0,
            picture: Picture::default(),
            sequences: BTreeMap::new(),
        }
    }

    /// Gives the host its programs, or none.
    pub fn set_fast(&mut self, fast: Option<Fast>) {
        if let Some(fast) = &fast {
            fast.share_acks(&mut self.node);
        }
        self.fast = fast;
    }
}
