//! Reports as an HdrHistogram interval log, which the HdrHistogram tools of all languages read.
//!
//! Owns tags and units: values are nanoseconds, the column of maxima is in milliseconds. Must not know files.

use crate::merge::MergeError;
use crate::report::Report;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::time::{Duration, UNIX_EPOCH};

/// Nanoseconds of the unit in which maxima stand in the log.
const MAX_VALUE_DIVISOR: f64 = 1e6;

/// The merged histograms of `reports`, which are in the order of time: a line for each, tagged with its name.
///
/// # Errors
/// When the hosts of a report cannot be merged.
pub fn write(reports: &[Report]) -> Result<String, (String, MergeError)> {
    let begin = |report: &Report| Duration::from_millis(report.taken_unix_ms.saturating_sub(report.interval_ms.unwrap_or(0)));
    let base = reports.first().map(begin).unwrap_or_default();
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("values are nanoseconds, maxima milliseconds; all hosts together")
        .with_start_time(UNIX_EPOCH + base)
        .with_base_time(UNIX_EPOCH + base)
        .with_max_value_divisor(MAX_VALUE_DIVISOR)
        .begin_log_with(&mut bytes, &mut serializer)
        .expect("writing to memory cannot fail");
    for report in reports {
        let length = Duration::from_millis(report.interval_ms.unwrap_or(0));
        for (name, histogram) in report.merged()? {
            let written = log.write_histogram(&histogram, begin(report).saturating_sub(base), length, Tag::new(&name));
            written.expect("writing a histogram to memory cannot fail");
        }
    }
    Ok(String::from_utf8(bytes).expect("a log is text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::sample;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn a_log_is_read_back() {
        let first = sample();
        let mut second = sample();
        second.taken_unix_ms += 2500;
        let second = second.since(&first);
        let text = write(&[first.clone(), second]).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("Tag=")).count(), first.merged().unwrap().len());
        let mut found = 0;
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            let LogEntry::Interval(line) = entry.unwrap() else { continue };
            let bytes = unbase64(line.encoded_histogram());
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            assert_eq!(histogram, first.merged().unwrap()[line.tag().unwrap().as_str()]);
            found += 1;
        }
        assert_eq!(found, first.merged().unwrap().len());
    }

    fn unbase64(text: &str) -> Vec<u8> {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
        for digit in text.bytes().filter(|digit| *digit != b'=') {
            bits = bits << 6 | DIGITS.iter().position(|known| *known == digit).unwrap() as u32;
            count += 6;
            if count >= 8 {
                count -= 8;
                bytes.push((bits >> count) as u8);
            }
        }
        bytes
    }
}
