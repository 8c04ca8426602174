//! What `--place auto` brings to threads that share in pairs, and costs threads that share nothing.
//!
//! Owns these two figures. Must not know how threads are moved.

use crate::bed::{Bed, times};
use crate::figure::{Bar, Figure, Samples, seconds};
use crate::list::{ONE_CORE, in_turns, last_core};
use anyhow::Result;
use dvm_hosts::Job;

const ROUNDS: usize = 3;
/// Four threads besides the first: round robin over two hosts splits both pairs.
const THREADS: &str = "4";
const TURNS: &str = "10000";
const TURNS_ALONE: &str = "8000000";

/// Speed with `auto` against `rr`, both in each round.
pub fn place_auto(bed: &mut Bed) -> Result<Vec<Figure>> {
    bed.pin(0, ONE_CORE)?;
    bed.pin(1, &last_core())?;
    let [auto, rr, alone_auto, alone_rr] = in_turns(bed, ROUNDS, |bed| {
        Ok([
            run(bed, "auto", &[TURNS])?,
            run(bed, "rr", &[TURNS])?,
            run(bed, "auto", &[TURNS_ALONE, "alone"])?,
            run(bed, "rr", &[TURNS_ALONE, "alone"])?,
        ])
    })?;
    let figure = |name, auto: &Samples, rr: &Samples, bar| {
        let rate = |times: &Samples| 1.0 / seconds(times.median());
        Figure::new(name, rate(auto), rate(rr), Bar::AtLeast(bar), format!("auto: {auto}; rr: {rr}"))
    };
    Ok(vec![
        figure("threads sharing in pairs, auto against rr (runs/s)", &auto, &rr, 1.5),
        figure("threads sharing nothing, auto against rr (runs/s)", &alone_auto, &alone_rr, 0.95),
    ])
}

fn run(bed: &mut Bed, place: &str, more: &[&str]) -> Result<Samples> {
    let arguments = [THREADS].into_iter().chain(more.iter().copied());
    let job = Job::new(bed.program("pairs"), "").options(["--place", place, "--hosts", "h0,h1"]).arguments(arguments);
    times(&bed.job(job, ONE_CORE)?.stderr, "all")
}
