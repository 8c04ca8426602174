//! One space's part of this host: the thread that drives pager, protocol and transport.
//!
//! Owns the only place where those three meet. Must not know jobs, users or the control sockets: it takes
//! [`ShardCommand`]s and emits [`ShardEvent`]s.

mod driver;
mod fast;
mod figures;
mod matching;
mod pages;
mod sketch;
mod stages;
mod sys;

use crate::clock::monotonic_ns;
use crate::fastpath::Seats;
use crate::memory::Ledger;
use anyhow::Context;
use driver::{Clock, Driver, Tally};
use dsm_proto::{Config, Node};
use dsm_transport::{Endpoint, EndpointConfig, FaultPlan};
use dsm_wire::{Epoch, NodeId, PageNumber, PageRange, SpaceId};
use dvm_api::SOURCED_START;
use dvm_api::local::HostStatistics;
use dvm_api::peer::SpaceMember;
use fast::Fast;
use figures::Figures;
use nix::sys::eventfd::{EfdFlags, EventFd};
use pages::Pages;
use sketch::Sketch;
use stages::Stages;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::mpsc;
use uffd_dsm::{Backing, Pager};

pub use stages::Watch;

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
    /// Whether the pages threads fetch are counted by thread.
    pub has_sketch: bool,
    /// Address the data sockets bind to.
    pub address: IpAddr,
    /// Bytes of the largest IP packet to peers.
    pub mtu: u16,
    /// The host's fast path, if it has one.
    pub fast: Option<Seats>,
    /// The host's memory.
    pub memory: Arc<Ledger>,
}

/// Orders to a shard.
#[derive(Debug)]
pub enum ShardCommand {
    /// Where the other members listen; handshakes start.
    AddPeers(Vec<SpaceMember>),
    /// Serve the faults of this userfaultfd.
    AttachView {
        /// The husk's.
        userfaultfd: OwnedFd,
        /// What else is recorded of the husk's faults.
        watch: Watch,
    },
    /// Forget these pages everywhere; answered by [`ShardEvent::Completed`].
    Discard {
        /// Comes back.
        tag: u64,
        /// Pages.
        range: PageRange,
        /// Pages with a source have their first content then.
        keeps_source: bool,
    },
    /// The first content of these pages is a file's; answered by [`ShardEvent::Completed`] or [`ShardEvent::Refused`].
    Source {
        /// Comes back.
        tag: u64,
        /// Pages.
        range: PageRange,
        /// The file.
        file: OwnedFd,
        /// Offset in it of the first page.
        offset: u64,
    },
    /// Answered by [`ShardEvent::Completed`] if no page has ever been sent to another host, else by [`ShardEvent::Refused`].
    AskHome {
        /// Comes back.
        tag: u64,
    },
    /// Keep these pages here as they are; answered by [`ShardEvent::Completed`] when all are at rest, or by [`ShardEvent::Refused`] when
    /// they are unpinned before.
    Pin {
        /// Comes back.
        tag: u64,
        /// The pages.
        pages: BTreeSet<PageNumber>,
    },
    /// Let go of the pages that are kept.
    Unpin,
    /// From now on the husk's threads wait when they write or touch a page first; answered by [`ShardEvent::Completed`].
    StopWriters {
        /// Comes back.
        tag: u64,
    },
    /// They go on.
    LetWrite,
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
    /// The order with this tag cannot be carried out.
    Refused {
        /// Tag of the order.
        tag: u64,
        /// Why.
        reason: String,
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
    /// Threads wait for memory, and there is none on any host of the job.
    MemoryExhausted {
        /// Which limit, and what to do.
        reason: String,
    },
    /// The shard cannot go on; its space is dead on this host.
    Failed {
        /// What failed, on what, and what to do.
        reason: String,
    },
}

/// A running shard. Dropping it ends the thread and waits for it.
#[derive(Debug)]
pub struct ShardHandle {
    listening: SpaceMember,
    backing: OwnedFd,
    commands: Sender<ShardCommand>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl ShardHandle {
    /// Starts the shard thread. Events arrive on the returned channel until it closes.
    ///
    /// # Errors
    /// When the memfd, the sockets, the ring or the thread cannot be made; the text says which and what to do.
    pub fn spawn(config: ShardConfig) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<ShardEvent>)> {
        let backing = Backing::create(&format!("dvm-space-{}", config.space))?;
        let backing_fd = backing.as_fd().try_clone_to_owned().context("duplicating the space's memfd")?;
        let endpoint = Endpoint::bind(EndpointConfig {
            me: config.me,
            space: config.space,
            epoch: config.epoch,
            cluster: config.cluster,
            cluster_key: config.cluster_key,
            address: config.address,
            mtu: config.mtu,
            faults: FaultPlan::NONE,
        })?;
        let (urgent, bulk) = endpoint.listening();
        let fast = Fast::new(config.fast, &endpoint, config.members.len(), monotonic_ns());
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).context("making the shard's eventfd")?;
        let wake = Arc::new(wake);
        let (commands, receiver) = channel();
        let (events, reports) = mpsc::unbounded_channel();
        let figures = Figures::new(&config.members);
        let mut node = Node::new(Config {
            me: config.me,
            space: config.space,
            members: config.members,
            epoch: config.epoch,
            rooted_from: PageNumber::containing(SOURCED_START).extent(),
        });
        fast.share_acks(&mut node);
        let driver = Driver {
            host: config.host,
            epoch: config.epoch,
            clock: Clock::start(),
            node,
            pages: Pages::new(Pager::new(backing)),
            share: config.memory.share(Arc::clone(&wake)),
            endpoint,
            fast,
            commands: receiver,
            wake: Arc::clone(&wake),
            events,
            figures,
            stages: Stages::default(),
            sketch: Sketch::new(config.has_sketch),
            tally: Tally::default(),
            peers_awaited: BTreeSet::new(),
            discards: BTreeMap::new(),
            pins: Vec::new(),
            stands_still: false,
            faults: Vec::new(),
            wanted: VecDeque::new(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{}", config.space))
            .spawn(move || run_shard(driver))
            .context("starting the shard's thread")?;
        let listening = SpaceMember { node: config.me.0, urgent, bulk };
        Ok((Self { listening, backing: backing_fd, commands, wake, thread: Some(thread) }, reports))
    }

    /// Where this shard listens.
    #[must_use]
    pub fn listening(&self) -> SpaceMember {
        self.listening
    }

    /// The space's memfd on this host.
    #[must_use]
    pub fn backing(&self) -> BorrowedFd<'_> {
        self.backing.as_fd()
    }

    /// Queues an order; ignored once the shard has ended.
    pub fn send(&self, command: ShardCommand) {
        if self.commands.send(command).is_ok() {
            // Only an overflow of 2^64 - 1 unread wake-ups could refuse this, and then it is awake anyway.
            self.wake.write(1).ok();
        }
    }
}

impl Drop for ShardHandle {
    fn drop(&mut self) {
        self.send(ShardCommand::Stop);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run_shard(driver: Driver) {
    let events = driver.events.clone();
    if let Err(errno) = sys::raise_priority() {
        eprintln!("dvm-agent: shard runs at ordinary priority ({errno}): run the agent as root or with CAP_SYS_NICE");
    }
    if let Err(error) = driver.run() {
        drop(events.send(ShardEvent::Failed { reason: format!("{error:#}") }));
    }
}
