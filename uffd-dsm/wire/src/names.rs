//! The names everything else speaks in: nodes, spaces, pages, extents, eras, requests.
//!
//! Owns page arithmetic. Must not know what a page contains or who holds it.

use core::fmt;

/// log2 of [`PAGE_BYTES`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes of one page, the unit of coherence.
pub const PAGE_BYTES: usize = 1 << PAGE_SHIFT;
/// Pages of one extent (2 MiB), the unit in which homes and first touch are given out.
pub const PAGES_PER_EXTENT: u64 = 512;

const REQUEST_COUNTER_BITS: u32 = 48;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

name!(/// A host: its place in the cluster's list of nodes.
    NodeId(u16));
name!(/// One unified address space (one program, guest or DISA machine).
    SpaceId(u32));
name!(/// Membership epoch: a frame of another epoch is dropped.
    Epoch(u32));
name!(/// Version of a page: raised by its home at every write grant and discard.
    Era(u32));

/// A cache line of a page, 0 to 63: 64 bytes that threads share truly, while the rest of the page is shared only because it is one
/// page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(pub u8);

impl Line {
    /// Lines of a page.
    pub const COUNT: u8 = (PAGE_BYTES / LINE_BYTES) as u8;

    /// The line that contains byte `address`.
    #[must_use]
    pub const fn containing(address: u64) -> Self {
        Self((address as usize % PAGE_BYTES / LINE_BYTES) as u8)
    }
}

const LINE_BYTES: usize = 64;

/// A page of a space: its byte address divided by [`PAGE_BYTES`]. Always below 2^52.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNumber(pub u64);

impl PageNumber {
    /// The page that contains byte `address`.
    #[must_use]
    pub const fn containing(address: u64) -> Self {
        Self(address >> PAGE_SHIFT)
    }

    /// Address of the page's first byte, in bytes.
    #[must_use]
    pub const fn address(self) -> u64 {
        self.0 << PAGE_SHIFT
    }

    /// The extent this page belongs to.
    #[must_use]
    pub const fn extent(self) -> ExtentNumber {
        ExtentNumber(self.0 / PAGES_PER_EXTENT)
    }

    /// Place of the page inside its extent, 0 to 511.
    #[must_use]
    pub const fn index_in_extent(self) -> usize {
        (self.0 % PAGES_PER_EXTENT) as usize
    }

    /// The page `count` pages further on.
    #[must_use]
    pub const fn offset(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl fmt::Display for PageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address())
    }
}

/// An aligned run of [`PAGES_PER_EXTENT`] pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentNumber(pub u64);

impl ExtentNumber {
    /// The extent's first page.
    #[must_use]
    pub const fn first_page(self) -> PageNumber {
        PageNumber(self.0 * PAGES_PER_EXTENT)
    }

    /// The page at `index` (0 to 511) of this extent.
    #[must_use]
    pub const fn page(self, index: usize) -> PageNumber {
        PageNumber(self.0 * PAGES_PER_EXTENT + index as u64)
    }
}

/// A run of pages: the first one and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRange {
    /// First page of the run.
    pub first: PageNumber,
    /// Number of pages.
    pub count: u64,
}

impl PageRange {
    /// A run of `count` pages from `first`.
    #[must_use]
    pub const fn new(first: PageNumber, count: u64) -> Self {
        Self { first, count }
    }

    /// The page after the last one.
    #[must_use]
    pub const fn end(self) -> PageNumber {
        PageNumber(self.first.0 + self.count)
    }

    /// Whether `page` lies inside.
    #[must_use]
    pub const fn contains(self, page: PageNumber) -> bool {
        page.0 >= self.first.0 && page.0 < self.first.0 + self.count
    }

    /// The pages, in order.
    pub fn pages(self) -> impl Iterator<Item = PageNumber> {
        (self.first.0..self.first.0 + self.count).map(PageNumber)
    }
}

/// Names one request of one node; survives retries, so that duplicates are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

impl RequestId {
    /// Request number `counter` of `node`. Only the low 48 bits of `counter` are kept.
    #[must_use]
    pub const fn new(node: NodeId, counter: u64) -> Self {
        Self((node.0 as u64) << REQUEST_COUNTER_BITS | counter & ((1 << REQUEST_COUNTER_BITS) - 1))
    }

    /// The node that asked first, however often the request was forwarded since.
    #[must_use]
    pub const fn requester(self) -> NodeId {
        NodeId((self.0 >> REQUEST_COUNTER_BITS) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_knows_its_extent_and_address() {
        let page = PageNumber::containing(0x5000_0040_1fff);
        assert_eq!(page.address(), 0x5000_0040_1000);
        assert_eq!(page.extent().page(page.index_in_extent()), page);
        assert_eq!(page.extent().first_page(), PageNumber(page.0 - 1));
    }

    #[test]
    fn a_range_contains_its_pages_and_no_other() {
        let range = PageRange::new(PageNumber(7), 3);
        assert_eq!(range.pages().last(), Some(PageNumber(9)));
        assert!(range.contains(PageNumber(7)) && range.contains(PageNumber(9)));
        assert!(!range.contains(PageNumber(6)) && !range.contains(range.end()));
    }

    #[test]
    fn a_request_keeps_its_requester() {
        let request = RequestId::new(NodeId(65535), u64::MAX);
        assert_eq!(request.requester(), NodeId(65535));
        assert_ne!(RequestId::new(NodeId(1), 1), RequestId::new(NodeId(2), 1));
    }
}
