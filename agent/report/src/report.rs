//! What a report holds: the figures of some hosts of a cluster, at one time or over one interval.
//!
//! Owns the sums over hosts. Must not know how a report is shown.

use crate::merge::{self, MergeError};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The stages of a fault whose page comes from another host, in their order.
pub const STAGES: [&str; 5] =
    ["stage_delivered_ns", "stage_request_out_ns", "stage_reply_in_ns", "stage_installed_ns", "stage_resumed_ns"];
/// Most pages kept of all hosts together.
pub const PAGES_MAX: usize = 32;

/// The figures of a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Name of the cluster.
    pub cluster: String,
    /// When they were taken, in milliseconds of unix time.
    pub taken_unix_ms: u64,
    /// How long they were counted; none: since each agent started.
    pub interval_ms: Option<u64>,
    /// Those that answered.
    pub hosts: Vec<Host>,
    /// Those that did not.
    pub missing: Vec<Missing>,
}

/// The figures of one host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Random number of its agent's start, hexadecimal.
    pub incarnation: String,
    /// By name, in nanoseconds.
    pub histograms: BTreeMap<String, Histogram<u64>>,
    /// Answers to requests for pages that came in, by the host that gave them.
    pub sources: BTreeMap<String, u64>,
    /// The pages its threads fetched most from other hosts, of jobs that count them.
    pub pages: Vec<Page>,
}

/// A host that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What was fetched from other hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The job's space.
    pub space: u32,
    /// The job's program.
    pub program: String,
    /// Address of the page's first byte.
    pub address: u64,
    /// How often to read it.
    pub reads: u64,
    /// How often to write it.
    pub writes: u64,
    /// The 64-byte lines that were wanted, bit by bit.
    pub lines: u64,
}

/// A page over all hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotPage {
    /// Sums over the hosts.
    pub page: Page,
    /// Who fetched it, and how often.
    pub hosts: Vec<(String, u64)>,
}

/// What is told of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Samples.
    pub count: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Largest.
    pub max_ns: u64,
}

impl Summary {
    /// Of this histogram.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let [p50_ns, p90_ns, p99_ns, p999_ns] = [0.5, 0.9, 0.99, 0.999].map(|quantile| histogram.value_at_quantile(quantile));
        Self { count: histogram.len(), p50_ns, p90_ns, p99_ns, p999_ns, max_ns: histogram.max() }
    }

    /// The times with their headings, in the order they are shown.
    #[must_use]
    pub fn times(&self) -> [(&'static str, u64); 5] {
        [("p50", self.p50_ns), ("p90", self.p90_ns), ("p99", self.p99_ns), ("p99.9", self.p999_ns), ("max", self.max_ns)]
    }
}

impl Page {
    /// Reads and writes.
    #[must_use]
    pub fn fetches(&self) -> u64 {
        self.reads.saturating_add(self.writes)
    }
}

impl Report {
    /// One histogram for each name, over all hosts.
    ///
    /// # Errors
    /// Host and name of the first that cannot be merged.
    pub fn merged(&self) -> Result<BTreeMap<String, Histogram<u64>>, (String, MergeError)> {
        let mut merged: BTreeMap<String, Histogram<u64>> = BTreeMap::new();
        for host in &self.hosts {
            for (name, histogram) in &host.histograms {
                match merged.get_mut(name) {
                    Some(sum) => {
                        merge::add(sum, histogram).map_err(|error| (format!("histogram {name} of host {}", host.name), error))?;
                    }
                    None => {
                        merged.insert(name.clone(), histogram.clone());
                    }
                }
            }
        }
        Ok(merged)
    }

    /// What came after `before` was taken. A host that was restarted meanwhile, or is new, counts from its start.
    #[must_use]
    pub fn since(&self, before: &Report) -> Report {
        let since = |host: &Host| {
            let known = before.hosts.iter().find(|known| known.name == host.name && known.incarnation == host.incarnation);
            known.map_or_else(|| host.clone(), |known| host.since(known))
        };
        Report {
            interval_ms: Some(self.taken_unix_ms.saturating_sub(before.taken_unix_ms)),
            hosts: self.hosts.iter().map(since).collect(),
            ..self.clone()
        }
    }

    /// The pages fetched most, over all hosts.
    #[must_use]
    pub fn hot_pages(&self) -> Vec<HotPage> {
        let mut pages: BTreeMap<(u32, u64), HotPage> = BTreeMap::new();
        for (host, page) in self.hosts.iter().flat_map(|host| host.pages.iter().map(move |page| (host, page))) {
            let none = || HotPage { page: Page { reads: 0, writes: 0, lines: 0, ..page.clone() }, hosts: Vec::new() };
            let sum = pages.entry((page.space, page.address)).or_insert_with(none);
            sum.page.reads = sum.page.reads.saturating_add(page.reads);
            sum.page.writes = sum.page.writes.saturating_add(page.writes);
            sum.page.lines |= page.lines;
            sum.hosts.push((host.name.clone(), page.fetches()));
        }
        let mut pages: Vec<HotPage> = pages.into_values().filter(|hot| hot.page.fetches() > 0).collect();
        pages.sort_by_key(|hot| (std::cmp::Reverse(hot.page.fetches()), hot.page.space, hot.page.address));
        pages.truncate(PAGES_MAX);
        pages
    }

    /// Names of the hosts that asked or were asked for pages, in the report's order first.
    #[must_use]
    pub fn matrix_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.hosts.iter().map(|host| host.name.clone()).collect();
        for source in self.hosts.iter().flat_map(|host| host.sources.keys()) {
            if !names.contains(source) {
                names.push(source.clone());
            }
        }
        names
    }
}

impl Host {
    fn since(&self, before: &Host) -> Host {
        let histogram = |(name, now): (&String, &Histogram<u64>)| {
            let rest = before.histograms.get(name).map_or_else(|| now.clone(), |before| merge::interval(now, before));
            (!rest.is_empty()).then(|| (name.clone(), rest))
        };
        let source = |(name, now): (&String, &u64)| {
            (name.clone(), now.saturating_sub(before.sources.get(name).copied().unwrap_or_default()))
        };
        let page = |now: &Page| {
            let known = before.pages.iter().find(|page| (page.space, page.address) == (now.space, now.address));
            let (reads, writes) = known.map_or((0, 0), |page| (page.reads, page.writes));
            Page { reads: now.reads.saturating_sub(reads), writes: now.writes.saturating_sub(writes), ..now.clone() }
        };
        Host {
            histograms: self.histograms.iter().filter_map(histogram).collect(),
            sources: self.sources.iter().map(source).collect(),
            pages: self.pages.iter().map(page).collect(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{histogram, sample};
    use proptest::prelude::*;

    fn report(hosts: &[Vec<u64>]) -> Report {
        let host = |(number, samples): (usize, &Vec<u64>)| Host {
            name: number.to_string(),
            histograms: [("fault_ns".to_owned(), histogram(samples))].into(),
            ..Host::default()
        };
        Report { hosts: hosts.iter().enumerate().map(host).collect(), ..Report::default() }
    }

    proptest! {
        #[test]
        fn merged_is_the_histogram_of_the_merged_samples(
            hosts in prop::collection::vec(prop::collection::vec(0..120_000_000_000_u64, 0..200), 1..6),
        ) {
            let merged = report(&hosts).merged().unwrap();
            prop_assert_eq!(&merged["fault_ns"], &histogram(&hosts.concat()));
            prop_assert_eq!(Summary::of(&merged["fault_ns"]), Summary::of(&histogram(&hosts.concat())));
        }

        #[test]
        fn ranges_that_differ_lose_nothing(
            short in prop::collection::vec(1..1_000_u64, 0..100),
            long in prop::collection::vec(1..60_000_000_000_u64, 0..100),
            is_short_first: bool,
        ) {
            let mut narrow = Histogram::<u64>::new_with_bounds(1, 1_000, 2).unwrap();
            short.iter().for_each(|sample| narrow.record(*sample).unwrap());
            let (mut sum, more) = if is_short_first { (narrow, histogram(&long)) } else { (histogram(&long), narrow) };
            merge::add(&mut sum, &more).unwrap();
            prop_assert_eq!(sum, histogram(&[short, long].concat()));
        }

        #[test]
        fn intervals_add_up(first in prop::collection::vec(1..1_000_000_u64, 0..100), then in prop::collection::vec(1..1_000_000_u64, 0..100)) {
            let now = histogram(&[first.clone(), then.clone()].concat());
            // The largest and smallest values of a difference are known by their buckets only.
            let rest = merge::interval(&now, &histogram(&first));
            prop_assert_eq!(rest.len(), then.len() as u64);
            prop_assert_eq!(rest.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect::<Vec<_>>(),
                histogram(&then).iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect::<Vec<_>>());
        }
    }

    #[test]
    fn coarser_buckets_are_refused_by_name() {
        let mut report = report(&[vec![5], vec![6]]);
        let mut coarse = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 1).unwrap();
        coarse.record(5).unwrap();
        report.hosts[1].histograms.insert("fault_ns".into(), coarse);
        let (what, error) = report.merged().unwrap_err();
        assert_eq!((what.as_str(), error), ("histogram fault_ns of host 1", MergeError::Digits { ours: 2, theirs: 1 }));
    }

    #[test]
    fn a_restarted_host_counts_from_its_start() {
        let before = report(&[vec![1; 10], vec![1; 10]]);
        let mut now = report(&[vec![1; 15], vec![1; 3]]);
        now.hosts[1].incarnation = "new".into();
        let since = now.since(&before);
        assert_eq!(since.hosts.iter().map(|host| host.histograms["fault_ns"].len()).collect::<Vec<_>>(), [5, 3]);
    }

    #[test]
    fn pages_of_all_hosts_add_up() {
        let hot = sample().hot_pages();
        assert_eq!((hot[0].page.address, hot[0].page.reads, hot[0].page.writes, hot[0].page.lines), (0x7000, 240, 36, 3));
        assert_eq!(hot[0].hosts, [("a".to_owned(), 52), ("b".to_owned(), 92), ("c".to_owned(), 132)]);
    }
}
