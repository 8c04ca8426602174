//! The programs that come with the crate, and what they must print.
//!
//! Owns expected results, computed otherwise where they are not known. Must not know the machine's inside.

use dvm_disa::asm::assemble;
use dvm_disa::machine::{Machine, Report, Settings};

fn run(source: &str, settings: Settings) -> Report {
    let object = assemble(source, "t.disa").unwrap_or_else(|errors| panic!("{errors}"));
    Machine::new(&object, settings).expect("the assembler verified it").run().clone()
}

fn printed(source: &str, settings: Settings) -> String {
    let report = run(source, settings);
    assert_eq!((report.exit_status(), &report.failures[..]), (0, &[][..]), "{:?}", report.statistics);
    String::from_utf8(report.output).expect("numbers are text")
}

fn seeds() -> impl Iterator<Item = Settings> {
    let slots = [1, 2, 4, 8];
    (0..20).map(move |seed| Settings {
        seed,
        slots: slots[seed as usize % 4],
        losses_percent: seed % 3 * 10,
        ..Settings::default()
    })
}

const TREESUM: &str = include_str!("../programs/treesum.disa");
const PRIMES: &str = include_str!("../programs/primes.disa");
const BANK: &str = include_str!("../programs/bank.disa");
const WRITE_SKEW: &str = include_str!("../programs/write-skew.disa");
const STORM: &str = include_str!("../programs/storm.disa");
const KMEANS: &str = include_str!("../programs/kmeans.disa");

#[test]
fn treesum_of_20480() {
    // rule: P1
    assert_eq!(printed(TREESUM, Settings::default()), "209725440\n");
}

#[test]
fn treesum_in_every_order() {
    let small = TREESUM.replace(".equ PAIRS, 10240", ".equ PAIRS, 32");
    seeds().for_each(|settings| assert_eq!(printed(&small, settings), "2080\n"));
}

#[test]
fn primes() {
    // rule: P1
    let small = PRIMES.replace(".equ CHUNKS, 200", ".equ CHUNKS, 10").replace(".equ CHUNK, 100000", ".equ CHUNK, 1000");
    seeds().take(4).for_each(|settings| assert_eq!(printed(&small, settings), "1229\n"));
}

#[test]
fn money_is_conserved() {
    // rule: P1, S3, L11
    let mut conflicts = 0;
    for settings in seeds() {
        let report = run(BANK, settings.clone());
        assert_eq!(String::from_utf8_lossy(&report.output), "64000\n", "seed {}", settings.seed);
        assert_eq!(report.exit_status(), 0);
        conflicts += report.statistics.conflicts;
    }
    assert!(conflicts > 1000, "the test needs conflicts: {conflicts}");
}

#[test]
fn write_skew_is_allowed_and_refused() {
    // rule: P1, S6
    let left = |source: &str| -> Vec<String> { seeds().map(|settings| printed(source, settings)).collect() };
    let allowed = left(WRITE_SKEW);
    assert!(allowed.iter().any(|sum| sum == "0\n") && allowed.iter().any(|sum| sum == "1\n"), "{allowed:?}");
    let refused = left(&format!(".serializable\n{WRITE_SKEW}"));
    assert!(refused.iter().all(|sum| sum == "1\n"), "{refused:?}");
}

#[test]
fn a_storm_of_watchers() {
    // rule: P1, S11
    assert_eq!(printed(STORM, Settings::default()), "10240\n");
    let small = STORM.replace(".equ WATCHERS, 10240", ".equ WATCHERS, 600");
    seeds().take(4).for_each(|settings| assert_eq!(printed(&small, settings), "600\n"));
}

/// The same k-means, in one thread and plain loops.
fn kmeans() -> String {
    let mut x = 1u64;
    let mut next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        x >> 48
    };
    let points: Vec<[u64; 2]> = (0..8 * 64).map(|_| [next(), next()]).collect();
    let mut means = points[..4].to_vec();
    for _ in 0..6 {
        let mut sums = [[0; 3]; 4];
        for point in &points {
            let distance = |mean: &[u64; 2]| mean.iter().zip(point).map(|(a, b)| a.abs_diff(*b).pow(2)).sum::<u64>();
            let nearest = (0..4).min_by_key(|index| distance(&means[*index])).expect("there are four");
            let sum = &mut sums[nearest];
            *sum = [sum[0] + point[0], sum[1] + point[1], sum[2] + 1];
        }
        for (mean, [a, b, count]) in means.iter_mut().zip(sums) {
            *mean = [a.checked_div(count).unwrap_or(mean[0]), b.checked_div(count).unwrap_or(mean[1])];
        }
    }
    let bytes = means.as_flattened().iter().flat_map(|number| number.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{}\n", hash as i64)
}

#[test]
fn kmeans_as_in_plain_loops() {
    // rule: P1
    let expected = kmeans();
    seeds().for_each(|settings| assert_eq!(printed(KMEANS, settings), expected));
}

#[test]
fn one_seed_one_course() {
    // rule: X3
    let settings = || Settings { losses_percent: 20, ..Settings::default() };
    assert_eq!(run(BANK, settings()), run(BANK, settings()));
    let other = run(BANK, Settings { seed: 2, ..settings() });
    assert_ne!(run(BANK, settings()).statistics, other.statistics);
}
