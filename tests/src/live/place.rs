//! `--place auto`, `--hot-pages` and `--page-allocator` on real programs.
//!
//! Owns what they must bring, and that programs do not notice it. Must not know how threads are moved.

use super::bed::{Bed, shortened};
use super::case::{Case, Need};
use anyhow::{Context, Result, ensure};
use dvm_hosts::Finished;
use std::fs;

/// Turns of a pair that take longer than several looks of `--place auto` while its threads are on two hosts.
const TURNS: &str = "15000";
/// The same for threads that make calls and hold mutexes, which are seldom disturbed.
const CALLING_TURNS: &str = "300000";

/// All of them on two hosts.
#[must_use]
pub fn cases() -> Vec<Case> {
    let gcc = [Need::Program("gcc")];
    vec![
        Case::new("place-auto-pairs", 2, pairs).needs(&gcc),
        Case::new("place-auto-alone", 2, alone).needs(&gcc),
        Case::new("place-auto-calls", 2, calls).needs(&gcc),
        Case::new("place-auto-signals", 2, signals).needs(&gcc),
        Case::new("place-auto-stress", 2, stress).needs(&gcc),
        Case::new("place-auto-gather", 2, gather).needs(&[Need::Program("sort")]),
        Case::new("hot-pages", 2, hot_pages).needs(&gcc),
        Case::new("page-allocator", 2, page_allocator).needs(&gcc),
    ]
}

/// Lines for `sort`.
const LINES: u64 = 400_000;

fn auto(bed: &mut Bed<'_>, program: &str, arguments: &[&str]) -> Result<Finished> {
    let job = bed.job(program, arguments)?.options(["--place", "auto"]);
    bed.succeed(&job)
}

fn placement(finished: &Finished) -> Result<&str> {
    finished.stderr.lines().find(|line| line.contains("placement:")).context("the job does not say what it placed")
}

/// Round robin splits every pair; afterwards both threads of each are on one host, one thread of each pair moved.
fn pairs(bed: &mut Bed<'_>) -> Result<String> {
    let finished = auto(bed, "pairs", &["4", TURNS])?;
    ensure!(finished.output().trim() == "sum 60000 failures 0", "{}", finished.output());
    let line = placement(&finished)?;
    ensure!(line.contains(": 2 moves of threads"), "{line}");
    Ok(format!("{:.1} s, {line}", finished.elapsed.as_secs_f64()))
}

fn alone(bed: &mut Bed<'_>) -> Result<String> {
    let finished = auto(bed, "pairs", &["4", "2000000", "alone"])?;
    let line = placement(&finished)?;
    ensure!(line.contains("no thread moved"), "{line}");
    Ok(line.to_owned())
}

/// Mutexes, thread-local storage and floating-point registers across calls; the program checks them itself.
fn calls(bed: &mut Bed<'_>) -> Result<String> {
    let finished = auto(bed, "pairs", &["6", CALLING_TURNS, "calls"])?;
    ensure!(finished.output().trim() == "sum 1800000 failures 0", "{}", finished.output());
    Ok(placement(&finished)?.to_owned())
}

/// Signals are queued to threads that move, out of their own code and with values in vector registers.
fn signals(bed: &mut Bed<'_>) -> Result<String> {
    let finished = auto(bed, "pairs", &["4", "4000", "signals"])?;
    ensure!(finished.output().trim() == "sum 16000 failures 0", "{} {}", finished.output(), shortened(&finished.stderr));
    let line = placement(&finished)?;
    ensure!(!line.contains("no thread moved"), "{line}");
    Ok(line.to_owned())
}

/// Threads that merge lines of one another wait more than they compute: one host is quicker.
fn gather(bed: &mut Bed<'_>) -> Result<String> {
    let lines = bed.workshop.made("lines", |path| {
        let lines = (0..LINES).map(|line| format!("{:016x}\n", line.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        Ok(fs::write(path, lines.collect::<String>())?)
    })?;
    let finished = auto(bed, "sort", &["--parallel=4", "-S", "200M", &lines.to_string_lossy()])?;
    let sorted = finished.output();
    ensure!(sorted.lines().count() as u64 == LINES && sorted.lines().is_sorted(), "the output is not sorted");
    let line = placement(&finished)?;
    ensure!(line.contains("all were on h0"), "{line}");
    Ok(format!("{:.1} s, {line}", finished.elapsed.as_secs_f64()))
}

fn stress(bed: &mut Bed<'_>) -> Result<String> {
    let finished = auto(bed, "stress", &["6"])?;
    Ok(placement(&finished)?.to_owned())
}

fn hot_pages(bed: &mut Bed<'_>) -> Result<String> {
    let job = bed.job("pairs", &["4", "300"])?.options(["--place", "rr", "--hot-pages", "4"]);
    let finished = bed.succeed(&job)?;
    let said = shortened(&finished.stderr);
    let named = finished.stderr.lines().filter(|line| line.starts_with("page 0x") && line.contains("; pages")).count();
    ensure!(named >= 2, "the variable `pages` is not named twice: {said}");
    ensure!(finished.stderr.contains("to h0 for thread") && finished.stderr.contains("to h1 for thread"), "{said}");
    Ok(format!("{named} pages of the program named"))
}

fn page_allocator(bed: &mut Bed<'_>) -> Result<String> {
    let job = bed.job("stress", &["6"])?.options(["--page-allocator"]);
    bed.succeed(&job)?;
    let job = bed.job("stress-static", &["6"])?.options(["--page-allocator"]);
    let refused = job.run(bed.hosts, bed.deadline)?;
    ensure!(refused.code() == Some(126) && refused.stderr.contains("linked statically"), "{}", shortened(&refused.stderr));
    Ok("a dynamic program runs, a static one is refused by name".to_owned())
}
