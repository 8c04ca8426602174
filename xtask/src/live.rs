//! The live cases, run by their own program.
//!
//! Owns building and starting it, and reading its totals. Must not know the cases.

use crate::tally::Tally;
use crate::{cargo, ebpf, guests, linux, setup};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The totals file of the harness: names, and reasons.
#[derive(Debug, Default, Deserialize)]
pub struct Totals {
    /// Cases that held.
    pub passed: Vec<String>,
    /// Cases that did not.
    pub failed: Vec<(String, String)>,
    /// Cases that could not run here.
    pub skipped: Vec<(String, String)>,
}

/// Builds the harness, and what it runs as that is shipped; gives the command. In one call, cargo would give the agent the harness'
/// planted bugs.
fn harness() -> Result<Command> {
    ebpf::provide()?;
    if let Err(reason) = guests::provide()? {
        eprintln!("guests: no images: {reason}");
    }
    if let Err(reason) = linux::provide()? {
        eprintln!("guests: no linux: {reason}");
    }
    for lack in setup::prepare(setup::FOR_ETCD)? {
        eprintln!("setup: {lack}; the agent is built without etcd");
    }
    let binaries = cargo::build(&["dvm-agent", "dvm-exec", "dvm-alloc"])?;
    let mut command = Command::new(cargo::build_tool("live")?);
    // It deploys with this very program.
    command.env("DVM_XTASK", env::current_exe().context("cannot find this program")?).arg("--binaries").arg(binaries);
    Ok(command)
}

/// Runs the harness with these arguments and our terminal.
///
/// # Errors
/// It does not build or start.
pub fn forward(arguments: &[String]) -> Result<ExitCode> {
    let mut command = harness()?;
    command.args(arguments);
    cargo::hand_over(command)
}

/// Runs the harness for each of these groups of cases, all at once, each on hosts of its own, and adds their totals.
///
/// # Errors
/// It does not build or start.
pub fn add(tally: &mut Tally, groups: &[Vec<String>]) -> Result<()> {
    let commands = groups.iter().map(|_| harness()).collect::<Result<Vec<_>>>()?;
    let ended: Vec<Result<Totals>> = std::thread::scope(|scope| {
        let numbered = commands.into_iter().zip(groups).enumerate();
        let running: Vec<_> =
            numbered.map(|(number, (command, arguments))| scope.spawn(move || finished(command, arguments, number))).collect();
        running.into_iter().map(|group| group.join().unwrap_or_else(|_| bail!("the one who waited for it panicked"))).collect()
    });
    for totals in ended {
        let totals = totals?;
        tally.pass(totals.passed.len() as u64);
        for (name, reason) in &totals.failed {
            tally.fail(name, reason.lines().next().unwrap_or_default());
        }
        for (name, reason) in &totals.skipped {
            tally.skip(name, reason);
        }
    }
    Ok(())
}

/// Runs the harness to its end. That it left no totals is a failure of `live`.
///
/// # Errors
/// It does not build or start.
pub fn run(arguments: &[String]) -> Result<Totals> {
    finished(harness()?, arguments, 0)
}

/// `number` keeps apart what several leave at once.
fn finished(mut command: Command, arguments: &[String], number: usize) -> Result<Totals> {
    let path = Path::new(command.get_program()).with_file_name(format!("live-totals-{number}.json"));
    drop(fs::remove_file(&path));
    let status = command.args(arguments).arg("--totals").arg(&path).status();
    let status = status.context("cannot start the live harness")?;
    let Ok(text) = fs::read_to_string(&path) else {
        let reason = format!("the harness ended ({status}) without totals");
        return Ok(Totals { failed: vec![("live".to_owned(), reason)], ..Totals::default() });
    };
    serde_json::from_str(&text).context("the harness wrote other totals than expected")
}

/// Names of all cases.
///
/// # Errors
/// The harness does not build or start.
pub fn names() -> Result<Vec<String>> {
    let output = harness()?.arg("--list").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}
