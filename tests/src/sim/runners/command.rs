//! Seeds of runners, one after the other on every core, and the hunt for planted bugs.
//!
//! Owns what is printed about them. Must not judge a run.

use super::{Outcome, Plan, run};
use anyhow::{Result, bail};
use dvm_runners::plant::Plant;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// The planted bug of this name.
///
/// # Errors
/// There is none.
pub fn plant(name: &str) -> Result<Plant> {
    let known = Plant::ALL.map(|plant| format!("{plant:?}"));
    match Plant::ALL.into_iter().zip(&known).find(|(_, known)| known.eq_ignore_ascii_case(name)) {
        Some((plant, _)) => Ok(plant),
        None => bail!("no planted bug {name:?} for runners: use one of {}", known.join(", ")),
    }
}

/// Runs one seed and prints its last events.
///
/// # Errors
/// What a checker found.
pub fn replay(seed: u64, nodes: Option<u64>, planted: Option<Plant>, trail: usize) -> Result<()> {
    let plan = Plan::of(seed, nodes);
    eprintln!("{plan:?}");
    match run(&plan, planted, true) {
        Ok(outcome) => {
            println!("{outcome:?}");
            println!("sim: 1 seeds of runners passed");
            Ok(())
        }
        Err(failure) => {
            let skipped = failure.trail.len().saturating_sub(trail);
            failure.trail.iter().skip(skipped).for_each(|line| println!("{line}"));
            bail!("seed {seed:#x} at {} ns: {}", failure.at_ns, failure.reason)
        }
    }
}

/// Runs seeds on every core.
///
/// # Errors
/// One of them failed.
pub fn seeds(seeds: Range<u64>, nodes: Option<u64>) -> Result<()> {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(0);
    let sum: Mutex<Outcome> = Mutex::default();
    let begun = Instant::now();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match run(&Plan::of(seed, nodes), None, false) {
                        Ok(outcome) => add(&mut sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner), &outcome),
                        Err(failure) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            let nodes = nodes.map_or(String::new(), |nodes| format!(" --nodes {nodes}"));
                            eprintln!("seed {seed:#x}: {}\n  cargo xtask sim --runners --seed {seed:#x}{nodes}", failure.reason);
                        }
                    }
                }
            });
        }
    });
    let Outcome { judged, statistics, losses, successions, stranded, versions } =
        sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    eprintln!(
        "{judged} ends of runners judged in {:.1} s: {} commits, {} conflicts, {} instances, {losses} hosts lost, {} runs lost, \
         {successions} roots took over, {stranded} runs stranded, at most {versions} versions kept",
        begun.elapsed().as_secs_f64(),
        statistics.committed,
        statistics.conflicts,
        statistics.fired,
        statistics.lost
    );
    match failed.into_inner() {
        0 => {
            println!("sim: {} seeds of runners passed", seeds.end - seeds.start);
            Ok(())
        }
        count => bail!("{count} of {} seeds of runners failed", seeds.end - seeds.start),
    }
}

fn add(sum: &mut Outcome, one: &Outcome) {
    sum.judged += one.judged;
    sum.losses += one.losses;
    sum.successions += one.successions;
    sum.stranded += one.stranded;
    sum.versions = sum.versions.max(one.versions);
    sum.statistics.committed += one.statistics.committed;
    sum.statistics.conflicts += one.statistics.conflicts;
    sum.statistics.fired += one.statistics.fired;
    sum.statistics.lost += one.statistics.lost;
}

/// Runs seeds until a checker catches the planted bug.
///
/// # Errors
/// None does.
pub fn hunt(seeds: Range<u64>, nodes: Option<u64>, planted: Plant) -> Result<()> {
    let count = seeds.end - seeds.start;
    for seed in seeds {
        if let Err(failure) = run(&Plan::of(seed, nodes), Some(planted), false) {
            println!("sim: {planted:?} caught by seed {seed:#x}: {}", failure.reason);
            return Ok(());
        }
    }
    bail!("{planted:?} not caught by {count} seeds")
}
