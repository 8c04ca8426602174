//! Acknowledgements of one endpoint that agent and kernel programs count together.
//!
//! Owns the agent's side of a record's life. Must not know what an acknowledgement is waited for.
//!
//! ```text
//!   free --claim, by either side--> claimed --name--> named, a bit for each node that is to answer
//!     ^                                                 |  \--acknowledge, by either side--> a bit less
//!     +------------------------- end, by the agent -----+
//! ```
//!
//! A record has a turn, beside the bits: a program that looked at it in an earlier life cannot change it in this one. One that a
//! program has named says so, until the agent takes it over.

use crate::layout::{
    ACK_CLAIMED, ACK_ERA, ACK_NODES, ACK_OPENED, ACK_PAGE, ACK_PENDING, ACK_REQUEST, ACK_UNTOLD, ACKS_PER_ENDPOINT, Map,
    ack_record,
};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use dsm_wire::{Era, NodeId, PageNumber, RequestId};

const BITS: u64 = (1 << ACK_NODES) - 1;

/// A transaction that a program has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The writer's request.
    pub request: RequestId,
    /// The page.
    pub page: PageNumber,
    /// The era that begins.
    pub era: Era,
    /// Who keeps its copy until the writer has it: the writer itself, or the provider.
    pub spared: NodeId,
    /// The program has told who is pending. If not, who is to be told is not known yet.
    pub is_told: bool,
}

/// The records of one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Acks {
    words: &'static [AtomicU64],
}

impl Acks {
    /// Words that the records of an endpoint take.
    pub const WORDS: usize = ACKS_PER_ENDPOINT as usize * Map::Acks.words();

    /// Records in this memory. `None` if it has not [`Acks::WORDS`] words.
    #[must_use]
    pub const fn new(words: &'static [AtomicU64]) -> Option<Self> {
        if words.len() == Self::WORDS { Some(Self { words }) } else { None }
    }

    /// Names the nodes that are to acknowledge `era` of `page` to `request`. Returns false, and counts nothing, if the record is in
    /// use or a node has too high a number: then the agent counts alone.
    #[must_use]
    pub fn begin(&self, request: RequestId, page: PageNumber, era: Era, nodes: &[NodeId]) -> bool {
        let record = self.record(page);
        let is_countable = request.0 != 0 && nodes.iter().all(|node| node.0 < ACK_NODES);
        if !is_countable || record[ACK_REQUEST].compare_exchange(0, ACK_CLAIMED, SeqCst, SeqCst).is_err() {
            return false;
        }
        let turn = (record[ACK_PENDING].load(SeqCst) | BITS).wrapping_add(1);
        record[ACK_PENDING].store(turn, SeqCst);
        record[ACK_PAGE].store(page.0, SeqCst);
        record[ACK_ERA].store(u64::from(era.0), SeqCst);
        record[ACK_REQUEST].store(request.0, SeqCst);
        let bits = nodes.iter().fold(0, |bits, node| bits | 1 << node.0);
        record[ACK_PENDING].store(turn | bits, SeqCst);
        true
    }

    /// The transaction on `page` that a program has begun and nobody has taken over.
    #[must_use]
    pub fn opened(&self, page: PageNumber) -> Option<Opened> {
        opened_in(self.record(page)).filter(|opened| opened.page == page)
    }

    /// Every such transaction.
    pub fn all_opened(&self) -> impl Iterator<Item = Opened> {
        self.words.chunks_exact(Map::Acks.words()).filter_map(opened_in)
    }

    /// From now on the record of `page`, which a program has named, is as one that was begun here.
    pub fn adopt(&self, page: PageNumber) {
        self.record(page)[ACK_ERA].fetch_and(u64::from(u32::MAX), SeqCst);
    }

    /// Counts the acknowledgement of `node`, or that none is to be waited for. Any number of times.
    pub fn acknowledge(&self, page: PageNumber, node: NodeId) {
        if node.0 < ACK_NODES {
            self.record(page)[ACK_PENDING].fetch_and(!(1 << node.0), SeqCst);
        }
    }

    /// Who has not acknowledged yet, in order of their numbers.
    pub fn pending(&self, page: PageNumber) -> impl Iterator<Item = NodeId> {
        let bits = self.record(page)[ACK_PENDING].load(SeqCst);
        (0..ACK_NODES).filter(move |node| bits & 1 << node != 0).map(NodeId)
    }

    /// Frees the record of `page`, whoever is still pending, if it is in use for `request`.
    pub fn end(&self, request: RequestId, page: PageNumber) {
        let record = self.record(page);
        if record[ACK_REQUEST].load(SeqCst) == request.0 {
            // In this order: a free record is soon another's.
            record[ACK_PENDING].fetch_and(!BITS, SeqCst);
            record[ACK_REQUEST].store(0, SeqCst);
        }
    }

    fn record(&self, page: PageNumber) -> &'static [AtomicU64] {
        let first = ack_record(0, page.0) as usize * Map::Acks.words();
        &self.words[first..first + Map::Acks.words()]
    }
}

fn opened_in(record: &[AtomicU64]) -> Option<Opened> {
    let request = record[ACK_REQUEST].load(SeqCst);
    let (page, era) = (record[ACK_PAGE].load(SeqCst), record[ACK_ERA].load(SeqCst));
    let is_opened = !matches!(request, 0 | ACK_CLAIMED) && era & ACK_OPENED != 0;
    is_opened.then_some(Opened {
        request: RequestId(request),
        page: PageNumber(page),
        era: Era(era as u32),
        spared: NodeId((era >> 32) as u16),
        is_told: era & ACK_UNTOLD == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_each_node_once_and_serves_one_page_at_a_time() {
        static WORDS: [AtomicU64; Acks::WORDS] = [const { AtomicU64::new(0) }; Acks::WORDS];
        let acks = Acks::new(&WORDS).unwrap();
        let (page, other) = (PageNumber(7), PageNumber(7 + (u64::from(ACKS_PER_ENDPOINT) << 9)));
        assert_eq!(ack_record(0, page.0), ack_record(0, other.0));
        let nodes = [NodeId(1), NodeId(3)];
        assert!(acks.begin(RequestId(5), page, Era(2), &nodes));
        assert!(!acks.begin(RequestId(6), other, Era(2), &nodes), "in use");
        acks.acknowledge(page, NodeId(3));
        acks.acknowledge(page, NodeId(3));
        assert_eq!(acks.pending(page).last(), Some(NodeId(1)));
        acks.acknowledge(page, NodeId(1));
        assert_eq!(acks.pending(page).next(), None);
        acks.end(RequestId(9), page);
        assert!(!acks.begin(RequestId(6), other, Era(2), &nodes), "not theirs to end");
        acks.end(RequestId(5), page);
        assert!(acks.begin(RequestId(6), other, Era(2), &nodes), "free again");
        assert!(!acks.begin(RequestId(8), PageNumber(8), Era(2), &[NodeId(ACK_NODES)]), "too high a number");
    }
}
