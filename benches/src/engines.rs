//! What the engines of DISA make of loops, beside gcc -O2 on the same ones.
//!
//! Owns the loops and their bars. Must not know the engines. All run on one core, as processes from start to end.

use crate::bed::Bed;
use crate::figure::{Bar, Figure, Samples, seconds};
use crate::list::{Bench, LONG_ROUNDS, ONE_CORE, ROUNDS, in_turns};
use anyhow::{Context, Result, ensure};
use dvm_hosts::output_within;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// All of them.
pub const BENCHES: [Bench; 2] = [Bench { name: "engine-primes", run: primes }, Bench { name: "engine-assign", run: assign }];

const PRIMES: &str = include_str!("../programs/engine-primes.disa");
const ASSIGN: &str = include_str!("../programs/engine-assign.disa");
const NATIVE: &str = include_str!("../programs/engines.c");
const PRIMES_JIT_MAX: f64 = 1.10;
const ASSIGN_JIT_MAX: f64 = 1.5;
const INTERPRETER_MAX: f64 = 25.0;
const COMPILE_LATEST: Duration = Duration::from_secs(60);

fn primes(bed: &mut Bed) -> Result<Vec<Figure>> {
    figures(bed, "primes", PRIMES, PRIMES_JIT_MAX)
}

fn assign(bed: &mut Bed) -> Result<Vec<Figure>> {
    figures(bed, "assign", ASSIGN, ASSIGN_JIT_MAX)
}

fn figures(bed: &mut Bed, name: &str, program: &str, most: f64) -> Result<Vec<Figure>> {
    let source = bed.hosts.scratch()?.join(format!("{name}.disa"));
    fs::write(&source, program)?;
    let native = native(bed)?;
    let source = source.display().to_string();
    let gcc = |bed: &Bed| bed.native(ONE_CORE, &native, &[name.to_owned()]);
    let engine = |bed: &Bed, tier: &str| {
        let arguments = ["disa", "run", "--local", "--fuel", "1000000000000", "--tier", tier, &source].map(str::to_owned);
        bed.native(ONE_CORE, &bed.executor(), &arguments)
    };
    let together = |bed: &Bed, tier: &str| -> Result<[Samples; 2]> {
        let ((ours, found), (floor, expected)) = (engine(bed, tier)?, gcc(bed)?);
        ensure!(found == expected, "tier {tier} printed {found}, gcc's program {expected}");
        Ok([Samples::of(ours), Samples::of(floor)])
    };
    let [jit, floor] = in_turns(bed, 3 * ROUNDS, |bed| together(bed, "1"))?;
    let [interpreter, other] = in_turns(bed, LONG_ROUNDS, |bed| together(bed, "0"))?;
    let figure = |what: &str, ours: &Samples, floor: &Samples, most| {
        let detail = format!("{ours}; gcc -O2, scalar: {floor}");
        Figure::new(&format!("{name}: {what} (s)"), seconds(ours.median()), seconds(floor.median()), Bar::AtMost(most), detail)
    };
    Ok(vec![figure("machine code", &jit, &floor, most), figure("interpreter", &interpreter, &other, INTERPRETER_MAX)])
}

/// The loops as gcc translates them.
fn native(bed: &Bed) -> Result<PathBuf> {
    let (source, program) = (bed.program("engines.c"), bed.program("engines"));
    fs::write(&source, NATIVE)?;
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-fno-tree-vectorize", "-o"]).args([&program, &source]);
    let output = output_within(&mut gcc, COMPILE_LATEST).context("cannot run gcc")?;
    ensure!(output.status.success(), "gcc engines.c: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(program)
}
