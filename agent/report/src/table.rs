//! A report as lines of text.
//!
//! Owns columns and their widths. Must not know terminals.

use crate::merge::MergeError;
use crate::report::{Report, Summary};
use std::fmt::Write;

/// The merged histograms of `report`, a line each, and the hosts that did not answer.
///
/// # Errors
/// When its hosts cannot be merged.
pub fn write(report: &Report) -> Result<String, (String, MergeError)> {
    let names: Vec<&str> = report.hosts.iter().map(|host| host.name.as_str()).collect();
    let mut text = format!("{:<32} {:>12}", names.join(","), "count");
    for heading in ["p50", "p90", "p99", "p99.9", "max"] {
        put(&mut text, format_args!(" {:>12}", format!("{heading} us")));
    }
    text.push('\n');
    for (name, histogram) in report.merged()? {
        let summary = Summary::of(&histogram);
        put(&mut text, format_args!("{name:<32} {:>12}", summary.count));
        for (_, ns) in summary.times() {
            put(&mut text, format_args!(" {:>12.1}", ns as f64 / 1000.0));
        }
        text.push('\n');
    }
    for missing in &report.missing {
        put(&mut text, format_args!("missing {}: {}\n", missing.name, missing.reason));
    }
    Ok(text)
}

/// `before` and `after` beside each other: counts, times, and how many times as long the later ones are.
///
/// # Errors
/// When the hosts of one of them cannot be merged.
pub fn compare(before: &Report, after: &Report) -> Result<String, (String, MergeError)> {
    let (old, new) = (before.merged()?, after.merged()?);
    let mut text = format!("{:<32} {:>10} {:>10}", "before -> after", "count", "count");
    for heading in ["p50", "p99"] {
        put(&mut text, format_args!(" {:>10} {:>10} {:>6}", format!("{heading} us"), format!("{heading} us"), "ratio"));
    }
    text.push('\n');
    for (name, histogram) in &new {
        let Some(earlier) = old.get(name) else { continue };
        let (earlier, later) = (Summary::of(earlier), Summary::of(histogram));
        put(&mut text, format_args!("{name:<32} {:>10} {:>10}", earlier.count, later.count));
        for (was, is) in [(earlier.p50_ns, later.p50_ns), (earlier.p99_ns, later.p99_ns)] {
            let [old_us, new_us] = [was, is].map(|ns| ns as f64 / 1000.0);
            put(&mut text, format_args!(" {old_us:>10.1} {new_us:>10.1} {:>6.3}", ratio(was, is)));
        }
        text.push('\n');
    }
    for (name, sides) in [(old.keys(), &new, "before"), (new.keys(), &old, "after")]
        .into_iter()
        .flat_map(|(names, other, side)| names.filter(|name| !other.contains_key(*name)).map(move |name| (name, side)))
    {
        put(&mut text, format_args!("{name:<32} only {sides}\n"));
    }
    Ok(text)
}

/// How many times `was` `is` is.
#[must_use]
pub fn ratio(was: u64, is: u64) -> f64 {
    is as f64 / was.max(1) as f64
}

fn put(text: &mut String, part: std::fmt::Arguments<'_>) {
    text.write_fmt(part).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{histogram, sample};

    #[test]
    fn all_hosts_are_one_line_per_histogram() {
        let table = write(&sample()).unwrap();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0][..3], ["a,b,c", "count", "p50"]);
        assert_eq!(rows[1][..2], ["fault_local_ns", "6000"]);
        assert_eq!(rows.last().unwrap()[..2], ["missing", "d:"]);
    }

    #[test]
    fn two_reports_are_compared_by_name() {
        let before = sample();
        let mut after = sample();
        for host in &mut after.hosts {
            host.histograms.remove("fault_local_ns");
            host.histograms.insert("discard_ns".into(), histogram(&[7]));
        }
        let table = compare(&before, &after).unwrap();
        assert!(table.contains("fault_local_ns                   only before\n"), "{table}");
        assert!(table.contains("discard_ns                       only after\n"), "{table}");
        let read = table.lines().find(|line| line.starts_with("fault_remote_read_ns")).unwrap();
        assert!(read.ends_with("1.000"), "{read}");
    }
}
