//! What `--stat` shows when the program has ended.
//!
//! Owns the counters of the root husk, and the text and JSON of all figures. Must not be on the path of a fault.

use super::agent::Agent;
use super::calls;
use super::husk::Root;
use crate::sys::cpu;
use dvm_api::local::HostStatistics;
use hdrhistogram::Histogram as Samples;
use hdrhistogram::serialization::Deserializer;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Hosts that are counted apart.
pub const HOSTS_MAX: usize = 64;
const NUMBERS_MAX: usize = 512;
/// Start of the names of the agents' histograms of remote faults.
const REMOTE_FAULTS: &str = "fault_remote_";
/// Widest bar of a drawn histogram, in characters.
const BAR_WIDTH: u64 = 50;
const BUCKET_NS_MIN: u64 = 1_024;
/// Doublings of the latency that are told apart, above the least.
const DOUBLINGS_MAX: usize = 24;

/// Counters of a run.
#[derive(Debug)]
pub struct Figures {
    started: Instant,
    threads: [AtomicU64; HOSTS_MAX],
    calls: [AtomicU64; NUMBERS_MAX],
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            threads: [const { AtomicU64::new(0) }; HOSTS_MAX],
            calls: [const { AtomicU64::new(0) }; NUMBERS_MAX],
        }
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

type Histograms = BTreeMap<String, Samples<u64>>;

/// Everything there is to show.
#[derive(Debug)]
pub struct Report {
    elapsed_ns: u64,
    hosts: Vec<HostReport>,
    calls: Vec<CallReport>,
}

#[derive(Debug)]
struct HostReport {
    name: String,
    threads: u64,
    cpu_user_ns: u64,
    cpu_system_ns: u64,
    counters: Vec<(String, u64)>,
    histograms: Histograms,
}

#[derive(Debug)]
struct CallReport {
    name: &'static str,
    count: u64,
    /// 0 if no host said.
    latency_ns_mean: u64,
}

impl Report {
    /// Collects the figures of all hosts.
    pub fn gather(root: &Root, agent: Option<&Agent>) -> Self {
        let elapsed_ns = u64::try_from(root.figures.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut latencies: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        let mut hosts = Vec::new();
        for (index, host) in root.hosts.iter().enumerate() {
            let (mut cpu_user_ns, mut cpu_system_ns) = if index == 0 { cpu::process_times_ns() } else { (0, 0) };
            let member = index.checked_sub(1).and_then(|index| root.members().get(index));
            if let Some(figures) = member.and_then(|member| member.figures()) {
                (cpu_user_ns, cpu_system_ns) = (figures.user_ns, figures.system_ns);
                for (number, count, total_ns) in figures.calls {
                    let entry = latencies.entry(number).or_default();
                    entry.0 += count;
                    entry.1 += total_ns;
                }
            }
            let (name, threads) = (host.name.clone(), root.figures.threads(index));
            let (counters, histograms) = (Vec::new(), Histograms::new());
            hosts.push(HostReport { name, threads, cpu_user_ns, cpu_system_ns, counters, histograms });
        }
        // Without its agent a job has no page figures; everything else is still true.
        for statistics in agent.map_or(Ok(Vec::new()), Agent::statistics).unwrap_or_default() {
            if let Some(host) = hosts.iter_mut().find(|host| host.name == statistics.host) {
                host.histograms = decode(&statistics);
                host.counters = statistics.counters;
            }
        }
        Self { elapsed_ns, hosts, calls: name_calls(&root.figures, &latencies) }
    }

    /// The figures as one JSON object.
    pub fn to_json(&self) -> String {
        let hosts: Vec<Value> = self.hosts.iter().map(HostReport::to_json).collect();
        let calls: Map<String, Value> = self.calls.iter().map(|call| (call.name.to_owned(), json!(call.count))).collect();
        let means: Map<String, Value> =
            self.calls.iter().map(|call| (call.name.to_owned(), json!(call.latency_ns_mean))).collect();
        let all = json!({"elapsed_ns": self.elapsed_ns, "hosts": hosts, "calls": calls, "call_latency_ns_mean": means});
        format!("{all:#}\n")
    }

    /// One histogram of all hosts for each name that `wanted` accepts.
    fn merged(&self, wanted: impl Fn(&str) -> Option<String>) -> Histograms {
        let mut merged = Histograms::new();
        for (name, samples) in self.hosts.iter().flat_map(|host| &host.histograms) {
            let Some(name) = wanted(name) else { continue };
            match merged.get_mut(&name) {
                // Histograms of one release have one shape; another release's is left out.
                Some(all) => all.add(samples).unwrap_or(()),
                None => {
                    merged.insert(name, samples.clone());
                }
            }
        }
        merged
    }
}

impl HostReport {
    fn to_json(&self) -> Value {
        let counters: Map<String, Value> = self.counters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let histograms: Map<String, Value> =
            self.histograms.iter().map(|(name, samples)| (name.clone(), summary(samples))).collect();
        json!({
            "host": self.name,
            "threads": self.threads,
            "cpu_user_ns": self.cpu_user_ns,
            "cpu_system_ns": self.cpu_system_ns,
            "counters": counters,
            "histograms": histograms,
        })
    }
}

/// How long threads of that host have waited for pages of other hosts, all together, nanoseconds.
pub fn stalled_ns(statistics: &HostStatistics) -> f64 {
    let faults = decode(statistics).into_iter().filter(|(name, _)| name.starts_with(REMOTE_FAULTS));
    faults.map(|(_, samples)| samples.mean() * samples.len() as f64).sum()
}

fn decode(statistics: &HostStatistics) -> Histograms {
    let mut deserializer = Deserializer::new();
    let decoded = statistics.histograms.iter().filter_map(|(name, bytes)| {
        let samples = deserializer.deserialize::<u64, _>(&mut bytes.as_slice()).ok()?;
        Some((name.clone(), samples))
    });
    decoded.collect()
}

fn name_calls(figures: &Figures, latencies: &BTreeMap<u32, (u64, u64)>) -> Vec<CallReport> {
    let mut named = Vec::new();
    for (number, count) in figures.calls.iter().enumerate() {
        let count = count.load(Ordering::Relaxed);
        if count > 0 {
            let (measured, total_ns) = latencies.get(&(number as u32)).copied().unwrap_or_default();
            let latency_ns_mean = total_ns.checked_div(measured).unwrap_or(0);
            named.push(CallReport { name: calls::name(number as u64), count, latency_ns_mean });
        }
    }
    named.sort_by_key(|call| std::cmp::Reverse(call.count));
    named
}

fn summary(samples: &Samples<u64>) -> Value {
    json!({
        "count": samples.len(),
        "p50_ns": samples.value_at_quantile(0.5),
        "p99_ns": samples.value_at_quantile(0.99),
        "max_ns": samples.max(),
        "buckets": buckets(samples, 8).into_iter().map(|(upper_ns, count)| json!([upper_ns, count])).collect::<Vec<_>>(),
    })
}

/// Counts per part of a doubling of the latency: upper bound in nanoseconds, how many. Empty ones are left out.
fn buckets(samples: &Samples<u64>, parts: u64) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut lower = 0;
    let bounds = (0..DOUBLINGS_MAX).flat_map(|doubling| {
        let first = BUCKET_NS_MIN << doubling;
        (0..parts).map(move |part| first + first * part / parts)
    });
    for upper in bounds.chain([u64::MAX]) {
        let count = samples.count_between(lower, upper - 1);
        if count > 0 {
            found.push((upper.min(samples.max().saturating_add(1)).max(lower + 1), count));
        }
        lower = upper;
        if upper > samples.max() {
            break;
        }
    }
    found
}

fn microseconds(ns: u64) -> String {
    format!("{:.1} us", ns as f64 / 1e3)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "-- dvm-exec: {:.2} s", self.elapsed_ns as f64 / 1e9)?;
        for host in &self.hosts {
            let (user, system) = (host.cpu_user_ns as f64 / 1e9, host.cpu_system_ns as f64 / 1e9);
            writeln!(f, "host {:<12} threads {:>4}  cpu {user:.2} s user {system:.2} s system", host.name, host.threads)?;
            for (name, value) in host.counters.iter().filter(|(_, value)| *value > 0) {
                writeln!(f, "     {name:<30} {value:>12}")?;
            }
        }
        if !self.calls.is_empty() {
            writeln!(f, "delegated calls                count   mean round trip")?;
        }
        for call in &self.calls {
            writeln!(f, "     {:<22} {:>8}   {:>12}", call.name, call.count, microseconds(call.latency_ns_mean))?;
        }
        let is_remote = |name: &str| name.starts_with(REMOTE_FAULTS);
        let remote = self.merged(|name| is_remote(name).then(|| "remote faults".to_owned()));
        for (name, samples) in remote.iter().chain(&self.merged(|name| Some(name.to_owned()))) {
            let at = |quantile| microseconds(samples.value_at_quantile(quantile));
            let (count, p50, p99, max) = (samples.len(), at(0.5), at(0.99), microseconds(samples.max()));
            writeln!(f, "{name:<26} count {count:>8}  p50 {p50:>11}  p99 {p99:>11}  max {max:>11}")?;
        }
        remote.values().try_for_each(|samples| draw(f, samples))
    }
}

fn draw(f: &mut fmt::Formatter<'_>, samples: &Samples<u64>) -> fmt::Result {
    let buckets = buckets(samples, 1);
    let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    writeln!(f, "remote faults by latency:")?;
    for (upper_ns, count) in buckets {
        let bar = "#".repeat((count * BAR_WIDTH).div_ceil(most) as usize);
        writeln!(f, "  < {:>12} {count:>8} {bar}", microseconds(upper_ns))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_every_sample() {
        let mut samples = Samples::<u64>::new(3).unwrap();
        for value in [0, 900, 1_500, 40_000, 41_000, 5_000_000, u64::MAX / 4] {
            samples.record(value).unwrap();
        }
        for parts in [1, 4, 8] {
            let found = buckets(&samples, parts);
            assert_eq!(found.iter().map(|(_, count)| count).sum::<u64>(), samples.len());
            assert!(found.is_sorted_by(|one, two| one.0 < two.0), "{found:?}");
        }
    }
}
