//! Counters and latency histograms of several shards, added up.
//!
//! Owns the sums and their form in reports. Must not know who measured.

use dvm_api::local::HostStatistics;
use dvm_report::HistogramRow;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use std::collections::BTreeMap;

/// Most different names kept: shards have a fixed few.
const NAMES_MAX: usize = 256;

/// Sums over shards.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    counters: BTreeMap<String, u64>,
    histograms: BTreeMap<String, Histogram<u64>>,
    sources: BTreeMap<u16, u64>,
}

impl Figures {
    /// Adds one shard's figures. What cannot be read as a histogram is left out.
    pub fn add(&mut self, statistics: &HostStatistics) {
        for (name, value) in &statistics.counters {
            if self.counters.contains_key(name) || self.counters.len() < NAMES_MAX {
                let sum = self.counters.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*value);
            }
        }
        for (node, count) in &statistics.sources {
            // As many as there are nodes: the number comes from the own shard.
            let sum = self.sources.entry(*node).or_default();
            *sum = sum.saturating_add(*count);
        }
        for (name, bytes) in &statistics.histograms {
            let Ok(histogram) = Deserializer::new().deserialize::<u64, _>(&mut bytes.as_slice()) else { continue };
            let count = self.histograms.len();
            if let Some(sum) = self.histograms.get_mut(name) {
                // Histograms of one name have one range. One that does not fit is from another release: it stays out.
                if sum.add(&histogram).is_err() {
                    continue;
                }
            } else if count < NAMES_MAX {
                self.histograms.insert(name.clone(), histogram);
            }
        }
    }

    /// Answers to requests for pages that came in, by the node that gave them.
    #[must_use]
    pub fn sources(&self) -> &BTreeMap<u16, u64> {
        &self.sources
    }

    /// Counters by name.
    #[must_use]
    pub fn counters(&self) -> &BTreeMap<String, u64> {
        &self.counters
    }

    /// The histograms as rows, by name.
    #[must_use]
    pub fn rows(&self) -> Vec<HistogramRow> {
        self.histograms.iter().map(|(name, histogram)| HistogramRow::new(name, histogram)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::{Serializer, V2Serializer};

    fn statistics(value: u64) -> HostStatistics {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        histogram.record(value).unwrap();
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&histogram, &mut bytes).unwrap();
        let histograms = vec![("fault_ns".to_owned(), bytes), ("damaged".to_owned(), vec![1, 2, 3])];
        let counters = vec![("faults".to_owned(), value)];
        HostStatistics { host: "a".to_owned(), counters, histograms, pages: Vec::new(), sources: vec![(2, value)] }
    }

    #[test]
    fn shards_add_up() {
        let mut figures = Figures::default();
        figures.add(&statistics(10));
        figures.add(&statistics(1000));
        assert_eq!(figures.counters()["faults"], 1010);
        assert_eq!(figures.sources()[&2], 1010);
        let rows = figures.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].count, rows[0].p50_ns, rows[0].max_ns), (2, 10, 1000));
        assert!(rows[0].hdr_v2.starts_with("1c8493"));
    }
}
