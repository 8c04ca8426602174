//! Counters and latency histograms of several shards, added up.
//!
//! Owns the sums and their form in reports. Must not know who measured.

use dvm_api::local::HostStatistics;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Most different names kept: shards have a fixed few.
const NAMES_MAX: usize = 256;

/// Sums over shards.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    counters: BTreeMap<String, u64>,
    histograms: BTreeMap<String, Histogram<u64>>,
}

/// One histogram in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramRow {
    /// Stable name; times are in nanoseconds.
    pub name: String,
    /// Samples.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Largest.
    pub max_ns: u64,
    /// HdrHistogram V2 serialization in hexadecimal, for merging.
    pub hdr_v2: String,
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

    /// Counters by name.
    #[must_use]
    pub fn counters(&self) -> &BTreeMap<String, u64> {
        &self.counters
    }

    /// The histograms as rows, by name.
    #[must_use]
    pub fn rows(&self) -> Vec<HistogramRow> {
        self.histograms.iter().map(|(name, histogram)| row(name, histogram)).collect()
    }
}

fn row(name: &str, histogram: &Histogram<u64>) -> HistogramRow {
    HistogramRow {
        name: name.to_owned(),
        count: histogram.len(),
        p50_ns: histogram.value_at_quantile(0.5),
        p90_ns: histogram.value_at_quantile(0.9),
        p99_ns: histogram.value_at_quantile(0.99),
        max_ns: histogram.max(),
        hdr_v2: hexadecimal(histogram),
    }
}

/// A histogram for [`HistogramRow::hdr_v2`].
#[must_use]
pub fn hexadecimal(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).expect("writing a histogram to memory cannot fail");
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(value: u64) -> HostStatistics {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        histogram.record(value).unwrap();
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&histogram, &mut bytes).unwrap();
        let histograms = vec![("fault_ns".to_owned(), bytes), ("damaged".to_owned(), vec![1, 2, 3])];
        HostStatistics { host: "a".to_owned(), counters: vec![("faults".to_owned(), value)], histograms, pages: Vec::new() }
    }

    #[test]
    fn shards_add_up() {
        let mut figures = Figures::default();
        figures.add(&statistics(10));
        figures.add(&statistics(1000));
        assert_eq!(figures.counters()["faults"], 1010);
        let rows = figures.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].count, rows[0].p50_ns, rows[0].max_ns), (2, 10, 1000));
        assert!(rows[0].hdr_v2.starts_with("1c8493"));
    }
}
