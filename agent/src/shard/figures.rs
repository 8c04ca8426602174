//! What a shard measures: one latency histogram per operation and per stage of a fault.
//!
//! Owns names, bounds and serialization. Must not know where the times come from.

use dsm_wire::NodeId;
use dvm_api::local::{HostStatistics, PageUse};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2Serializer};
use std::collections::BTreeMap;

/// Longest latency told apart, in nanoseconds; longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant decimal digits kept. With three, the counts of all histograms (2 MiB) leave no cache to the program beside them.
const DIGITS: u8 = 2;

/// What a latency is of. The name is stable: it stands in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Span {
    /// Fault read from the kernel to thread resumed, page from another host, for reading.
    RemoteRead,
    /// The same for writing.
    RemoteWrite,
    /// Fault resolved without a message.
    LocalFault,
    /// Thread's fault until the shard has read the event of it. Only if the job asked for it.
    Delivered,
    /// Start of the batch that made a request (the fault is still in the kernel) until the request is queued for the network.
    RequestOut,
    /// Request out until the grant is in.
    ReplyIn,
    /// Grant in until the page is mapped and its threads are woken.
    Installed,
    /// Installed until the thread runs, for one that had left its processor. Only if the job asked for it.
    Resumed,
    /// One page operation of the pager.
    PageOperation,
    /// A discard, from order to completion.
    Discard,
}

const SPANS: [(Span, &str); 10] = [
    (Span::RemoteRead, "fault_remote_read_ns"),
    (Span::RemoteWrite, "fault_remote_write_ns"),
    (Span::LocalFault, "fault_local_ns"),
    (Span::Delivered, "stage_delivered_ns"),
    (Span::RequestOut, "stage_request_out_ns"),
    (Span::ReplyIn, "stage_reply_in_ns"),
    (Span::Installed, "stage_installed_ns"),
    (Span::Resumed, "stage_resumed_ns"),
    (Span::PageOperation, "page_operation_ns"),
    (Span::Discard, "discard_ns"),
];

/// The histograms of one shard.
#[derive(Debug)]
pub(super) struct Figures {
    spans: Vec<Histogram<u64>>,
    /// Grants that came in, by who gave them: an entry for each member.
    sources: BTreeMap<NodeId, u64>,
}

impl Figures {
    pub(super) fn new(members: &[NodeId]) -> Self {
        let empty = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("1 < max and 2 digits are in range");
        Self { spans: SPANS.iter().map(|_| empty()).collect(), sources: members.iter().map(|node| (*node, 0)).collect() }
    }

    /// Counts one latency of `span`, in nanoseconds.
    pub(super) fn record(&mut self, span: Span, latency_ns: u64) {
        self.spans[span as usize].saturating_record(latency_ns.max(1));
    }

    /// Counts one grant that `node` gave.
    pub(super) fn note_source(&mut self, node: NodeId) {
        if let Some(count) = self.sources.get_mut(&node) {
            *count += 1;
        }
    }

    /// Everything measured, with `counters` and `pages`, as it goes to whoever asked.
    pub(super) fn report(&self, host: &str, counters: Vec<(String, u64)>, pages: Vec<PageUse>) -> HostStatistics {
        let mut serializer = V2Serializer::new();
        let histograms =
            SPANS.iter().zip(&self.spans).filter(|(_, histogram)| !histogram.is_empty()).map(|((_, name), histogram)| {
                let mut bytes = Vec::new();
                serializer.serialize(histogram, &mut bytes).expect("writing a histogram to memory cannot fail");
                ((*name).to_owned(), bytes)
            });
        let sources = self.sources.iter().filter(|(_, count)| **count > 0).map(|(node, count)| (node.0, *count)).collect();
        HostStatistics { host: host.to_owned(), counters, histograms: histograms.collect(), pages, sources }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;

    #[test]
    fn spans_stand_at_their_own_index() {
        for (index, (span, _)) in SPANS.iter().enumerate() {
            assert_eq!(*span as usize, index);
        }
    }

    #[test]
    fn report_reads_back() {
        let mut figures = Figures::new(&[NodeId(1), NodeId(2)]);
        figures.note_source(NodeId(2));
        figures.note_source(NodeId(9));
        figures.record(Span::RemoteRead, 20_000);
        figures.record(Span::RemoteRead, u64::MAX);
        let report = figures.report("a", Vec::new(), Vec::new());
        assert_eq!(report.sources, [(2, 1)]);
        assert_eq!(report.histograms.len(), 1);
        let (name, bytes) = &report.histograms[0];
        assert_eq!(name, "fault_remote_read_ns");
        let back: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).expect("own format");
        assert_eq!(back.len(), 2);
    }
}
