//! What `--stat` shows when the program has ended.
//!
//! Owns the counters of the root husk, and the text and JSON of all figures. Must not be on the path of a fault.

use super::agent::Agent;
use super::calls;
use super::husk::Root;
use crate::sys::cpu;
use dvm_api::local::HostStatistics;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hosts that are counted apart.
pub const HOSTS_MAX: usize = 64;
const NUMBERS_MAX: usize = 512;
/// Histogram of the agents that remote faults are in.
const REMOTE_FAULT: &str = "fault_remote";
/// Widest bar of a drawn histogram, in characters.
const BAR_WIDTH: u64 = 50;
const BUCKET_NS_MIN: u64 = 1_000;
const BUCKETS_MAX: usize = 24;

/// Counters of a run.
#[derive(Debug)]
pub struct Figures {
    threads: [AtomicU64; HOSTS_MAX],
    calls: [AtomicU64; NUMBERS_MAX],
}

impl Default for Figures {
    fn default() -> Self {
        Self { threads: [const { AtomicU64::new(0) }; HOSTS_MAX], calls: [const { AtomicU64::new(0) }; NUMBERS_MAX] }
    }
}

impl Figures {
    /// A thread started on `host`.
    pub fn count_thread(&self, host: usize) {
        self.threads[host.min(HOSTS_MAX - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// A shadow got a call.
    pub fn count_call(&self, number: u32) {
        self.calls[(number as usize).min(NUMBERS_MAX - 1)].fetch_add(1, Ordering::Relaxed);
    }

    fn threads(&self, host: usize) -> u64 {
        self.threads[host.min(HOSTS_MAX - 1)].load(Ordering::Relaxed)
    }
}

/// Everything there is to show.
#[derive(Debug)]
pub struct Report {
    hosts: Vec<HostReport>,
    /// Name, how many, mean round trip in nanoseconds (0 if unknown).
    calls: Vec<(&'static str, u64, u64)>,
    histograms: BTreeMap<String, Histogram<u64>>,
}

#[derive(Debug)]
struct HostReport {
    name: String,
    threads: u64,
    cpu_ns: u64,
    counters: Vec<(String, u64)>,
}

impl Report {
    /// Collects the figures of all hosts.
    pub fn gather(root: &Root, agent: Option<&Agent>) -> Self {
        let mut latencies: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        let mut hosts = Vec::new();
        for (index, host) in root.hosts.iter().enumerate() {
            let mut cpu_ns = if index == 0 { cpu::process_cpu_ns() } else { 0 };
            let member = index.checked_sub(1).and_then(|index| root.members().get(index));
            if let Some(figures) = member.and_then(|member| member.figures()) {
                cpu_ns = figures.cpu_ns;
                for (number, count, total_ns) in figures.calls {
                    let entry = latencies.entry(number).or_default();
                    entry.0 += count;
                    entry.1 += total_ns;
                }
            }
            let (name, threads) = (host.name.clone(), root.figures.threads(index));
            hosts.push(HostReport { name, threads, cpu_ns, counters: Vec::new() });
        }
        let statistics = agent.map_or(Ok(Vec::new()), Agent::statistics).unwrap_or_default();
        let histograms = merge(&mut hosts, statistics);
        Self { hosts, calls: name_calls(&root.figures, &latencies), histograms }
    }

    /// The figures as one JSON object.
    pub fn to_json(&self) -> String {
        let hosts: Vec<Value> = self.hosts.iter().map(HostReport::to_json).collect();
        let calls: Vec<Value> = self
            .calls
            .iter()
            .map(|(name, count, mean_ns)| json!({"name": name, "count": count, "latency_ns_mean": mean_ns}))
            .collect();
        let histograms: Map<String, Value> =
            self.histograms.iter().map(|(name, histogram)| (name.clone(), summary(histogram))).collect();
        format!("{:#}\n", json!({"hosts": hosts, "delegated_calls": calls, "latencies": histograms}))
    }
}

impl HostReport {
    fn to_json(&self) -> Value {
        let counters: Map<String, Value> = self.counters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({"host": self.name, "threads": self.threads, "cpu_ns": self.cpu_ns, "counters": counters})
    }
}

fn merge(hosts: &mut [HostReport], statistics: Vec<HostStatistics>) -> BTreeMap<String, Histogram<u64>> {
    let mut merged: BTreeMap<String, Histogram<u64>> = BTreeMap::new();
    for host in statistics {
        if let Some(report) = hosts.iter_mut().find(|report| report.name == host.host) {
            report.counters = host.counters;
        }
        for (name, bytes) in host.histograms {
            let Ok(histogram) = Deserializer::new().deserialize::<u64, _>(&mut bytes.as_slice()) else { continue };
            match merged.get_mut(&name) {
                // Histograms of one name have one shape; another release's is left out.
                Some(all) => all.add(&histogram).unwrap_or(()),
                None => {
                    merged.insert(name, histogram);
                }
            }
        }
    }
    merged
}

fn name_calls(figures: &Figures, latencies: &BTreeMap<u32, (u64, u64)>) -> Vec<(&'static str, u64, u64)> {
    let mut named = Vec::new();
    for (number, count) in figures.calls.iter().enumerate() {
        let count = count.load(Ordering::Relaxed);
        if count > 0 {
            let (measured, total_ns) = latencies.get(&(number as u32)).copied().unwrap_or_default();
            named.push((calls::name(number as u64), count, total_ns.checked_div(measured).unwrap_or(0)));
        }
    }
    named.sort_by_key(|(_, count, _)| std::cmp::Reverse(*count));
    named
}

fn summary(histogram: &Histogram<u64>) -> Value {
    json!({
        "count": histogram.len(),
        "p50_ns": histogram.value_at_quantile(0.5),
        "p99_ns": histogram.value_at_quantile(0.99),
        "p999_ns": histogram.value_at_quantile(0.999),
        "max_ns": histogram.max(),
        "buckets": buckets(histogram).into_iter().map(|(upper_ns, count)| json!([upper_ns, count])).collect::<Vec<_>>(),
    })
}

/// Counts per doubling of the latency: upper bound in nanoseconds, how many.
fn buckets(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut lower = 0;
    let mut upper = BUCKET_NS_MIN;
    for _ in 0..BUCKETS_MAX {
        let count = histogram.count_between(lower, upper - 1);
        if count > 0 || !found.is_empty() {
            found.push((upper, count));
        }
        if upper > histogram.max() {
            break;
        }
        (lower, upper) = (upper, upper * 2);
    }
    found
}

fn microseconds(ns: u64) -> String {
    format!("{:.1} us", ns as f64 / 1e3)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "-- dvm-exec: figures of this run")?;
        for host in &self.hosts {
            let cpu_s = host.cpu_ns as f64 / 1e9;
            writeln!(f, "host {:<16} threads {:>4}  cpu {cpu_s:>8.2} s", host.name, host.threads)?;
            for (name, value) in host.counters.iter().filter(|(_, value)| *value > 0) {
                writeln!(f, "     {name:<28} {value:>12}")?;
            }
        }
        if !self.calls.is_empty() {
            writeln!(f, "delegated calls                count   mean round trip")?;
        }
        for (name, count, mean_ns) in &self.calls {
            writeln!(f, "     {name:<22} {count:>8}   {:>12}", microseconds(*mean_ns))?;
        }
        for (name, histogram) in &self.histograms {
            let at = |quantile| microseconds(histogram.value_at_quantile(quantile));
            let (count, p50, p99, max) = (histogram.len(), at(0.5), at(0.99), microseconds(histogram.max()));
            writeln!(f, "{name:<26} count {count:>8}  p50 {p50:>11}  p99 {p99:>11}  max {max:>11}")?;
        }
        match self.histograms.get(REMOTE_FAULT) {
            Some(histogram) => draw(f, histogram),
            None => Ok(()),
        }
    }
}

fn draw(f: &mut fmt::Formatter<'_>, histogram: &Histogram<u64>) -> fmt::Result {
    let buckets = buckets(histogram);
    let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    writeln!(f, "remote faults by latency:")?;
    for (upper_ns, count) in buckets {
        let bar = "#".repeat((count * BAR_WIDTH).div_ceil(most) as usize);
        writeln!(f, "  < {:>12} {count:>8} {bar}", microseconds(upper_ns))?;
    }
    Ok(())
}
