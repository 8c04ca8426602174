//! The simulator in `cargo test`: some seeds, every seed that once failed, every planted bug, and determinism.
//!
//! Owns the choice of seeds. `cargo xtask sim` runs many more.

use dvm_tests::sim::verdicts::Verdicts;
use dvm_tests::sim::{FastMode, Plan, Sabotage, run};
use std::thread;

const SEEDS: u64 = 200;
const HUNT_SEEDS: u64 = 400;

fn check(seeds: &[u64], mode: FastMode) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for chunk in seeds.chunks(seeds.len().div_ceil(cores)) {
            scope.spawn(move || {
                for seed in chunk {
                    if let Err(failure) = run(&Plan::of(*seed, None).with_fast(mode), None, false) {
                        panic!("cargo xtask sim --seed {seed:#x} (fast path: {mode:?}): {}", failure.reason);
                    }
                }
            });
        }
    });
}

#[test]
fn seeds_pass() {
    check(&(0..SEEDS).collect::<Vec<_>>(), FastMode::Mixed);
}

/// The fast path makes a run faster, never different: what needs it, or cannot bear it, is a bug.
#[test]
fn seeds_pass_with_and_without_the_fast_path() {
    let seeds: Vec<u64> = (SEEDS..SEEDS * 3 / 2).collect();
    check(&seeds, FastMode::On);
    check(&seeds, FastMode::Off);
}

/// Counters that stay zero in runs whose nodes are sound and whose frames are whole.
const NEVER: [&str; 3] = ["dropped_nonsense", "dropped_full", "dropped_stranger"];

#[test]
fn every_path_of_the_protocol_is_walked() {
    let names: Vec<&str> = dsm_proto::Counters::default().iter().map(|(name, _)| name).collect();
    let mut sums = vec![0; names.len()];
    let mut verdicts = Verdicts::default();
    for seed in 0..SEEDS / 2 {
        let outcome = run(&Plan::of(seed, None), None, false).expect("the seed passes");
        verdicts.merge(&outcome.verdicts);
        sums.iter_mut().zip(&outcome.counters).for_each(|(sum, value)| *sum += value);
    }
    let unwalked: Vec<&str> =
        names.into_iter().zip(&sums).filter(|(name, sum)| **sum == 0 && !NEVER.contains(name)).map(|(name, _)| name).collect();
    assert!(unwalked.is_empty(), "no seed reaches {unwalked:?}");
    assert!(verdicts.unwalked().is_empty(), "no program comes to {:?}", verdicts.unwalked());
}

/// Of several pages asked for at once each comes, or home says that it does not: hardly one is waited for in vain.
#[test]
fn pages_of_a_batch_are_not_waited_for_in_vain() {
    let index = dsm_proto::Counters::default().iter().position(|(name, _)| name == "requests_again").expect("there is one");
    let (mut again, mut accesses) = (0, 0);
    for seed in 0..30 {
        let outcome = run(&Plan::scanning(seed), None, false).expect("the seed passes");
        again += outcome.counters[index];
        accesses += outcome.accesses;
    }
    assert!(again * 100 < accesses, "{again} requests sent again for {accesses} accesses");
}

#[test]
fn seeds_that_failed_once_pass() {
    let text = include_str!("../regressions/sim-seeds.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let seeds: Vec<u64> = lines
        .map(|line| {
            let word = line.split_whitespace().next().expect("a line begins with a seed");
            u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("a seed is hexadecimal")
        })
        .collect();
    for mode in [FastMode::Mixed, FastMode::On, FastMode::Off] {
        check(&seeds, mode);
    }
}

#[test]
fn every_planted_bug_is_caught() {
    for sabotage in Sabotage::all() {
        let caught = (0..HUNT_SEEDS).any(|seed| run(&Plan::of(seed, None), Some(sabotage), false).is_err());
        assert!(caught, "{sabotage} was not caught by {HUNT_SEEDS} seeds");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 4, 5, 6] {
        let outcomes = [0, 1].map(|_| run(&Plan::of(seed, None), None, false).expect("the seed passes"));
        assert_eq!(outcomes[0], outcomes[1]);
    }
    let hashes: Vec<u64> =
        (10..14).map(|seed| run(&Plan::of(seed, None), None, false).expect("the seed passes").trace_hash).collect();
    assert!(hashes.windows(2).all(|pair| pair[0] != pair[1]));
}
