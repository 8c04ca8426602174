//! What the kernel's verifier says of the programs, beside what it said before.
//!
//! Owns the golden file. Must not know how programs are loaded: a program of `dsm-bpf` does that.
//!
//! The verifier walks at most a million instructions; a change that makes it walk ten times as many should be seen on the
//! day it is made. Another kernel counts otherwise, so the file names its own.

use crate::tally::Tally;
use crate::{cargo, setup};
use anyhow::{Context, Result};
use std::process::Command;
use std::{fs, str};

const NAME: &str = "ebpf: verifier";
const GOLDEN: &str = "tests/golden/ebpf-verifier.txt";
const LOADER: &str = "fast-verify";
/// Exit code of the loader if it may not load.
const FORBIDDEN: i32 = 2;

/// Loads the programs and adds one result.
///
/// # Errors
/// Cargo cannot be started, or the golden file cannot be written.
pub fn check(tally: &mut Tally, bless: bool) -> Result<()> {
    if !setup::is_root() {
        tally.skip(NAME, "loading programs into the kernel needs root");
        return Ok(());
    }
    let loader = match cargo::build_tool(LOADER) {
        Ok(loader) => loader,
        Err(error) => {
            tally.fail(NAME, &format!("{error:#}"));
            return Ok(());
        }
    };
    let output = Command::new(loader).output().with_context(|| format!("cannot start {LOADER}"))?;
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.code() == Some(FORBIDDEN) {
        tally.skip(NAME, &told);
        return Ok(());
    }
    if !output.status.success() {
        tally.fail(NAME, &told);
        return Ok(());
    }
    let counts = String::from_utf8(output.stdout).context("the loader printed no text")?;
    print!("{counts}");
    let found = golden(&release(&setup::kernel()), &counts);
    let path = cargo::root().join(GOLDEN);
    if bless {
        fs::create_dir_all(path.parent().context("a file without a directory")?)?;
        fs::write(&path, &found).with_context(|| format!("cannot write {GOLDEN}"))?;
        println!("written: {GOLDEN}");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if let (Some(of), Some(here)) = (expected.lines().next(), found.lines().next())
        && of != here
    {
        tally.skip(NAME, &format!("{GOLDEN} says `{of}`, this is `{here}`: other kernels count otherwise"));
        return Ok(());
    }
    tally.add(NAME, &differences(&expected, &found));
    Ok(())
}

/// Text of the golden file.
fn golden(kernel: &str, counts: &str) -> String {
    format!("# Linux {kernel}: program, instructions the verifier walked, instructions as loaded\n{counts}")
}

/// `6.18` of `6.18.44-something`.
fn release(kernel: &str) -> String {
    kernel.split('.').take(2).collect::<Vec<_>>().join(".")
}

fn differences(expected: &str, found: &str) -> Vec<String> {
    let again = "if it is meant: cargo xtask ebpf --bless";
    if expected.is_empty() {
        return vec![format!("{GOLDEN} is missing; {again}")];
    }
    let lost = expected.lines().filter(|line| !found.lines().any(|other| other == *line));
    let lost = lost.map(|line| format!("expected `{line}`; {again}"));
    let new = found.lines().filter(|line| !expected.lines().any(|other| other == *line));
    lost.chain(new.map(|line| format!("found `{line}`; {again}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_counts_are_named() {
        let expected = golden("6.18", "dvm_tc 10 5\ndvm_xdp 20 6\n");
        assert_eq!(differences(&expected, &expected), Vec::<String>::new());
        assert_eq!(differences(&expected, &golden("6.18", "dvm_tc 10 5\ndvm_xdp 21 6\n")).len(), 2);
        assert_eq!(differences(&expected, &golden("6.18", "dvm_tc 10 5\n")).len(), 1);
        assert_eq!(differences("", &expected).len(), 1);
        assert_eq!(release("6.18.44-fc-v657"), "6.18");
    }
}
