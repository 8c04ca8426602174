//! What `--place auto` brings to threads that share in pairs, and costs threads that share nothing and programs as they are.
//!
//! Owns these figures. Must not know how threads are moved.

use crate::bed::{Bed, times};
use crate::figure::{Bar, Figure, Samples, seconds};
use crate::list::{Bench, LONG_ROUNDS, ONE_CORE, in_turns, on_two_cores};
use crate::work::{self, Work};
use anyhow::Result;
use dvm_hosts::Job;
use std::path::PathBuf;

/// All of them.
pub const BENCHES: [Bench; 5] = [
    Bench { name: "place-auto", run: place_auto },
    Bench { name: "place-pigz", run: |bed| never_worse(bed, |bed| work::pigz(bed, PROGRAM_THREADS, TEXT_MEBIBYTES)) },
    Bench { name: "place-xz", run: |bed| never_worse(bed, |bed| work::xz(bed, PROGRAM_THREADS, TEXT_MEBIBYTES)) },
    Bench { name: "place-povray", run: |bed| never_worse(bed, |bed| work::povray(bed, PROGRAM_THREADS, PIXELS)) },
    Bench { name: "place-stress", run: |bed| never_worse(bed, |bed| Ok(work::stress(bed, PROGRAM_THREADS))) },
];

/// Four threads besides the first: round robin over two hosts splits both pairs.
const THREADS: &str = "4";
const TURNS: &str = "10000";
const TURNS_ALONE: &str = "8000000";
const PROGRAM_THREADS: usize = 4;
const TEXT_MEBIBYTES: usize = 32;
const PIXELS: usize = 320;
const NEVER_WORSE: f64 = 0.95;

/// Speed with `auto` against `rr`, both in each round.
fn place_auto(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_two_cores(bed)?;
    let [auto, rr, alone_auto, alone_rr] = in_turns(bed, LONG_ROUNDS, |bed| {
        Ok([
            pairs(bed, "auto", &[TURNS])?,
            pairs(bed, "rr", &[TURNS])?,
            pairs(bed, "auto", &[TURNS_ALONE, "alone"])?,
            pairs(bed, "rr", &[TURNS_ALONE, "alone"])?,
        ])
    })?;
    Ok(vec![
        figure("threads sharing in pairs", &auto, &rr, 1.5),
        figure("threads sharing nothing", &alone_auto, &alone_rr, NEVER_WORSE),
    ])
}

/// A program as it is, from its start to its end.
fn never_worse(bed: &mut Bed, work: impl Fn(&Bed) -> Result<Work>) -> Result<Vec<Figure>> {
    on_two_cores(bed)?;
    let work = work(bed)?;
    let [auto, rr] = in_turns(bed, LONG_ROUNDS, |bed| {
        let mut run = |place: &str| -> Result<Samples> {
            Ok(Samples::of(bed.job(job(work.program.clone(), place).arguments(&work.arguments), ONE_CORE)?.elapsed))
        };
        Ok([run("auto")?, run("rr")?])
    })?;
    Ok(vec![figure(work.name, &auto, &rr, NEVER_WORSE)])
}

fn pairs(bed: &mut Bed, place: &str, more: &[&str]) -> Result<Samples> {
    let arguments = [THREADS].into_iter().chain(more.iter().copied());
    times(&bed.job(job(bed.program("pairs"), place).arguments(arguments), ONE_CORE)?.stderr, "all")
}

fn job(program: PathBuf, place: &str) -> Job {
    Job::new(program, "").options(["--place", place, "--hosts", "h0,h1"])
}

fn figure(name: &str, auto: &Samples, rr: &Samples, bar: f64) -> Figure {
    let rate = |times: &Samples| 1.0 / seconds(times.median());
    let detail = format!("auto: {auto}; rr: {rr}");
    Figure::new(&format!("{name}, auto against rr (runs/s)"), rate(auto), rate(rr), Bar::AtLeast(bar), detail)
}
