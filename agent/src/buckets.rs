//! Latencies that kernel programs counted, as rows of a report: one histogram for each verdict.
//!
//! Owns the arithmetic of buckets that double: bucket `i` holds 2^i to 2^(i+1) - 1 nanoseconds, the last one all above, too. Must
//! not know where the counts come from.

use dsm_bpf::{LATENCY_BUCKETS, VERDICT_NAMES};
use dvm_report::HistogramRow;
use hdrhistogram::Histogram;

/// Significant decimal digits kept: buckets tell less.
const DIGITS: u8 = 1;

/// The rows `fast_<verdict>_ns` of verdicts that occurred. `counts` has [`LATENCY_BUCKETS`] numbers for each verdict in turn.
#[must_use]
pub fn rows(counts: &[u64]) -> Vec<HistogramRow> {
    let verdicts = VERDICT_NAMES.iter().zip(counts.chunks_exact(LATENCY_BUCKETS));
    verdicts.filter_map(|(name, buckets)| row(format!("fast_{name}_ns"), buckets)).collect()
}

fn row(name: String, buckets: &[u64]) -> Option<HistogramRow> {
    let count: u64 = buckets.iter().sum();
    let last = buckets.iter().rposition(|samples| *samples > 0)?;
    let mut histogram =
        Histogram::<u64>::new_with_bounds(1, upper_ns(LATENCY_BUCKETS - 1), DIGITS).expect("1 < max and 1 digit are in range");
    for (bucket, samples) in buckets.iter().enumerate() {
        histogram.saturating_record_n(middle_ns(bucket), *samples);
    }
    let [p50_ns, p90_ns, p99_ns] = [50, 90, 99].map(|percent| upper_ns(quantile(buckets, count, percent)));
    Some(HistogramRow { p50_ns, p90_ns, p99_ns, max_ns: upper_ns(last), ..HistogramRow::new(&name, &histogram) })
}

/// The bucket in which `percent` of all samples are reached.
fn quantile(buckets: &[u64], count: u64, percent: u64) -> usize {
    let wanted = (u128::from(count) * u128::from(percent)).div_ceil(100).max(1);
    let mut seen = 0_u128;
    let reached = buckets.iter().position(|samples| {
        seen += u128::from(*samples);
        seen >= wanted
    });
    reached.unwrap_or(0)
}

/// Largest latency of a bucket.
const fn upper_ns(bucket: usize) -> u64 {
    (2 << bucket) - 1
}

/// A latency in the middle of a bucket.
const fn middle_ns(bucket: usize) -> u64 {
    (1 << bucket) + (1 << bucket) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;

    #[test]
    fn buckets_cover_all_latencies_once() {
        assert_eq!((upper_ns(0), middle_ns(0)), (1, 1));
        assert_eq!((upper_ns(31), middle_ns(31)), (0xffff_ffff, 3 << 30));
        for bucket in 1..LATENCY_BUCKETS {
            assert!(upper_ns(bucket - 1) < middle_ns(bucket) && middle_ns(bucket) <= upper_ns(bucket), "{bucket}");
        }
    }

    #[test]
    fn percentiles_are_upper_bounds() {
        let mut counts = vec![0; VERDICT_NAMES.len() * LATENCY_BUCKETS];
        let serve = VERDICT_NAMES.iter().position(|name| *name == "serve").unwrap() * LATENCY_BUCKETS;
        counts[serve + 9] = 89;
        counts[serve + 10] = 10;
        counts[serve + 14] = 1;
        counts[LATENCY_BUCKETS - 1] = 1;
        let rows = rows(&counts);
        let told = |row: &HistogramRow| (row.name.clone(), row.count, [row.p50_ns, row.p90_ns, row.p99_ns, row.max_ns]);
        assert_eq!(rows.len(), 2);
        assert_eq!(told(&rows[0]), ("fast_counted_ns".into(), 1, [0xffff_ffff; 4]));
        assert_eq!(told(&rows[1]), ("fast_serve_ns".into(), 100, [1023, 2047, 2047, 32767]));
        let bytes =
            |text: &str| (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
        let bytes: Vec<u8> = bytes(&rows[1].hdr_v2);
        let back: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(back.len(), 100);
        assert!((768..1024).contains(&back.value_at_quantile(0.5)), "{}", back.value_at_quantile(0.5));
    }

    #[test]
    fn nothing_is_told_of_what_did_not_occur() {
        assert_eq!(rows(&vec![0; VERDICT_NAMES.len() * LATENCY_BUCKETS]), []);
        assert_eq!(rows(&[]), []);
    }
}
