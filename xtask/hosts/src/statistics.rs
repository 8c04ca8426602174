//! What `dvm-exec --stat-json` says about a job.
//!
//! Owns reading that file. Must not know how the figures came to be. A field that is missing reads as zero: what must be
//! there is for the caller to demand.

use crate::files::on;
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Start of the names of latencies that count as remote faults.
const REMOTE_FAULTS: &str = "fault_remote_";

/// Figures of a whole job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Time from start to end, nanoseconds.
    pub elapsed_ns: u64,
    /// One entry per host, the root first.
    pub hosts: Vec<HostFigures>,
    /// System calls executed for remote threads, by name.
    pub calls: BTreeMap<String, u64>,
}

/// Figures of one host's part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HostFigures {
    /// Name of the host.
    pub host: String,
    /// Threads of the program that ran there.
    pub threads: u64,
    /// CPU time in user mode, nanoseconds.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel, nanoseconds.
    pub cpu_system_ns: u64,
    /// Counters of the page layer by name.
    pub counters: BTreeMap<String, u64>,
    /// Latencies by name.
    pub histograms: BTreeMap<String, Latency>,
}

/// One latency histogram.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Median, nanoseconds.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Longest.
    pub max_ns: u64,
    /// Upper bound in nanoseconds and samples up to it (from the bound before).
    pub buckets: Vec<(u64, u64)>,
}

impl Statistics {
    /// Reads the file.
    ///
    /// # Errors
    /// It is missing or no such JSON.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(on("read", path))?;
        serde_json::from_str(&text).map_err(|source| Error::Io { what: "understand", path: path.into(), source: source.into() })
    }

    /// A counter summed over all hosts.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        self.hosts.iter().filter_map(|host| host.counters.get(name)).sum()
    }

    /// A latency over all hosts: buckets added, percentiles taken from the sum.
    #[must_use]
    pub fn latency(&self, name: &str) -> Latency {
        Latency::merge(self.hosts.iter().filter_map(|host| host.histograms.get(name)))
    }

    /// Latency of faults that another host answered, reads and writes together.
    #[must_use]
    pub fn remote_faults(&self) -> Latency {
        let parts = self.hosts.iter().flat_map(|host| &host.histograms);
        Latency::merge(parts.filter(|(name, _)| name.starts_with(REMOTE_FAULTS)).map(|(_, latency)| latency))
    }

    /// Names of all latencies of any host.
    #[must_use]
    pub fn latency_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.hosts.iter().flat_map(|host| host.histograms.keys().cloned()).collect();
        names.sort();
        names.dedup();
        names
    }
}

impl HostFigures {
    /// CPU time in both modes.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_user_ns + self.cpu_system_ns)
    }
}

impl Latency {
    fn merge<'a>(parts: impl Iterator<Item = &'a Self>) -> Self {
        let mut buckets = BTreeMap::<u64, u64>::new();
        let mut merged = Self::default();
        for part in parts {
            merged.count += part.count;
            merged.max_ns = merged.max_ns.max(part.max_ns);
            for (bound, count) in &part.buckets {
                *buckets.entry(*bound).or_default() += count;
            }
            // Without buckets there is nothing better than the worse of the two.
            merged.p50_ns = merged.p50_ns.max(part.p50_ns);
            merged.p99_ns = merged.p99_ns.max(part.p99_ns);
        }
        merged.buckets = buckets.into_iter().collect();
        if !merged.buckets.is_empty() {
            merged.p50_ns = merged.quantile(50).min(merged.max_ns);
            merged.p99_ns = merged.quantile(99).min(merged.max_ns);
        }
        merged
    }

    /// Upper bound of the bucket in which `percent` of the samples are reached.
    fn quantile(&self, percent: u64) -> u64 {
        let total: u64 = self.buckets.iter().map(|(_, count)| count).sum();
        let wanted = (total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bound, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return *bound;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_hosts_and_tolerates_missing_fields() {
        let text = r#"{"hosts": [
            {"host": "h0", "threads": 2, "counters": {"faults": 3},
             "histograms": {"fault_remote_read_ns": {"count": 98, "max_ns": 150, "buckets": [[100, 90], [200, 8]]}}},
            {"host": "h1", "counters": {"faults": 4},
             "histograms": {"fault_remote_read_ns": {"count": 2, "max_ns": 900, "buckets": [[1000, 2]]}}}],
            "calls": {"futex": 5}, "extra": null}"#;
        let statistics: Statistics = serde_json::from_str(text).unwrap();
        assert_eq!(statistics.counter("faults"), 7);
        assert_eq!(statistics.counter("none"), 0);
        let latency = statistics.latency("fault_remote_read_ns");
        assert_eq!((latency.count, latency.p50_ns, latency.p99_ns, latency.max_ns), (100, 100, 900, 900));
        assert_eq!(statistics.remote_faults(), latency);
        assert_eq!(statistics.latency_names(), ["fault_remote_read_ns"]);
        assert_eq!(statistics.hosts[1].threads, 0);
    }
}
