//! The engines agree, and shipped programs print what they print.
//!
//! Owns how many programs a test run tries. Must not know how they are made.

use dvm_disa::asm::assemble;
use dvm_disa::machine::{Machine, Report, Settings};
use dvm_jit::Jit;
use std::process::Command;

/// Programs of one test run; `cargo xtask soak` goes on to a million.
const PROGRAMS: &str = "500";

#[test]
fn programs_by_chance_agree() {
    let fuzz = Command::new(env!("CARGO_BIN_EXE_disa-fuzz")).args(["0", PROGRAMS]).output().expect("it was built");
    assert!(fuzz.status.success(), "{}", String::from_utf8_lossy(&fuzz.stderr));
}

/// The same program on both engines.
fn both(source: &str, settings: &Settings) -> [Report; 2] {
    let object = assemble(source, "t.disa").unwrap_or_else(|errors| panic!("{errors}"));
    let translation = Jit::after(1).expect("this machine is known").load(&object.text).expect("the assembler verified it");
    let machine = || Machine::new(&object, settings.clone()).expect("the assembler verified it");
    let reports = [machine().run().clone(), machine().with_engine(&*translation).run().clone()];
    assert!(translation.units() > 0, "nothing was translated");
    reports
}

#[test]
fn programs_do_the_same_on_both_engines() {
    let primes = include_str!("../../programs/primes.disa")
        .replace(".equ CHUNKS, 200", ".equ CHUNKS, 10")
        .replace(".equ CHUNK, 100000", ".equ CHUNK, 1000");
    let treesum = include_str!("../../programs/treesum.disa").replace(".equ PAIRS, 10240", ".equ PAIRS, 64");
    let [kmeans, bank] = [include_str!("../../programs/kmeans.disa"), include_str!("../../programs/bank.disa")];
    for source in [&primes, &treesum, kmeans, bank] {
        for seed in 0..4 {
            let [one, two] = both(source, &Settings { seed, losses_percent: seed * 10, ..Settings::default() });
            assert_eq!(one.output, two.output);
            assert_eq!(format!("{:?} {:?}", one.statistics, one.failures), format!("{:?} {:?}", two.statistics, two.failures));
        }
    }
}
