//! What it costs the fault path that all hosts' histograms are collected while it works.
//!
//! Owns the figure. Must not know what collecting does.

use crate::bed::Bed;
use crate::figure::{Bar, Figure, Samples};
use crate::list::{Bench, ROUNDS, in_turns, latencies, on_two_cores, p50};
use anyhow::Result;

/// Turns: a single one is off by some percent, which is more than the bar.
const TURNS: usize = 16 * ROUNDS;

/// The figure.
pub const BENCHES: [Bench; 1] = [Bench { name: "collecting", run: collecting }];

/// With and without in turns, and the other way round in every other turn: what changes slowly falls on both alike.
fn collecting(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_two_cores(bed)?;
    let mut is_first = false;
    let [with, without] = in_turns(bed, TURNS, |bed| {
        is_first = !is_first;
        let collected = |bed: &mut Bed| -> Result<Samples> {
            let _collector = bed.collect()?;
            latencies(bed, "read")
        };
        if is_first {
            let with = collected(bed)?;
            Ok([with, latencies(bed, "read")?])
        } else {
            let without = latencies(bed, "read")?;
            Ok([collected(bed)?, without])
        }
    })?;
    let detail = format!("collected from 3 hosts each second: {with}; not collected: {without}");
    Ok(vec![Figure::new("remote read fault p50 while collecting (us)", p50(&with), p50(&without), Bar::AtMost(1.02), detail)])
}
