//! Runs seeds of the simulator on every core.
//!
//! Owns the command line and the last line. Must not judge a run.

use anyhow::{Result, bail};
use clap::Parser;
use dsm_proto::Counters;
use dvm_tests::sim::runners::command;
use dvm_tests::sim::verdicts::Verdicts;
use dvm_tests::sim::{Failure, FastMode, Plan, Sabotage, run};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// Bytes of one page's directory word and sharers.
const ENTRY_BYTES: u64 = 16;
/// Bytes of one page's local word.
const LOCAL_BYTES: u64 = 8;

/// Simulates the coherence protocol from seeds, with a hostile network, slow pagers and crashing hosts.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Flags {
    /// Seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 0, value_parser = number)]
    start: u64,
    /// Run this seed alone and print its last events.
    #[arg(long, value_parser = number)]
    seed: Option<u64>,
    /// Hosts in every run, 2 to 8 by chance if not given.
    #[arg(long)]
    nodes: Option<u64>,
    /// Hosts with the kernel's fast path.
    #[arg(long, value_enum, default_value = "mixed")]
    fast: FastMode,
    /// Plant this bug; the run succeeds when it is caught.
    #[arg(long)]
    plant: Option<String>,
    /// Measure how messages and directory grow with the cluster instead.
    #[arg(long)]
    scale: bool,
    /// Simulate runners of DISA instead of the coherence protocol.
    #[arg(long)]
    runners: bool,
    /// Print what all nodes counted together, and what their kernel programs did.
    #[arg(long)]
    counters: bool,
    /// Events printed for --seed.
    #[arg(long, default_value_t = 60)]
    trail: usize,
}

impl Flags {
    fn plan(&self, seed: u64) -> Plan {
        Plan::of(seed, self.nodes).with_fast(self.fast)
    }

    /// What makes another run the same, besides its seed.
    fn again(&self) -> String {
        let nodes = self.nodes.map_or(String::new(), |nodes| format!(" --nodes {nodes}"));
        match self.fast {
            FastMode::Mixed => nodes,
            FastMode::On => nodes + " --fast on",
            FastMode::Off => nodes + " --fast off",
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("{text}: {error}"))
}

fn main() -> Result<()> {
    let flags = Flags::parse();
    if flags.scale {
        return scale();
    }
    if flags.runners {
        return runners(&flags);
    }
    let sabotage = flags.plant.as_deref().map(sabotage).transpose()?;
    match (flags.seed, sabotage) {
        (Some(seed), sabotage) => replay(&flags, seed, sabotage),
        (None, None) => run_seeds(&flags),
        (None, Some(sabotage)) => hunt(&flags, sabotage),
    }
}

fn runners(flags: &Flags) -> Result<()> {
    let planted = flags.plant.as_deref().map(command::plant).transpose()?;
    let seeds = flags.start..flags.start + flags.seeds;
    match (flags.seed, planted) {
        (Some(seed), planted) => command::replay(seed, flags.nodes, planted, flags.trail),
        (None, None) => command::seeds(seeds, flags.nodes),
        (None, Some(planted)) => command::hunt(seeds, flags.nodes, planted),
    }
}

fn sabotage(name: &str) -> Result<Sabotage> {
    let known: Vec<Sabotage> = Sabotage::all().collect();
    match known.iter().find(|sabotage| sabotage.to_string().eq_ignore_ascii_case(name)) {
        Some(sabotage) => Ok(*sabotage),
        None => {
            let names: Vec<String> = known.iter().map(ToString::to_string).collect();
            bail!("no planted bug {name:?}: use one of {}", names.join(", "))
        }
    }
}

fn replay(flags: &Flags, seed: u64, sabotage: Option<Sabotage>) -> Result<()> {
    let plan = flags.plan(seed);
    eprintln!("{plan:?}");
    match run(&plan, sabotage, true) {
        Ok(outcome) => {
            println!("{outcome:?}");
            println!("sim: 1 seeds passed");
            Ok(())
        }
        Err(failure) => {
            let skipped = failure.trail.len().saturating_sub(flags.trail);
            failure.trail.iter().skip(skipped).for_each(|line| println!("{line}"));
            bail!("seed {seed:#x} at {} ns: {}", failure.at_ns, failure.reason)
        }
    }
}

fn run_seeds(flags: &Flags) -> Result<()> {
    let next = AtomicU64::new(flags.start);
    let end = flags.start + flags.seeds;
    let failed: Mutex<Vec<(u64, Failure)>> = Mutex::new(Vec::new());
    let accesses = AtomicU64::new(0);
    let counted: Mutex<(Vec<u64>, Verdicts)> = Mutex::default();
    let begun = Instant::now();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    match run(&flags.plan(seed), None, false) {
                        Ok(outcome) => {
                            accesses.fetch_add(outcome.accesses, Ordering::Relaxed);
                            let mut counted = counted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            let len = outcome.counters.len().max(counted.0.len());
                            counted.0.resize(len, 0);
                            counted.1.merge(&outcome.verdicts);
                            counted.0.iter_mut().zip(&outcome.counters).for_each(|(sum, value)| *sum += value);
                        }
                        Err(failure) => {
                            let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            let again = flags.again();
                            eprintln!("\rseed {seed:#x}: {}\n  cargo xtask sim --seed {seed:#x}{again}", failure.reason);
                            failed.push((seed, failure));
                        }
                    }
                    progress(seed - flags.start + 1, flags.seeds);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("\r{} accesses judged in {seconds:.1} s", accesses.into_inner());
    if flags.counters {
        let (counted, verdicts) = counted.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        for ((name, _), sum) in Counters::default().iter().zip(counted) {
            println!("{name} {sum}");
        }
        verdicts.iter().for_each(|(name, count)| println!("program_{name} {count}"));
    }
    if !failed.is_empty() {
        bail!("{} of {} seeds failed", failed.len(), flags.seeds);
    }
    println!("sim: {} seeds passed", flags.seeds);
    Ok(())
}

/// A fixed pattern of sharing (every four hosts share 64 pages) in ever larger clusters.
fn scale() -> Result<()> {
    println!("{:>6} {:>10} {:>10} {:>14} {:>22}", "nodes", "accesses", "messages", "messages/access", "directory bytes/page");
    for nodes in [4, 16, 64, 256, 1024] {
        let plan = Plan::scale(nodes);
        let outcome = run(&plan, None, false).map_err(|failure| anyhow::anyhow!("{nodes} nodes: {}", failure.reason))?;
        let messages = outcome.frames as f64 / outcome.accesses as f64;
        // At home each page of a split extent has a word and its sharers, and a local word wherever the extent is used.
        let bytes = outcome.extents * ENTRY_BYTES + outcome.extents_split * LOCAL_BYTES;
        let per_page = bytes as f64 / outcome.extents as f64;
        println!("{nodes:>6} {:>10} {:>10} {messages:>14.3} {per_page:>22.1}", outcome.accesses, outcome.frames);
    }
    println!("sim: scale passed");
    Ok(())
}

/// Runs seeds until a checker catches the planted bug.
fn hunt(flags: &Flags, sabotage: Sabotage) -> Result<()> {
    for seed in flags.start..flags.start + flags.seeds {
        if let Err(failure) = run(&flags.plan(seed), Some(sabotage), false) {
            println!("sim: {sabotage} caught by seed {seed:#x}: {}", failure.reason);
            return Ok(());
        }
    }
    bail!("{sabotage} not caught by {} seeds", flags.seeds)
}

fn progress(done: u64, all: u64) {
    let mut out = std::io::stderr();
    if done.is_multiple_of(100) && out.is_terminal() {
        // A bar that cannot be drawn is no failure.
        drop(write!(out, "\rsim: {done}/{all}").and_then(|()| out.flush()));
    }
}
