//! The latencies of running hosts, by `dvm-agent histograms`.
//!
//! Owns building and starting it. Must not know its options.

use crate::{cargo, ebpf};
use anyhow::Result;
use std::process::{Command, ExitCode};

/// Runs `dvm-agent histograms` with these arguments and our terminal.
///
/// # Errors
/// It does not build or start.
pub fn forward(arguments: &[String]) -> Result<ExitCode> {
    ebpf::provide()?;
    let mut command = Command::new(cargo::build(&["dvm-agent"])?.join("dvm-agent"));
    command.arg("histograms").args(arguments);
    cargo::hand_over(command)
}
