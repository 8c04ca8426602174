//! Page operations in flight, and what follows each.
//!
//! Owns the table of operations not yet reported done. Must not carry them out.

use crate::face::OpId;
use crate::transient::Fault;
use alloc::vec::Vec;
use dsm_wire::{Era, NodeId, PageNumber, PageRange, RequestId};

/// What follows when an operation is done.
#[derive(Clone, Copy, Debug)]
pub enum Follow {
    /// An extent's pages were first touched; this fault made it so.
    FirstTouch { page: PageNumber, fault: Fault },
    /// A fault for a page that was there.
    Refresh,
    /// An exclusive grant is installed: Done to the grantor and the home.
    AcceptWrite { request: RequestId, era: Era, grantor: NodeId },
    /// Read grants are installed.
    AcceptRead { era: Era },
    /// A copy is read for a forwarded reader.
    ServeRead { request: RequestId, era: Era },
    /// Home reads its own copies for a reader.
    ServeBatch { request: RequestId, era: Era },
    /// The page is handed over.
    Take { request: RequestId, era: Era, home: NodeId },
    /// The copy is dropped on order.
    Invalidate { request: RequestId, era: Era, home: NodeId },
    /// An extent's pages are dropped for a discard.
    Forget { job: RequestId },
    /// Pages that home alone has are dropped for a discard.
    ForgetOwn { job: RequestId },
    /// A clean copy is dropped for want of room.
    Evict,
    /// A page is made read-only for a pin.
    Pin,
    /// It is writable again.
    Unpin,
    /// Pages of a lost extent are dropped.
    DropLost,
    /// The page is poisoned.
    Poison,
}

/// An operation in flight.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub id: OpId,
    pub range: PageRange,
    pub follow: Follow,
}

/// Operations in flight; a handful, since a driver carries them out at once.
#[derive(Debug, Default)]
pub struct Operations {
    in_flight: Vec<Operation>,
    last: u64,
}

impl Operations {
    pub fn start(&mut self, range: PageRange, follow: Follow) -> OpId {
        assert!(self.overlapping(range).is_none(), "the operations of a page come one at a time");
        self.last += 1;
        let id = OpId(self.last);
        self.in_flight.push(Operation { id, range, follow });
        id
    }

    pub fn finish(&mut self, id: OpId) -> Operation {
        let index = self.in_flight.iter().position(|op| op.id == id).expect("the driver reports each operation once");
        self.in_flight.swap_remove(index)
    }

    pub fn overlapping(&self, range: PageRange) -> Option<&Operation> {
        self.in_flight.iter().find(|op| op.range.first < range.end() && range.first < op.range.end())
    }

    pub fn is_on(&self, page: PageNumber) -> bool {
        self.overlapping(PageRange::new(page, 1)).is_some()
    }

    pub fn len(&self) -> usize {
        self.in_flight.len()
    }
}
