//! The endpoint: the one type the shard talks to.
//!
//! Owns the parts and the order of work in a batch. Must not know the protocol. Sending is in `transmit`, checking what comes in
//! `receive`, sessions and timers in `membership`.

use crate::counters::Counters;
use crate::faults::Dice;
use crate::framing::{GrantWriter, Layout};
use crate::handshake::{Identity, Offer};
use crate::limits::{
    BULK_BYTES_PER_LOOK, CREDIT_BUFFER_SHARE, CREDIT_WINDOW_MAX, CREDIT_WINDOW_MIN, RECEIVE_BYTES, SMALL_SLOT_BYTES,
    SOCKET_BUFFER_BYTES, WATCHES_MAX,
};
use crate::peer::Peer;
use crate::reassembly::Reassembly;
use crate::receive::{Arrival, Delivery, Lent};
use crate::slots::Slots;
use crate::sys::{Completion, Patience, Ring, RingConfig, SocketOptions, bind, random, set_joined, set_segment};
use crate::tags::{SipKey, greeting_key, payload_tag};
use crate::transmit::Delayed;
use crate::watches::Watches;
use crate::{EndpointConfig, Nanos, TransportError};
use dsm_fast::Addressing;
use dsm_wire::{Epoch, Era, Message, NodeId, PAGE_BYTES, PAGES_PER_MESSAGE_MAX, PageNumber};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

const PRIORITY_URGENT: i32 = 6;
const PRIORITY_BULK: i32 = 0;

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
    /// A session with a peer begins: what its kernel programs, and ours, need to know.
    Session {
        /// The peer.
        node: NodeId,
        /// Key of header tags, both ways.
        key: SipKey,
        /// Its urgent socket.
        urgent: SocketAddr,
    },
    /// A peer's wish for a new session was answered; the first frame under `key` begins it.
    Answered {
        /// The peer.
        node: NodeId,
        /// Key of header tags, both ways.
        key: SipKey,
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

/// Where a node stands.
#[derive(Default)]
pub(crate) enum Place {
    /// Never added, or removed.
    #[default]
    Unknown,
    /// Lost, and not added again.
    Lost,
    /// A peer.
    Known(Box<Peer>),
}

/// Something to tell besides frames and ready descriptors.
pub(crate) enum Notice {
    Session(NodeId, SipKey, SocketAddr),
    Answered(NodeId, SipKey),
    Up(NodeId),
    Lost(NodeId, LostReason),
}

/// Two sockets, one ring, all peers of one space. May be made on one thread and moved to another before the first
/// [`Endpoint::wait`]; from then on it stays there.
pub struct Endpoint {
    pub(crate) ring: Ring,
    pub(crate) slots: Slots,
    pub(crate) layout: Layout,
    pub(crate) writer: GrantWriter,
    pub(crate) is_segmented: bool,
    pub(crate) dice: Dice,
    pub(crate) delayed: Vec<Delayed>,
    pub(crate) identity: Identity,
    pub(crate) greeting_key: SipKey,
    pub(crate) epoch: Epoch,
    pub(crate) peers: Vec<Place>,
    pub(crate) peer_count: usize,
    pub(crate) pending: Vec<NodeId>,
    pub(crate) timer_at: Nanos,
    pub(crate) notices: VecDeque<Notice>,
    pub(crate) arrived: [VecDeque<Arrival>; 2],
    pub(crate) bulk_left: usize,
    pub(crate) lent: Lent,
    pub(crate) stashed: Option<Delivery>,
    pub(crate) reassembly: Reassembly,
    pub(crate) watches: Watches,
    pub(crate) counters: Counters,
    listening: (SocketAddr, SocketAddr),
}

impl Endpoint {
    /// Makes the sockets and the ring, and listens.
    ///
    /// # Errors
    /// [`TransportError`] when a socket, the ring or randomness is refused, or the MTU is too small.
    pub fn bind(config: EndpointConfig) -> Result<Endpoint, TransportError> {
        let layout = Layout::new(config.mtu, config.address)?;
        let dice = Dice::new(config.faults);
        let address = SocketAddr::new(config.address, 0);
        let refused = |source| TransportError::Socket { address, source };
        let open = |priority| bind(address, &SocketOptions { buffer_bytes: SOCKET_BUFFER_BYTES, priority }).map_err(refused);
        let (urgent, urgent_bytes) = open(PRIORITY_URGENT)?;
        let (bulk, bulk_bytes) = open(PRIORITY_BULK)?;
        // Where the kernel cannot join, each datagram comes alone.
        for socket in [&urgent, &bulk] {
            set_joined(socket).ok();
        }
        let listening = (urgent.local_addr().map_err(refused)?, bulk.local_addr().map_err(refused)?);
        // Where the kernel cannot cut, each datagram is its own submission. Faults fall on single datagrams.
        let segment = |socket| set_segment(socket, layout.datagram_bytes()).is_ok();
        let is_segmented = !dice.is_loaded() && segment(&urgent) && segment(&bulk);
        let buffers_small = [urgent_bytes, bulk_bytes].iter().filter(|bytes| **bytes < SOCKET_BUFFER_BYTES).count() as u64;
        let page_bytes = layout.train_bytes(1).max(SMALL_SLOT_BYTES);
        let sizes = Slots::sizes(page_bytes, layout.train_bytes(usize::from(PAGES_PER_MESSAGE_MAX)));
        let ring = Ring::new(RingConfig { sockets: [urgent, bulk], receive_bytes: RECEIVE_BYTES, slot_bytes: &sizes })
            .map_err(TransportError::Ring)?;
        let publisher = SipKey::from_bytes(random().map_err(TransportError::Random)?);
        let offer = Offer {
            incarnation: u64::from_le_bytes(random().map_err(TransportError::Random)?),
            publisher,
            windows: [urgent_bytes, bulk_bytes].map(credit_window),
        };
        Ok(Endpoint {
            ring,
            slots: Slots::new(),
            layout,
            writer: GrantWriter { publisher, space: config.space },
            is_segmented,
            dice,
            delayed: Vec::new(),
            greeting_key: greeting_key(&config.cluster_key),
            identity: Identity {
                me: config.me,
                space: config.space,
                cluster: config.cluster,
                cluster_key: config.cluster_key,
                offer,
            },
            epoch: config.epoch,
            peers: Vec::new(),
            peer_count: 0,
            pending: Vec::new(),
            timer_at: Nanos(u64::MAX),
            notices: VecDeque::new(),
            arrived: Default::default(),
            bulk_left: BULK_BYTES_PER_LOOK,
            lent: Lent::Nothing,
            stashed: None,
            reassembly: Reassembly::new(),
            watches: Watches::default(),
            counters: Counters { buffers_small, ..Counters::default() },
            listening,
        })
    }

    /// Where the urgent and the bulk socket listen.
    #[must_use]
    pub fn listening(&self) -> (SocketAddr, SocketAddr) {
        self.listening
    }

    /// Reports [`Event::Ready`] with `token` each time `fd` becomes readable. Edge: drain it until it would block. The endpoint
    /// keeps a duplicate of the descriptor until [`Endpoint::unwatch`].
    ///
    /// # Errors
    /// [`TransportError::Watch`] or `WatchToken`.
    pub fn watch(&mut self, fd: BorrowedFd<'_>, token: u32) -> Result<(), TransportError> {
        let refused = |source| TransportError::Watch { token, source };
        let own = fd.try_clone_to_owned().map_err(refused)?;
        let (name, raw) = self.watches.add(own, token).ok_or(TransportError::WatchToken { token, max: WATCHES_MAX })?;
        self.ring.push_poll(raw, name).map_err(refused)
    }

    /// Stops watching; no event with `token` follows. The kernel lets go of the descriptor with the next [`Endpoint::wait`].
    pub fn unwatch(&mut self, token: u32) {
        if let Some(name) = self.watches.remove(token)
            && self.ring.push_poll_cancel(name).is_err()
        {
            // The watch goes on in the kernel; its completions name a watch that is no more and are ignored.
            self.counters.send_failed += 1;
        }
    }

    /// What every frame for this endpoint says.
    #[must_use]
    pub fn addressing(&self) -> Addressing {
        let Identity { me, space, cluster, .. } = self.identity;
        Addressing { cluster, epoch: self.epoch.0, space: space.0, me: me.0 }
    }

    /// Whether a header and a page fit one datagram.
    #[must_use]
    pub fn pages_fit(&self) -> bool {
        matches!(self.layout, Layout::Pages(_))
    }

    /// The payload tag of a page that this endpoint publishes.
    #[must_use]
    pub fn page_tag(&self, page: PageNumber, era: Era, bytes: &[u8; PAGE_BYTES]) -> u64 {
        payload_tag(self.writer.publisher, self.identity.space, page, era, bytes)
    }

    /// Stamps frames with `epoch` from now on, and drops coherence frames of any other.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Sends everything that may go and waits for something to happen, until `deadline` at the latest (`None`: as long as it
    /// takes; the endpoint's own timers bound it); may come back before, with nothing. One system call. Does not wait while events are pending.
    ///
    /// # Errors
    /// [`TransportError::Wait`] when the ring is broken.
    pub fn wait(&mut self, now: Nanos, deadline: Option<Nanos>) -> Result<(), TransportError> {
        self.give_back();
        self.handle_timers(now)?;
        let has_more = self.flush(now).map_err(TransportError::Wait)?;
        let patience = if has_more || self.has_events() {
            Patience::None
        } else {
            let delayed = self.delayed.iter().map(|delayed| delayed.due).min();
            let due = [deadline, delayed, Some(self.timer_at)].into_iter().flatten().min();
            match due {
                Some(at) if at <= now => Patience::None,
                Some(at) if at < Nanos(u64::MAX) => Patience::Until { now, at },
                _ => Patience::Forever,
            }
        };
        self.ring.enter(patience).map_err(TransportError::Wait)?;
        self.collect().map_err(TransportError::Wait)?;
        self.bulk_left = BULK_BYTES_PER_LOOK;
        Ok(())
    }

    /// The next thing that happened; urgent frames before bulk. `None`: call [`Endpoint::wait`].
    pub fn next_event(&mut self, now: Nanos) -> Option<Event<'_>> {
        if let Some(notice) = self.notices.pop_front() {
            return Some(match notice {
                Notice::Session(node, key, urgent) => Event::Session { node, key, urgent },
                Notice::Answered(node, key) => Event::Answered { node, key },
                Notice::Up(node) => Event::PeerUp { node },
                Notice::Lost(node, reason) => Event::PeerLost { node, reason },
            });
        }
        let delivery = match self.stashed.take() {
            Some(delivery) => delivery,
            None => {
                self.give_back();
                if let Some(token) = self.watches.pop_ready() {
                    return Some(Event::Ready { token });
                }
                let delivery = self.receive(now);
                if !self.notices.is_empty() {
                    self.stashed = delivery;
                    return self.next_event(now);
                }
                delivery?
            }
        };
        Some(Event::Frame { from: delivery.from, message: delivery.message, pages: self.lent_pages(&delivery) })
    }

    /// Counts so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        counters.receive_rearmed = self.ring.rearmed();
        counters.fragments_expired = self.reassembly.expired();
        counters
    }

    fn has_events(&self) -> bool {
        let arrived = self.arrived.iter().any(|arrived| !arrived.is_empty());
        arrived || self.stashed.is_some() || !self.notices.is_empty() || self.watches.is_ready()
    }

    /// Takes completions off the ring.
    fn collect(&mut self) -> std::io::Result<()> {
        let Endpoint { ring, slots, arrived, watches, counters, is_segmented, .. } = self;
        let mut ended = Vec::new();
        let mut cannot_cut = false;
        ring.drain(|completion| match completion {
            Completion::Received { class, buffer, length } => {
                arrived[class as usize].push_back(Arrival { buffer, start: 0, end: length, is_last: true });
            }
            Completion::Sent { slot, error } => {
                match error {
                    None => {}
                    Some(libc::EAGAIN | libc::ENOBUFS) => counters.send_blocked += 1,
                    Some(error) => {
                        counters.send_failed += 1;
                        cannot_cut |= matches!(error, libc::EIO | libc::EINVAL | libc::EOPNOTSUPP);
                    }
                }
                slots.release(slot);
            }
            Completion::Polled { name, armed, failed } => {
                watches.on_ready(name);
                if !armed && !failed {
                    ended.extend(watches.on_ended(name).map(|fd| (fd, name)));
                }
            }
        });
        if cannot_cut && *is_segmented {
            // The device cannot cut: from now on each datagram is its own submission. What was lost is asked for again.
            *is_segmented = false;
            set_segment(ring.socket(Class::Urgent), 0)?;
            set_segment(ring.socket(Class::Bulk), 0)?;
        }
        ended.into_iter().try_for_each(|(fd, name)| self.ring.push_poll(fd, name))
    }
}

/// Credits a peer gets for a socket with a buffer of `bytes` bytes.
fn credit_window(bytes: usize) -> u32 {
    u32::try_from(bytes / CREDIT_BUFFER_SHARE).unwrap_or(u32::MAX).clamp(CREDIT_WINDOW_MIN, CREDIT_WINDOW_MAX)
}
