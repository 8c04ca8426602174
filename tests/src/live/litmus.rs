//! The x86 litmus tests, with their threads on different hosts.
//!
//! Owns the list of tests and how often they are tried. Must not know which outcomes are allowed: [`super::memory_model`] does.

use super::bed::Bed;
use super::case::{Case, Need};
use super::memory_model::{Test, judge};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Name and text of each test.
const TESTS: [(&str, &str); 12] = [
    ("SB", "x=1; r0=y | y=1; r1=x"),
    ("SB+mfences", "x=1; mfence; r0=y | y=1; mfence; r1=x"),
    ("MP", "x=1; y=1 | r0=y; r1=x"),
    ("LB", "r0=x; y=1 | r1=y; x=1"),
    ("IRIW", "x=1 | y=1 | r0=x; r1=y | r2=y; r3=x"),
    ("2+2W", "x=1; y=2 | y=1; x=2"),
    ("R", "x=1; y=1 | y=2; r0=x"),
    ("R+mfences", "x=1; mfence; y=1 | y=2; mfence; r0=x"),
    ("S", "x=2; y=1 | r0=y; x=1"),
    ("CoRR", "x=1 | r0=x; r1=x"),
    ("CoWW", "x=1; x=2 | r0=x"),
    ("INC", "r0=x++ | r1=x++"),
];
/// A run of the program does at most this many rounds, so that a hang is seen early.
const ROUNDS_PER_RUN_MAX: u64 = 20_000;
/// Times the asked rounds after which an outcome that never came counts as not exercised, and the least number of rounds.
const PATIENCE: u64 = 10;
const PATIENCE_ROUNDS_MIN: u64 = 50_000;
/// Longest one round may take on average before the run counts as hanging: about ten times what it takes on a busy machine.
const ROUND_LONGEST: Duration = Duration::from_millis(5);

/// Each test, its locations on one page and on two.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, text) in TESTS {
        for layout in ["one", "two"] {
            let hosts = if text.split('|').count() > 2 { 3 } else { 2 };
            let case = Case::new(format!("litmus-{name}-{layout}-page"), hosts, move |bed| run(bed, text, layout));
            cases.push(case.needs(&[Need::Program("gcc")]).within_seconds(1800));
        }
    }
    cases
}

fn run(bed: &mut Bed<'_>, text: &'static str, layout: &str) -> Result<String> {
    let test = Test::parse(text)?;
    let (mut seen, mut elapsed) = (BTreeMap::new(), Duration::ZERO);
    let (mut rounds, mut seed, wanted) = (0, bed.effort.seed, bed.effort.litmus_rounds);
    let patience = (wanted * PATIENCE).max(PATIENCE_ROUNDS_MIN);
    let unseen = loop {
        let asked = wanted.saturating_sub(rounds).clamp(1000, ROUNDS_PER_RUN_MAX);
        let (asked_text, seed_text) = (asked.to_string(), seed.to_string());
        let arguments = ["--rounds", &asked_text, "--seed", &seed_text, "--layout", layout, text];
        let job = bed.job("litmus", &arguments)?.options(["--place", "rr"]);
        let limit = Duration::from_secs(15) + ROUND_LONGEST * u32::try_from(asked)?;
        let finished = Bed { deadline: bed.deadline.min(Instant::now() + limit), ..*bed }.succeed(&job)?;
        if rounds == 0 {
            bed.all_hosts_worked(&finished)?;
        }
        rounds += add_outcomes(&finished.output(), &mut seen)?;
        elapsed += finished.elapsed;
        seed += 1;
        let judgement = judge(&test, &seen);
        ensure!(judgement.forbidden.is_empty(), "`{text}`: x86-TSO forbids {:?}; seen: {seen:?}", judgement.forbidden);
        if rounds >= wanted && (judgement.unseen.is_empty() || rounds >= patience) {
            break judgement.unseen;
        }
    };
    ensure!(unseen.is_empty(), "not exercised: `{text}` never gave {unseen:?} in {rounds} rounds; seen: {seen:?}");
    let counts: Vec<String> = seen.values().map(ToString::to_string).collect();
    let round_us = elapsed.as_micros() / u128::from(rounds);
    Ok(format!("{rounds} rounds of {round_us} us, {} outcomes: {}", seen.len(), counts.join(" ")))
}

/// Adds what a run printed; gives its number of rounds.
fn add_outcomes(output: &str, seen: &mut BTreeMap<String, u64>) -> Result<u64> {
    let mut rounds = 0;
    for line in output.lines() {
        if let Some((outcome, count)) = line.strip_prefix("outcome ").and_then(|rest| rest.split_once(" : ")) {
            let count: u64 = count.parse().with_context(|| format!("bad line `{line}`"))?;
            *seen.entry(outcome.to_owned()).or_default() += count;
            rounds += count;
        } else if !line.starts_with("rounds ") {
            bail!("litmus says: {line}");
        }
    }
    ensure!(rounds > 0, "litmus printed no outcome");
    Ok(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_is_readable() {
        for (name, text) in TESTS {
            assert!(Test::parse(text).is_ok_and(|test| test.thread_count() >= 2), "{name}");
        }
    }

    #[test]
    fn output_is_added_up() {
        let mut seen = BTreeMap::new();
        assert_eq!(add_outcomes("outcome r0=0 x=1 : 3\noutcome r0=1 x=1 : 4\nrounds 7\n", &mut seen).unwrap(), 7);
        assert_eq!(add_outcomes("outcome r0=0 x=1 : 1\nrounds 1\n", &mut seen).unwrap(), 1);
        assert_eq!(seen["r0=0 x=1"], 4);
        assert!(add_outcomes("corrupt value 0x1\n", &mut seen).is_err());
        assert!(add_outcomes("", &mut seen).is_err());
    }
}
