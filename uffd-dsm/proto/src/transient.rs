//! What a node keeps of a page only while something is in flight for it.
//!
//! Owns the records of the three roles a node plays for a page: requester, holder, home. Must not decide anything.
//!
//! ```text
//!   requester   Want: parked --home known--> asked --grant--> operation --done--> gone
//!   holder      Held: grant sent --Done--> gone            (the bytes stay here until then)
//!   home        Deal: Acks --last ack--> Granted --Done--> gone
//!                     Acks --last ack--> gone              (discard)
//! ```

use crate::face::{Contents, FaultKind, Frame, Nanos};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use dsm_wire::{Era, GrantContent, Line, NodeId, RequestId, Rights};

/// A fault on its way through this node.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    /// Where in the page.
    pub line: Line,
    pub raised_at: Nanos,
    pub request_at: Option<Nanos>,
    pub grant_at: Option<Nanos>,
    /// The order to drop the copy came before the copy.
    pub overtaken_at: Option<Nanos>,
    pub retries: u32,
    /// Fetched ahead of use: no thread waits.
    pub is_ahead: bool,
}

impl Fault {
    /// One that is raised now.
    pub const fn new(kind: FaultKind, line: Line, now: Nanos) -> Self {
        Self { kind, line, raised_at: now, request_at: None, grant_at: None, overtaken_at: None, retries: 0, is_ahead: false }
    }

    /// One that no thread has raised: the page is fetched ahead of use.
    pub fn ahead(kind: FaultKind, now: Nanos) -> Self {
        Self { is_ahead: true, ..Self::new(kind, Line::default(), now) }
    }
}

/// Requester: rights this host wants.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub fault: Fault,
    /// Pages asked for at once, from this one.
    pub count: u16,
    /// The request on its way; `None` while the page is parked behind an operation or a search for its home.
    pub ask: Option<Ask>,
    /// Another thread stopped while the page's operation was in flight.
    pub is_raised_again: bool,
}

/// Requester: a request on its way.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub request: RequestId,
    pub rights: Rights,
    pub to: NodeId,
    pub sent_at: Nanos,
    pub deadline: Nanos,
    pub tries: u32,
}

/// Holder: an exclusive grant that is not known to have arrived.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub request: RequestId,
    pub to: NodeId,
    pub era: Era,
    pub content: GrantContent,
    pub contents: Contents,
    pub deadline: Nanos,
    pub tries: u32,
}

/// Home: the transaction under way.
#[derive(Debug)]
pub struct Deal {
    pub request: RequestId,
    /// Where in the page the requester's thread stopped.
    pub line: Line,
    /// Era of Forward, Invalidate and grant.
    pub era: Era,
    pub phase: Phase,
    /// When to send again; `None` if somebody else sends again.
    pub deadline: Option<Nanos>,
    pub tries: u32,
}

/// Home: what a transaction waits for.
#[derive(Debug)]
pub enum Phase {
    /// Sharers drop their copies.
    Acks { pending: Pending, then: Then },
    /// The requester installs the exclusive grant of `provider`.
    Granted { provider: NodeId },
}

/// Home: who has not acknowledged yet.
#[derive(Debug)]
pub enum Pending {
    /// These.
    Listed(Vec<NodeId>),
    /// Those in the page's record of [`Acks`](dsm_fast::Acks), which kernel programs count down, too.
    Counted,
}

/// Home: what follows the last acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The requester's own copy becomes writable.
    Upgrade,
    /// The provider hands its copy over.
    Forward(NodeId),
    /// The page is fresh again, for this discard.
    Forget,
}

/// Home: who waits for the transaction under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    Request(Asked),
    /// A discard at this home.
    Discard(RequestId),
}

/// Home: what a Request said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub request: RequestId,
    pub rights: Rights,
    pub count: u16,
    pub copy: Option<Era>,
    pub line: Line,
}

/// All of a page that is in flight.
#[derive(Debug, Default)]
pub struct Transient {
    pub want: Option<Want>,
    pub held: Option<Held>,
    pub deal: Option<Deal>,
    pub waiters: VecDeque<Waiter>,
    /// Frames that wait for the page's operation.
    pub inbox: VecDeque<Frame>,
    /// Frames in the inbox may go on at this time, though no operation is in flight.
    pub hold_until: Option<Nanos>,
    /// When to look again for the transaction of a kernel program that keeps the page busy.
    pub look_at: Option<Nanos>,
    /// The deadline the timers know.
    pub armed: Option<Nanos>,
}

impl Transient {
    pub fn is_idle(&self) -> bool {
        self.want.is_none() && self.held.is_none() && self.deal.is_none() && self.waiters.is_empty() && self.inbox.is_empty()
    }

    pub fn deadline(&self) -> Option<Nanos> {
        let want = self.want.and_then(|want| want.ask).map(|ask| ask.deadline);
        let held = self.held.map(|held| held.deadline);
        let deal = self.deal.as_ref().and_then(|deal| deal.deadline);
        [want, held, deal, self.hold_until, self.look_at].into_iter().flatten().min()
    }
}
