//! The program's memory over three hosts: mapped files, guards, advice, growing blocks, each equal to a native run.
//!
//! Owns the list of behaviours. Must not know how any is made.

use super::bed::{Bed, same_bytes, shortened};
use super::case::{Case, Need};
use anyhow::{Context, Result};
use std::fs;

/// Behaviours of the test program `memory`.
const BEHAVIOURS: [&str; 10] = [
    "file-sum",
    "file-private",
    "file-sparse",
    "file-calls",
    "file-end",
    "guards",
    "machine-code",
    "growing",
    "advice",
    "refused",
];

/// Each behaviour, its threads on hosts in turn.
#[must_use]
pub fn cases() -> Vec<Case> {
    let case = |name: &'static str| {
        Case::new(format!("memory-{name}"), 3, move |bed| run(bed, name)).needs(&[Need::Program("gcc")]).within_seconds(60)
    };
    BEHAVIOURS.into_iter().map(case).collect()
}

fn run(bed: &mut Bed<'_>, behaviour: &str) -> Result<String> {
    let job = bed.job("memory", &[behaviour])?.options(["--place", "rr"]);
    let expected = bed.workshop.native(&format!("memory-{behaviour}"), &job)?;
    let finished = bed.succeed(&job)?;
    let context = || format!("stdout: {}", shortened(&fs::read_to_string(&finished.stdout).unwrap_or_default()));
    same_bytes(&expected, &finished.stdout).with_context(context)?;
    Ok(format!("{:.1} s; {}", finished.elapsed.as_secs_f64(), shortened(&finished.stderr)))
}
