//! The simulator of runners passes its seeds, and its checkers can fail.
//!
//! Owns how many seeds are enough here; `cargo xtask sim --runners` runs more. Must not judge a run.

use dvm_runners::plant::Plant;
use dvm_tests::sim::runners::{Plan, run};

/// Seeds within which every planted bug shows.
const HUNT_SEEDS: u64 = 1000;

#[test]
fn seeds_pass() {
    for seed in 0..60 {
        if let Err(failure) = run(&Plan::of(seed, None), None, false) {
            panic!("cargo xtask sim --runners --seed {seed:#x}: {}", failure.reason);
        }
    }
}

#[test]
fn planted_bugs_are_caught() {
    for plant in Plant::ALL {
        let is_caught = |seed: u64| run(&Plan::of(seed, None), Some(plant), false).is_err();
        assert!((0..HUNT_SEEDS).any(is_caught), "{plant:?} was not caught by {HUNT_SEEDS} seeds");
    }
}

#[test]
fn a_seed_is_a_run() {
    let trail = |_| format!("{:?}", run(&Plan::of(7, None), None, false));
    assert_eq!(trail(0), trail(1));
}
