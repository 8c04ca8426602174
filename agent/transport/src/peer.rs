//! One peer: its addresses, its handshake, its session, and what waits to be sent to it.
//!
//! Owns the state. Must not know sockets, nor who decides what happens to it.

use crate::credit::{CreditReceiver, CreditSender};
use crate::handshake::{Agreement, Handshake};
use crate::limits::{
    BULK_QUEUE_MAX, CONTROL_QUEUE_MAX, GREETINGS_MAX, HANDSHAKE_GIVE_UP, LEASE, PING_INTERVAL, URGENT_QUEUE_MAX,
};
use crate::replay::ReplayWindow;
use crate::slots::SlotId;
use crate::{Class, LostReason, Nanos};
use dsm_fast::layout::{SEQUENCE_BULK, SEQUENCE_KERNEL};
use dsm_wire::NodeId;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Who counts a sequence: a frame replayed to another socket, or in another's name, stays a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// The peer's urgent socket.
    Urgent,
    /// The peer's bulk socket.
    Bulk,
    /// The programs in the peer's kernel, which answer from its urgent socket's port.
    Kernel,
}

impl Counter {
    /// The socket its frames come to.
    pub(crate) const fn class(self) -> Class {
        match self {
            Counter::Urgent | Counter::Kernel => Class::Urgent,
            Counter::Bulk => Class::Bulk,
        }
    }
}

/// The counter and the number in a sequence field.
pub(crate) const fn split_sequence(sequence: u64) -> (Counter, u64) {
    let counter = match (sequence & SEQUENCE_BULK != 0, sequence & SEQUENCE_KERNEL != 0) {
        (true, _) => Counter::Bulk,
        (false, true) => Counter::Kernel,
        (false, false) => Counter::Urgent,
    };
    (counter, sequence & !(SEQUENCE_BULK | SEQUENCE_KERNEL))
}

/// What waits together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Handshake messages: need no session.
    Greeting,
    /// Frames without pages: need no credits.
    Control,
    /// Pages on the urgent socket.
    Urgent,
    /// Pages on the bulk socket.
    Bulk,
}

impl Lane {
    /// Every lane, first to be emptied first.
    pub(crate) const ALL: [Lane; 4] = [Lane::Greeting, Lane::Control, Lane::Urgent, Lane::Bulk];

    const fn frames_max(self) -> usize {
        match self {
            Lane::Greeting => GREETINGS_MAX,
            Lane::Control => CONTROL_QUEUE_MAX,
            Lane::Urgent => URGENT_QUEUE_MAX,
            Lane::Bulk => BULK_QUEUE_MAX,
        }
    }
}

/// What two nodes share after a handshake.
pub(crate) struct Session {
    pub(crate) agreement: Agreement,
    sequences: [u64; 2],
    pub(crate) windows: [ReplayWindow; 3],
    pub(crate) credits: [CreditSender; 2],
    pub(crate) consumed: [CreditReceiver; 2],
}

impl Session {
    /// A session under `agreement`; `our_windows` are the credits we gave.
    pub(crate) fn new(agreement: Agreement, our_windows: [u32; 2]) -> Session {
        Session {
            agreement,
            sequences: [0; 2],
            windows: std::array::from_fn(|_| ReplayWindow::new()),
            credits: agreement.peer.windows.map(CreditSender::new),
            consumed: our_windows.map(CreditReceiver::new),
        }
    }

    /// The sequence of the next datagram of `class`, as it stands in the header.
    pub(crate) fn next_sequence(&mut self, class: Class) -> u64 {
        let sequence = &mut self.sequences[class as usize];
        *sequence += 1;
        match class {
            Class::Urgent => *sequence,
            Class::Bulk => *sequence | SEQUENCE_BULK,
        }
    }
}

/// See the file's head.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) addresses: [SocketAddr; 2],
    pub(crate) handshake: Handshake,
    pub(crate) session: Option<Session>,
    pub(crate) is_pending: bool,
    lanes: [VecDeque<SlotId>; 4],
    since: Nanos,
    heard: Nanos,
    ping_at: Nanos,
}

impl Peer {
    /// A peer to shake hands with.
    pub(crate) fn new(now: Nanos, me: NodeId, node: NodeId, addresses: [SocketAddr; 2]) -> Peer {
        Peer {
            node,
            addresses,
            handshake: Handshake::new(now, me, node),
            session: None,
            is_pending: false,
            lanes: Default::default(),
            since: now,
            heard: now,
            ping_at: now,
        }
    }

    /// Queues `slot`; ask [`Peer::is_full`] first.
    pub(crate) fn push(&mut self, lane: Lane, slot: SlotId) {
        self.lanes[lane as usize].push_back(slot);
    }

    /// Whether `lane` takes no more.
    pub(crate) fn is_full(&self, lane: Lane) -> bool {
        self.lanes[lane as usize].len() >= lane.frames_max()
    }

    /// The next slot of `lane`.
    pub(crate) fn front(&self, lane: Lane) -> Option<SlotId> {
        self.lanes[lane as usize].front().copied()
    }

    /// Takes the next slot of `lane`.
    pub(crate) fn pop(&mut self, lane: Lane) -> Option<SlotId> {
        self.lanes[lane as usize].pop_front()
    }

    /// Takes everything that waits.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = SlotId> {
        self.lanes.iter_mut().flat_map(|lane| lane.drain(..))
    }

    /// Notes that an authenticated, fresh frame came.
    pub(crate) fn on_heard(&mut self, now: Nanos) {
        self.heard = now;
        self.handshake.on_confirmed();
    }

    /// Begins a session.
    pub(crate) fn on_session(&mut self, now: Nanos, session: Session) {
        self.session = Some(session);
        self.heard = now;
        self.ping_at = now.after(PING_INTERVAL);
    }

    /// Whether the peer is lost now.
    pub(crate) fn is_lost(&self, now: Nanos) -> Option<LostReason> {
        if self.session.is_some() {
            (self.heard.after(LEASE) <= now).then_some(LostReason::Lease)
        } else {
            (self.since.after(HANDSHAKE_GIVE_UP) <= now).then_some(LostReason::NoHandshake)
        }
    }

    /// Whether a ping is due; the next one follows after another interval.
    pub(crate) fn is_ping_due(&mut self, now: Nanos) -> bool {
        let due = self.session.is_some() && self.ping_at <= now;
        if due {
            self.ping_at = now.after(PING_INTERVAL);
        }
        due
    }

    /// When the peer wants to be looked at again.
    pub(crate) fn poll_timeout(&self) -> Nanos {
        let handshake = self.handshake.poll_timeout().unwrap_or(Nanos(u64::MAX));
        let own = match &self.session {
            Some(session) => {
                let probes = session.credits.iter().filter_map(CreditSender::probe_at).min();
                self.ping_at.min(self.heard.after(LEASE)).min(probes.unwrap_or(Nanos(u64::MAX)))
            }
            None => self.since.after(HANDSHAKE_GIVE_UP),
        };
        handshake.min(own)
    }
}
