//! `cargo xtask tidy`: the form of the sources.
//!
//! Owns which files are looked at and the report. Must not judge a file itself: [`source`] and [`changelog`] do.

mod changelog;
mod source;

use crate::cargo;
use crate::tally::Tally;
use anyhow::{Context, Result, ensure};
use source::{Finding, Ratchet};
use std::fs;
use std::process::{Command, ExitCode};

/// Functions that were too long when the rule came; an entry may only shrink or go.
const RATCHET: &str = include_str!("ratchet.txt");

/// Checks all sources and prints what is wrong.
///
/// # Errors
/// Git fails or a file cannot be read.
pub fn run() -> Result<ExitCode> {
    let mut tally = Tally::default();
    check(&mut tally)?;
    Ok(tally.finish())
}

/// Adds one result; warnings are printed only.
///
/// # Errors
/// Git fails or a file cannot be read.
pub fn check(tally: &mut Tally) -> Result<()> {
    let mut faults = Vec::new();
    let mut ratchet = Ratchet::parse(RATCHET)?;
    for path in sources()? {
        let text = fs::read_to_string(cargo::root().join(&path)).with_context(|| format!("cannot read {path}"))?;
        for finding in source::check(&path, &text, &mut ratchet) {
            match finding {
                Finding::Fault(text) => faults.push(text),
                Finding::Warning(text) => println!("warning: {text}"),
            }
        }
    }
    faults.extend(ratchet.unused());
    faults.extend(changelog::check(&fs::read_to_string(cargo::root().join("CHANGELOG.md")).context("cannot read CHANGELOG.md")?));
    for name in ["README.md", "ARCHITECTURE.md", "STYLE.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        if !cargo::root().join(name).exists() {
            faults.push(format!("{name} is missing"));
        }
    }
    tally.add("tidy", &faults);
    Ok(())
}

/// All Rust files that git knows or would add.
fn sources() -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.rs"])
        .current_dir(cargo::root())
        .output()
        .context("cannot start git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8(output.stdout).context("a path that is no UTF-8")?;
    Ok(text.lines().filter(|path| cargo::root().join(path).exists()).map(str::to_owned).collect())
}
