//! What the demo prints at its end.
//!
//! Owns the layout. Must not compute beyond adding up.

use super::chart;
use dvm_hosts::{Finished, Latency, LocalHosts, Statistics};
use std::time::Duration;

/// Columns of the table of hosts: what stands above, and the counters added up below.
const COLUMNS: [(&str, &[&str]); 4] =
    [("faults", &["kernel_faults"]), ("pages in", &["pages_in"]), ("pages out", &["pages_out"]), ("frames out", &["frames_out"])];
/// Most system calls listed.
const CALLS_MAX: usize = 12;

/// All that is shown.
pub struct Run<'a> {
    /// The command line.
    pub what: String,
    /// The hosts it ran on.
    pub hosts: &'a LocalHosts,
    /// Bytes in and out.
    pub sizes: (u64, u64),
    /// Time of the native run.
    pub native: Duration,
    /// The run over the hosts.
    pub finished: &'a Finished,
    /// Its own account.
    pub statistics: &'a Statistics,
}

/// Prints it to standard output.
pub fn print(run: &Run<'_>) {
    let (input, output) = run.sizes;
    println!("\n{} over {} hosts, one address space", run.what, run.hosts.hosts().len());
    println!(
        "  input {:.1} MiB, output {:.1} MiB: equal to the native run's, byte for byte",
        mebibytes(input),
        mebibytes(output)
    );
    println!(
        "  native {:.2} s, over the hosts {:.2} s (they share this machine's {} processors)\n",
        run.native.as_secs_f64(),
        run.finished.elapsed.as_secs_f64(),
        crate::hosts::processors()
    );
    hosts(run);
    calls(run.statistics);
    latencies(run.statistics);
    let remote = run.statistics.remote_faults();
    println!("\n  remote faults by latency");
    for line in chart::lines(&remote.buckets) {
        println!("  {line}");
    }
}

fn hosts(run: &Run<'_>) {
    print!("  {:<8}{:>9}{:>10}", "host", "threads", "CPU s");
    for (title, _) in COLUMNS {
        print!("{title:>14}");
    }
    println!();
    for (index, host) in run.hosts.hosts().iter().enumerate() {
        let figures = run.statistics.hosts.iter().find(|figures| figures.host == host.name);
        let cpu = run.finished.cpu.get(index).copied().unwrap_or_default();
        print!("  {:<8}{:>9}{:>10.2}", host.name, figures.map_or(0, |figures| figures.threads), cpu.as_secs_f64());
        for (_, names) in COLUMNS {
            let sum: u64 = names.iter().filter_map(|name| figures?.counters.get(*name)).sum();
            print!("{sum:>14}");
        }
        println!();
    }
    print!("  {:<27}", "all");
    for (_, names) in COLUMNS {
        print!("{:>14}", names.iter().map(|name| run.statistics.counter(name)).sum::<u64>());
    }
    println!();
}

fn calls(statistics: &Statistics) {
    let mut calls: Vec<(&String, &u64)> = statistics.calls.iter().collect();
    calls.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
    let total: u64 = statistics.calls.values().sum();
    let list: Vec<String> = calls.iter().take(CALLS_MAX).map(|(name, count)| format!("{name} {count}")).collect();
    let more = if calls.len() > CALLS_MAX { ", ..." } else { "" };
    println!("\n  {total} delegated calls: {}{more}", list.join(", "));
}

fn latencies(statistics: &Statistics) {
    println!("\n  {:<26}{:>10}{:>12}{:>12}{:>12}", "latency", "samples", "p50", "p99", "max");
    row("remote faults", &statistics.remote_faults());
    for name in statistics.latency_names() {
        row(name.trim_end_matches("_ns"), &statistics.latency(&name));
    }
}

fn row(name: &str, latency: &Latency) {
    println!(
        "  {name:<26}{:>10}{:>12}{:>12}{:>12}",
        latency.count,
        chart::duration(latency.p50_ns),
        chart::duration(latency.p99_ns),
        chart::duration(latency.max_ns)
    );
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
