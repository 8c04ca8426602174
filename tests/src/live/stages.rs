//! Stages of a fault that only the kernel sees, measured on request.
//!
//! Owns what `--stages` must bring, and that nothing comes without it. Must not know how it is measured.

use super::bed::Bed;
use super::case::{Case, Lacking, Need};
use anyhow::{Context, Result, ensure};
use dvm_hosts::Statistics;

const DELIVERED: &str = "stage_delivered_ns";
const RESUMED: &str = "stage_resumed_ns";
/// Half of the faults reach the agent, and half of the threads run again, in less.
const P50_NS_MAX: u64 = 10_000_000;

/// One case on two hosts.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![Case::new("stages", 2, stages).needs(&[Need::Program("gcc")])]
}

fn stages(bed: &mut Bed<'_>) -> Result<String> {
    let with = statistics(bed, &["--stages"])?;
    let refused = with.counter("stages_refused");
    if refused > 0 {
        let logs: String = (0..2).filter_map(|host| bed.hosts.log_tail(host, 8).ok()).collect();
        let line =
            logs.lines().rfind(|line| line.contains("without the stages")).context("no agent's log says why it refused")?;
        return Err(Lacking(format!("perf events are refused on {refused} of 2 hosts: {line}")).into());
    }
    let mut said = Vec::new();
    for name in [DELIVERED, RESUMED] {
        for host in &with.hosts {
            let count = host.histograms.get(name).map_or(0, |latency| latency.count);
            ensure!(count > 0, "{}: no {name}; its counters: {:?}", host.host, host.counters);
        }
        let latency = with.latency(name);
        ensure!(latency.p50_ns < P50_NS_MAX, "{name}: p50 {} ns, less than {P50_NS_MAX} expected", latency.p50_ns);
        said.push(format!("{name} {} p50 {:.1} us", latency.count, latency.p50_ns as f64 / 1e3));
    }
    for name in ["stage_samples_lost", "stage_faults_unmatched", "stage_resumes_unmatched"] {
        said.push(format!("{name} {}", with.counter(name)));
    }
    let without = statistics(bed, &[])?;
    for name in [DELIVERED, RESUMED] {
        ensure!(without.latency(name).count == 0, "{name} was measured though nobody asked");
    }
    Ok(said.join(", "))
}

fn statistics(bed: &mut Bed<'_>, options: &[&str]) -> Result<Statistics> {
    let job = bed.job("stress", &["6"])?.options(["--place", "rr"]).options(options.iter().copied());
    bed.succeed(&job)?.statistics.context("dvm-exec wrote no figures (--stat-json)")
}
