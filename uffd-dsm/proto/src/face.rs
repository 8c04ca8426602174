//! The words a driver and a [`Node`](crate::Node) exchange: inputs, page operations, frames, events.
//!
//! Owns the types of the face and nothing else. Must not know how a decision is reached.

use crate::limits::PAGES_PER_OP_MAX;
use core::ops::Add;
use dsm_wire::{Epoch, ExtentNumber, Message, NodeId, PageNumber, PageRange, Rights, SpaceId};

/// A moment of the driver's monotonic clock, or a length of time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// `count` microseconds.
    #[must_use]
    pub const fn from_micros(count: u64) -> Self {
        Self(count * 1_000)
    }

    /// `count` milliseconds.
    #[must_use]
    pub const fn from_millis(count: u64) -> Self {
        Self(count * 1_000_000)
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Nanos {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// What a [`Node`](crate::Node) must know to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This host.
    pub me: NodeId,
    /// The space.
    pub space: SpaceId,
    /// Every member, `me` included, in the order every member knows them. Anchors are named by this list for the space's whole life.
    pub members: alloc::vec::Vec<NodeId>,
    /// Membership epoch the list belongs to.
    pub epoch: Epoch,
    /// From this extent on the first member is home of every extent, whoever touches it first. Only these can have sourced pages.
    pub rooted_from: ExtentNumber,
}

/// What a thread wanted when it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// To read an absent page.
    Read,
    /// To write an absent or write-protected page.
    Write,
}

impl FaultKind {
    /// Rights that let the thread go on.
    #[must_use]
    pub const fn rights(self) -> Rights {
        match self {
            FaultKind::Read => Rights::Read,
            FaultKind::Write => Rights::Write,
        }
    }
}

/// Names a page buffer of the driver. A node never looks into one; it passes the name on or gives it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// The bytes of one page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageContent {
    /// 4096 zero bytes; no buffer.
    #[default]
    Zero,
    /// In this buffer of the driver.
    Buffer(BufferId),
}

/// The bytes of up to 16 pages, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    len: u8,
    items: [PageContent; PAGES_PER_OP_MAX as usize],
}

impl Contents {
    /// No page.
    pub const EMPTY: Self = Self { len: 0, items: [PageContent::Zero; PAGES_PER_OP_MAX as usize] };

    /// One page.
    #[must_use]
    pub const fn one(content: PageContent) -> Self {
        let mut contents = Self::EMPTY;
        contents.len = 1;
        contents.items[0] = content;
        contents
    }

    /// `count` zero pages; at most 16.
    #[must_use]
    pub fn zero(count: u16) -> Self {
        let mut contents = Self::EMPTY;
        contents.len = count.min(PAGES_PER_OP_MAX) as u8;
        contents
    }

    /// Appends a page. Returns false, and changes nothing, when 16 are there already.
    pub fn push(&mut self, content: PageContent) -> bool {
        let Some(slot) = self.items.get_mut(usize::from(self.len)) else { return false };
        *slot = content;
        self.len += 1;
        true
    }

    /// The pages in order.
    #[must_use]
    pub fn as_slice(&self) -> &[PageContent] {
        &self.items[..usize::from(self.len)]
    }

    /// Number of pages.
    #[must_use]
    pub const fn len(&self) -> u16 {
        self.len as u16
    }

    /// Whether there is no page.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buffers among the pages.
    pub fn buffers(&self) -> impl Iterator<Item = BufferId> + '_ {
        self.as_slice().iter().filter_map(|content| match content {
            PageContent::Zero => None,
            PageContent::Buffer(buffer) => Some(*buffer),
        })
    }
}

/// A message that came in. The driver has checked tags and addressing; the node checks epoch, sender and sense.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Node that sent it.
    pub from: NodeId,
    /// Epoch in its header.
    pub epoch: Epoch,
    /// The message.
    pub message: Message,
    /// Its payload: one buffer a page for a Grant with bytes, else empty. The node owns the buffers from here on.
    pub contents: Contents,
}

/// Names one page operation; comes back in `handle_page_done`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// What the pager is to do. Nothing is acknowledged before it is done; the operations of one page come one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOp {
    /// Map absent zero pages, writable, and wake who waits there. Up to 512 pages of one extent.
    InstallZero {
        /// Pages; all absent.
        range: PageRange,
    },
    /// Map absent pages with these contents and wake who waits there. Buffers pass to the driver.
    Install {
        /// First page.
        first: PageNumber,
        /// Contents of the pages, 1 to 16.
        contents: Contents,
        /// Whether to map them writable.
        writable: bool,
    },
    /// Make a mapped read-only page writable and wake who waits there.
    Unprotect {
        /// The page.
        page: PageNumber,
    },
    /// Make mapped pages (up to 16) read-only, then read them: result is their contents.
    ProtectRead {
        /// Pages.
        range: PageRange,
    },
    /// Read pages (up to 16) that are read-only already: result is their contents.
    Read {
        /// Pages.
        range: PageRange,
    },
    /// Protect, read and drop a mapped page: result is its content. Wakes nobody.
    Take {
        /// The page.
        page: PageNumber,
    },
    /// Drop pages, mapped, absent or poisoned. Wakes nobody.
    Drop {
        /// Pages; any number within one extent.
        range: PageRange,
    },
    /// The first page is here, and a fault says it cannot be seen: map it again with these rights if it is not mapped, and wake who
    /// waits there. Those after it, if any, are here too, and were never read: read them from their source with it.
    Refresh {
        /// Pages of one extent; more than one only if the first was never read, too.
        range: PageRange,
        /// Rights they have.
        writable: bool,
    },
    /// The page's content is lost: make every access to it fail, and wake who waits there.
    Poison {
        /// The page.
        page: PageNumber,
    },
}

impl PageOp {
    /// The pages this operation touches.
    #[must_use]
    pub const fn range(&self) -> PageRange {
        match *self {
            PageOp::InstallZero { range }
            | PageOp::ProtectRead { range }
            | PageOp::Read { range }
            | PageOp::Drop { range }
            | PageOp::Refresh { range, .. } => range,
            PageOp::Install { first, contents, .. } => PageRange::new(first, contents.len() as u64),
            PageOp::Unprotect { page } | PageOp::Take { page } | PageOp::Poison { page } => PageRange::new(page, 1),
        }
    }
}

/// What became of a page operation. The pager retries what can be retried itself; an operation that cannot be done ends the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// Done; nothing to hand over.
    Done,
    /// Done; contents of the pages (ProtectRead, Read, Take). All-zero pages come as [`PageContent::Zero`]. Buffers pass to the node.
    Contents(Contents),
}

/// How fast a frame must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A thread waits for it: at most one page.
    Urgent,
    /// More than one page, or nobody waits.
    Bulk,
}

/// A message to send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit {
    /// Receiver; never this node.
    pub to: NodeId,
    /// The message.
    pub message: Message,
    /// Payload: one buffer a page for a Grant with bytes, else empty.
    pub contents: Contents,
    /// Whether the node keeps the buffers (to send again; an [`Event::FreeBuffer`] follows later). If not, the driver frees them when they are sent.
    pub keeps_buffers: bool,
    /// Queue.
    pub class: Class,
}

/// When the stages of a served fault were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultStages {
    /// `handle_fault` was called.
    pub raised_at: Nanos,
    /// First request left; `None` for a fault served on this host alone.
    pub request_at: Option<Nanos>,
    /// The grant that served it came in.
    pub grant_at: Option<Nanos>,
    /// The page operation that wakes the thread was reported done.
    pub installed_at: Nanos,
    /// Requests sent again.
    pub retries: u32,
}

/// How much room there is on this host, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// May still come.
    pub free: u64,
    /// May be taken on from hosts that have no room.
    pub spare: u64,
    /// Are more than are kept while others have none; 0 if `spare` is not.
    pub excess: u64,
    /// The excess is to go.
    pub is_high: bool,
}

impl Default for Memory {
    /// As much as anybody could want.
    fn default() -> Self {
        Self { free: u64::MAX, spare: u64::MAX, excess: 0, is_high: false }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A fault was served; its threads run.
    FaultResolved {
        /// Page.
        page: PageNumber,
        /// What was wanted.
        kind: FaultKind,
        /// When what happened.
        stages: FaultStages,
    },
    /// Every page of a discard reads zero everywhere.
    DiscardDone {
        /// Token of `handle_discard`.
        token: u64,
    },
    /// The page is here and stays as it is, until [`Node::handle_unpin`](crate::Node::handle_unpin).
    Pinned {
        /// Page.
        page: PageNumber,
    },
    /// The page is lost with its host; it is poisoned here now.
    PageLost {
        /// Page.
        page: PageNumber,
    },
    /// Threads here wait for room, no page has left this host for a while, and no other host takes one.
    MemoryExhausted,
    /// The driver may reuse this buffer.
    FreeBuffer(BufferId),
    /// This node keeps directory entries of the extent from now on; they may move to memory that the kernel programs share, by
    /// [`Node::share_directory`](crate::Node::share_directory).
    DirectoryOpened(ExtentNumber),
    /// It keeps none any more: shared memory it had for them is free.
    DirectoryClosed(ExtentNumber),
}
