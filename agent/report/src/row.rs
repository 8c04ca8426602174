//! One histogram as it stands in JSON.
//!
//! Owns the row's form and the histogram inside it. Must not know who measured.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

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

/// Why a row holds no histogram.
#[derive(Debug, thiserror::Error)]
#[error("histogram {name}: hdr_v2 is not an HdrHistogram V2 serialization in hexadecimal; install the same release on all hosts")]
pub struct RowError {
    /// Name of the row.
    pub name: String,
}

impl HistogramRow {
    /// The row of `histogram`.
    #[must_use]
    pub fn new(name: &str, histogram: &Histogram<u64>) -> Self {
        Self {
            name: name.to_owned(),
            count: histogram.len(),
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            max_ns: histogram.max(),
            hdr_v2: hexadecimal(histogram),
        }
    }

    /// The histogram in it.
    ///
    /// # Errors
    /// When it is none.
    pub fn histogram(&self) -> Result<Histogram<u64>, RowError> {
        let bytes = bytes(&self.hdr_v2).and_then(|bytes| Deserializer::new().deserialize(&mut bytes.as_slice()).ok());
        bytes.ok_or_else(|| RowError { name: self.name.clone() })
    }
}

fn hexadecimal(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).expect("writing a histogram to memory cannot fail");
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_its_histogram_back() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).unwrap();
        histogram.record(1000).unwrap();
        let row = HistogramRow::new("fault_ns", &histogram);
        assert!(row.hdr_v2.starts_with("1c8493"));
        assert_eq!(row.histogram().unwrap(), histogram);
    }

    #[test]
    fn what_is_damaged_is_named() {
        for hdr_v2 in ["", "1", "xx", "1c8493", "\u{e9}\u{e9}"] {
            let row = HistogramRow {
                name: "fault_ns".into(),
                count: 0,
                p50_ns: 0,
                p90_ns: 0,
                p99_ns: 0,
                max_ns: 0,
                hdr_v2: hdr_v2.into(),
            };
            assert!(row.histogram().unwrap_err().to_string().starts_with("histogram fault_ns: "), "{hdr_v2}");
        }
    }
}
