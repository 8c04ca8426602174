//! The agent of one host: what all its tasks share.
//!
//! Owns identity, peers, jobs and counters, all on one thread. Must not be on the way of a fault.

use crate::config::{ClusterConfig, NodeConfig, NodeEntry};
use crate::counters::Counters;
use crate::exit::{Exit, Failure};
use crate::figures::Figures;
use crate::job::part::ShardMaker;
use crate::job::{Job, JobNote, Role, member};
use crate::limits::{HANDSHAKE_DEADLINE, JOBS_MAX, SPACE_COUNTER_BITS};
use crate::log::say;
use crate::membership::{Joined, Members, Membership, SpaceEntry};
use crate::memory::Ledger;
use crate::net::link::{Handler, Link};
use crate::net::peers::{self, Peer};
use crate::net::session::{Secret, Session};
use crate::{clock, fastpath, observe, sys};
use anyhow::{Context, anyhow};
use dsm_wire::{NodeId, SpaceId};
use dvm_api::local::{Purpose, ToHusk};
use dvm_api::peer::{Opened, Opening, ToPeer};
use std::cell::{Cell, RefCell};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::time::timeout;

/// Most bytes of an IP packet; the loopback interface claims more.
const MTU_MAX: u32 = u16::MAX as u32;

/// What an agent is made of, beside its membership.
pub struct Start {
    /// The cluster.
    pub cluster: ClusterConfig,
    /// This node's settings.
    pub node: NodeConfig,
    /// Its name and where it is.
    pub own: NodeEntry,
    /// Random number of this start.
    pub incarnation: u64,
    /// Starts shards.
    pub make_shard: ShardMaker,
}

/// A random number for this start.
///
/// # Errors
/// When /dev/urandom cannot be read.
pub fn incarnation() -> Result<u64, Failure> {
    random().map(u64::from_le_bytes).map_err(|error| Failure::new(Exit::Kernel, error))
}

/// Everything the agent's tasks share.
pub struct Agent {
    /// This node.
    pub me: NodeId,
    /// Random number of this start.
    pub incarnation: u64,
    /// The cluster's name, key and fingerprint.
    pub cluster: ClusterConfig,
    /// Its hosts.
    pub members: Members,
    /// Who says which they are.
    pub membership: Rc<dyn Membership>,
    /// This node's settings.
    pub node: NodeConfig,
    /// Bytes of the largest IP packet to peers.
    pub mtu: u16,
    /// What happened so far.
    pub counters: Counters,
    /// Figures of jobs that have ended.
    pub past: RefCell<Figures>,
    /// Starts shards.
    pub make_shard: ShardMaker,
    /// This host's fast path.
    pub fast: fastpath::Host,
    /// Memory that pages may take here.
    pub memory: Arc<Ledger>,
    /// When this agent started.
    pub started: Instant,
    /// Reports to peers that are being made.
    pub reports_under_way: Cell<usize>,
    /// Spaces that wait for the view that has all their hosts.
    pub opening: RefCell<BTreeSet<u32>>,
    own: NodeEntry,
    peers: RefCell<BTreeMap<NodeId, Rc<Peer>>>,
    jobs: RefCell<BTreeMap<u32, Rc<Job>>>,
    space_counter: Cell<u32>,
    is_ending: Cell<bool>,
    itself: RefCell<std::rc::Weak<Agent>>,
}

impl Agent {
    /// An agent for the host that `joined` `cluster`, at `own`; nothing runs yet.
    ///
    /// # Errors
    /// When its address is not on this host.
    pub fn new(start: Start, joined: Joined) -> Result<Rc<Self>, Failure> {
        let Start { cluster, node, own, incarnation, make_shard } = start;
        let Joined { me, view, membership } = joined;
        let address = own.control.ip();
        let mtu = match node.mtu {
            Some(mtu) => mtu,
            None => mtu_of(address).map_err(|error| Failure::new(Exit::Address, error))?,
        };
        let fast = fastpath::Host::load(node.fast_path, address);
        let memory = Ledger::open(node.memory);
        let agent = Rc::new(Self {
            me,
            incarnation,
            cluster,
            members: Members::new(me, view),
            membership,
            node,
            mtu,
            counters: Counters::default(),
            past: RefCell::default(),
            make_shard,
            fast,
            memory,
            started: Instant::now(),
            reports_under_way: Cell::default(),
            opening: RefCell::default(),
            own,
            peers: RefCell::default(),
            jobs: RefCell::default(),
            // Random: a restart must not use the numbers of spaces that still live elsewhere.
            space_counter: Cell::new(incarnation as u32),
            is_ending: Cell::new(false),
            itself: RefCell::default(),
        });
        agent.itself.replace(Rc::downgrade(&agent));
        Ok(agent)
    }

    /// This node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// This node's address, for control and data.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.own.control.ip()
    }

    /// Processors that jobs may use here.
    #[must_use]
    pub fn cpus(&self) -> u16 {
        let all = || std::thread::available_parallelism().map_or(1, |count| u16::try_from(count.get()).unwrap_or(u16::MAX));
        self.own.cpus.unwrap_or_else(all)
    }

    /// What sessions with peers rest on.
    #[must_use]
    pub fn secret(&self) -> Secret<'_> {
        Secret { key: &self.cluster.key, fingerprint: self.cluster.fingerprint }
    }

    /// Addresses of the nodes whose agents answer.
    pub fn up_addresses(&self) -> Vec<IpAddr> {
        let is_up = |node: &NodeId| self.peer(*node).is_some_and(|peer| peer.link().is_some());
        let up = self.members.others().filter(is_up).filter_map(|node| self.members.entry(node));
        up.map(|entry| entry.control.ip()).collect()
    }

    /// What is known of another node; none for ourselves and for nodes that take no part.
    #[must_use]
    pub fn peer(&self, node: NodeId) -> Option<Rc<Peer>> {
        self.peers.borrow().get(&node).map(Rc::clone)
    }

    /// Keeps a link to `node` from now on.
    pub fn get_to_know(&self, node: NodeId) {
        let mut peers = self.peers.borrow_mut();
        if let (Entry::Vacant(place), Some(agent)) = (peers.entry(node), self.itself.borrow().upgrade()) {
            let peer = Rc::clone(place.insert(Rc::default()));
            tokio_uring::spawn(peers::keep_dialling(agent, node, peer));
        }
    }

    /// Ends the links to `node`: it is lost to all jobs here.
    pub fn part_from(&self, node: NodeId, reason: &str) {
        if let Some(peer) = self.peers.borrow_mut().remove(&node) {
            peer.end(reason);
        }
    }

    /// Our answer to an opening that is accepted.
    #[must_use]
    pub fn ready(&self) -> Opened {
        Opened::Ready { node: self.me.0, incarnation: self.incarnation }
    }

    /// Random bytes of the kernel.
    ///
    /// # Errors
    /// When /dev/urandom cannot be read.
    pub fn random<const N: usize>(&self) -> anyhow::Result<[u8; N]> {
        random()
    }

    /// A number for a new space: ours in the top bits, then a counter.
    #[must_use]
    pub fn new_space(&self) -> SpaceId {
        loop {
            let counter = self.space_counter.get().wrapping_add(1) & ((1 << SPACE_COUNTER_BITS) - 1);
            self.space_counter.set(counter);
            let space = u32::from(self.me.0) << SPACE_COUNTER_BITS | counter;
            // Ends: far fewer jobs than numbers exist.
            if space != 0 && !self.jobs.borrow().contains_key(&space) {
                return SpaceId(space);
            }
        }
    }

    /// Whether `space` is a number that `node` gives out.
    #[must_use]
    pub fn is_space_of(&self, space: SpaceId, node: NodeId) -> bool {
        space.0 >> SPACE_COUNTER_BITS == u32::from(node.0)
    }

    /// Enters a job into the list.
    ///
    /// # Errors
    /// When there are too many, it is there already, or the agent is ending.
    pub fn admit_job(&self, job: &Rc<Job>) -> Result<(), String> {
        let mut jobs = self.jobs.borrow_mut();
        if self.is_ending.get() {
            return Err(format!("the agent of {} is ending", self.name()));
        }
        if self.members.is_draining(self.me) {
            return Err(format!("host {} is being drained and takes no new jobs", self.name()));
        }
        if jobs.len() >= JOBS_MAX {
            return Err(format!("host {} takes part in {JOBS_MAX} jobs; wait until one ends", self.name()));
        }
        if jobs.contains_key(&job.space.0) {
            return Err(format!("host {} takes part in space {} already", self.name(), job.space));
        }
        jobs.insert(job.space.0, Rc::clone(job));
        if matches!(job.role, Role::Root) {
            let hosts = job.members.iter().map(|node| self.members.name_of(*node)).collect();
            self.membership.note_space(job.space.0, Some(SpaceEntry { program: job.program.clone(), hosts }));
        }
        Ok(())
    }

    /// Takes a job off the list.
    pub fn forget_job(&self, space: SpaceId) {
        let forgotten = self.jobs.borrow_mut().remove(&space.0);
        if forgotten.is_some_and(|job| matches!(job.role, Role::Root)) {
            self.membership.note_space(space.0, None);
        }
    }

    /// All jobs, by space.
    #[must_use]
    pub fn jobs(&self) -> Vec<Rc<Job>> {
        self.jobs.borrow().values().cloned().collect()
    }

    /// Takes what peers send that is no answer.
    #[must_use]
    pub fn peer_handler(&self) -> Handler {
        let agent = self.itself.borrow().clone();
        Rc::new(move |link, message| {
            if let Some(agent) = agent.upgrade() {
                agent.on_peer(link, message);
            }
        })
    }

    fn on_peer(self: &Rc<Self>, link: &Rc<Link>, message: ToPeer) {
        let received_ns = clock::monotonic_ns();
        let (space, tag) = match message {
            ToPeer::AskClock { tag } => {
                return link.send(ToPeer::Clock { tag, received_ns, monotonic_ns: clock::monotonic_ns() });
            }
            ToPeer::AskReport { tag, query } => return observe::answer_peer(self, link, tag, query),
            ToPeer::OpenSpace { tag, space } => return member::open(self, link, tag, space),
            ToPeer::CloseSpace { space, .. } if self.opening.borrow_mut().remove(&space) => return,
            ToPeer::StartMember { space, tag, .. } | ToPeer::AskStatistics { space, tag } => (space, Some(tag)),
            ToPeer::CloseSpace { space, .. } | ToPeer::PauseSpace { space, .. } | ToPeer::MemberLost { space, .. } => {
                (space, None)
            }
            ToPeer::SpaceOpened { .. }
            | ToPeer::MemberReady { .. }
            | ToPeer::Refused { .. }
            | ToPeer::Statistics { .. }
            | ToPeer::Clock { .. }
            | ToPeer::Report { .. }
            | ToPeer::Heartbeat => return self.counters.peer_messages_unexpected.add(),
        };
        let job = self.jobs.borrow().get(&space).cloned();
        let is_entitled = |job: &Rc<Job>| match &job.role {
            _ if job.given_up.borrow().contains(&link.peer) => false,
            // Only the link that opened a part rules it, so that a restarted root cannot touch what it has forgotten.
            Role::Member(opened_by) if Rc::ptr_eq(opened_by, link) => !matches!(message, ToPeer::MemberLost { .. }),
            // Where the root is lost, another host of the job ends it.
            Role::Member(_) => {
                job.outlives_root && job.members.contains(&link.peer) && matches!(message, ToPeer::CloseSpace { .. })
            }
            Role::Root => matches!(message, ToPeer::MemberLost { .. }) && job.members.contains(&link.peer),
        };
        let taken = job.filter(is_entitled).is_some_and(|job| job.notes.try_send(JobNote::Peer(message)).is_ok());
        if !taken {
            self.counters.peer_messages_unexpected.add();
            if let Some(tag) = tag {
                link.send(ToPeer::Refused { tag, reason: format!("there is no space {space} here") });
            }
        }
    }

    /// Opens a connection to the husk of `job` on `node`; gives the bare socket.
    ///
    /// # Errors
    /// Why it is not possible, naming the host.
    pub async fn open_husk_connection(&self, job: &Job, node: NodeId, purpose: Purpose) -> Result<OwnedFd, String> {
        let name = self.members.name_of(node);
        let opened = async {
            if node == self.me || !job.members.contains(&node) {
                return Err("it is not another host of the job".to_owned());
            }
            let opening = Opening::Husk { node: self.me.0, space: job.space.0, purpose };
            let session = peers::dial_for_husk(self, node, &opening).await?;
            session.into_socket().map_err(|error| error.to_string())
        };
        let opened: Result<OwnedFd, String> = opened.await;
        match &opened {
            Ok(_) => self.counters.husk_connections.add(),
            Err(_) => self.counters.husk_connections_refused.add(),
        }
        opened.map_err(|reason| format!("no connection to the husk on {name}: {reason}"))
    }

    /// Hands a connection that `node` opened for a husk to ours, or refuses it.
    pub async fn accept_husk_connection(&self, session: Session, node: NodeId, space: u32, purpose: Purpose) {
        let job = self.jobs.borrow().get(&space).cloned().filter(|job| job.members.contains(&node));
        let Some(job) = job else {
            self.counters.husk_connections_refused.add();
            return peers::refuse(&session, format!("node {node} is not in a space {space} of {}", self.name())).await;
        };
        let mut husk = job.husk.subscribe();
        // The root's own husk attaches last: a member's may already be calling.
        let joined = timeout(HANDSHAKE_DEADLINE / 2, husk.wait_for(Option::is_some)).await;
        let channel = joined.ok().and_then(Result::ok).and_then(|husk| husk.clone());
        let Some(channel) = channel else {
            self.counters.husk_connections_refused.add();
            return peers::refuse(&session, format!("the husk of space {space} on {} has not joined", self.name())).await;
        };
        let handed = async {
            session.send(&self.ready()).await.map_err(|error| error.to_string())?;
            let socket = session.into_socket().map_err(|error| error.to_string())?;
            let packet = ToHusk::Connection { tag: 0, node: node.0, purpose };
            channel.send(&packet, &[socket.as_fd()]).await.map_err(|error| error.to_string())
        };
        match handed.await {
            Ok(()) => self.counters.husk_connections.add(),
            Err(reason) => {
                self.counters.husk_connections_refused.add();
                say(&self.counters, format_args!("space {space}: a connection could not be handed over: {reason}"));
            }
        }
    }

    /// Tells jobs which hosts are of them no more.
    pub fn tell_given_up(&self, given_up: &BTreeMap<u32, Vec<NodeId>>) {
        for job in self.jobs().into_iter().filter(|job| job.outlives_root) {
            let Some(nodes) = given_up.get(&job.space.0).cloned() else { continue };
            // Whichever of two comes first, the longer list says it all.
            tokio_uring::spawn(async move { drop(job.notes.send(JobNote::GivenUp(nodes)).await) });
        }
    }

    /// Ends all jobs; no new ones are admitted.
    pub fn end(&self) {
        self.is_ending.set(true);
        for job in self.jobs() {
            // A full inbox: the job looks at it soon, and its links end when this process does.
            drop(job.notes.try_send(JobNote::AgentEnds));
        }
    }

    /// Ends all jobs, since the others have given this host up; then their links.
    pub fn fence(&self, reason: &str) {
        for job in self.jobs() {
            // A full inbox: the job hears that its links are lost.
            drop(job.notes.try_send(JobNote::Fenced(reason.to_owned())));
        }
        for peer in self.peers.borrow().values() {
            peer.close(reason);
        }
    }

    /// Ends the links to all peers.
    pub fn hang_up(&self) {
        for peer in self.peers.borrow().values() {
            peer.close("this agent is ending");
        }
    }
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.context("cannot read /dev/urandom")?;
    Ok(bytes)
}

/// MTU of the interface that has `address`.
fn mtu_of(address: IpAddr) -> anyhow::Result<u16> {
    let socket = std::net::UdpSocket::bind((address, 0))
        .with_context(|| format!("address {address} is not one of this host's; correct it in cluster.toml or run where it is"))?;
    let interfaces = nix::ifaddrs::getifaddrs().context("cannot list the network interfaces")?;
    let has_address = |interface: &nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address.as_ref();
        let four = storage.and_then(|storage| storage.as_sockaddr_in()).map(|four| IpAddr::V4(four.ip()));
        let six = storage.and_then(|storage| storage.as_sockaddr_in6()).map(|six| IpAddr::V6(six.ip()));
        four.or(six) == Some(address)
    };
    let name = interfaces.into_iter().find(has_address).map(|interface| interface.interface_name);
    // The whole of 127/8 belongs to lo, which lists only 127.0.0.1.
    let name = name.or_else(|| address.is_loopback().then(|| "lo".to_owned()));
    let name = name.ok_or_else(|| anyhow!("no interface has address {address}; set mtu in node.toml"))?;
    let mtu = sys::interface_mtu(socket.as_fd(), &name)
        .with_context(|| format!("cannot ask for the MTU of {name}; set mtu in node.toml"))?;
    Ok(u16::try_from(mtu.min(MTU_MAX)).unwrap_or(u16::MAX))
}
