//! A report that unit tests draw and read.
//!
//! Owns its figures. Must not know what is tested with them.

use crate::report::{Host, Missing, Page, Report};
use hdrhistogram::Histogram;

/// A histogram as shards have them.
pub fn histogram(samples: &[u64]) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 2).expect("1 < max and 2 digits are in range");
    samples.iter().for_each(|sample| histogram.saturating_record(*sample));
    histogram
}

/// Three hosts with figures that differ.
pub fn sample() -> Report {
    let host = |number: u64, name: &str| {
        let around = |middle: u64| -> Vec<u64> {
            (0..2000).map(|i| middle + middle * (i * i % 997) / 900 + (i % 500 == 7) as u64 * middle * 20 * number).collect()
        };
        let spans = [
            ("fault_local_ns", 4_000),
            ("fault_remote_read_ns", 70_000),
            ("fault_remote_write_ns", 95_000),
            ("stage_request_out_ns", 5_000),
            ("stage_reply_in_ns", 48_000),
            ("stage_installed_ns", 6_000),
        ];
        let histograms = spans.iter().map(|(name, ns)| ((*name).to_owned(), histogram(&around(ns * (9 + number) / 10))));
        let sources = ["a", "b", "c"].into_iter().filter(|other| *other != name);
        let page = |address, reads, writes, lines| Page {
            space: 7,
            program: "pigz".into(),
            address,
            reads: reads * number,
            writes,
            lines,
        };
        Host {
            name: name.into(),
            incarnation: format!("{number:016x}"),
            histograms: histograms.collect(),
            sources: sources.map(|other| (other.to_owned(), 900 * number + u64::from(other.as_bytes()[0]))).collect(),
            pages: vec![page(0x7000, 40, 12, 0b11), page(0x2000_0000, 9, 0, u64::MAX)],
        }
    };
    Report {
        cluster: "lab".into(),
        taken_unix_ms: 1_763_760_000_123,
        interval_ms: None,
        hosts: vec![host(1, "a"), host(2, "b"), host(3, "c")],
        missing: vec![Missing { name: "d".into(), reason: "no answer in 2 s".into() }],
    }
}
