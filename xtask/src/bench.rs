//! The benches, run by their own program in release mode.
//!
//! Owns building and starting it. Must not know what is measured.

use crate::{cargo, ebpf, guests, setup};
use anyhow::Result;
use std::process::{Command, ExitCode};

/// Runs the benches with these arguments and our terminal.
///
/// # Errors
/// They do not build or start.
pub fn forward(arguments: &[String]) -> Result<ExitCode> {
    for lack in setup::prepare(setup::FOR_TEST)? {
        eprintln!("setup: {lack}");
    }
    ebpf::provide()?;
    if let Err(reason) = guests::provide()? {
        eprintln!("guests: no images: {reason}");
    }
    cargo::build(&["dvm-agent", "dvm-exec", "dvm-alloc"])?;
    let mut command = Command::new(cargo::build(&["dvm-benches"])?.join("dvm-benches"));
    command.args(arguments);
    cargo::hand_over(command)
}
