//! The protocol simulator, run by its own program, with all assertions.
//!
//! Owns building and starting it. Must not know what it checks.

use crate::cargo;
use crate::tally::Tally;
use anyhow::{Context, Result};
use std::process::{Command, ExitCode};

/// Runs the simulator with these arguments and our terminal.
///
/// # Errors
/// It does not build or start.
pub fn forward(arguments: &[String]) -> Result<ExitCode> {
    let mut command = Command::new(cargo::build_tool("sim")?);
    command.args(arguments);
    cargo::hand_over(command)
}

/// Runs the simulator once and adds one result; says whether it passed.
///
/// # Errors
/// It does not build or start.
pub fn add(tally: &mut Tally, name: &str, arguments: &[&str]) -> Result<bool> {
    let program = cargo::build_tool("sim")?;
    let status = Command::new(program).args(arguments).status().context("cannot start the simulator")?;
    if status.success() {
        println!("ok {name}");
        tally.pass(1);
    } else {
        tally.fail(name, &format!("cargo xtask sim {} ended with {status}", arguments.join(" ")));
    }
    Ok(status.success())
}
