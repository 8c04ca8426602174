//! `dvm-exec kvm`: runs guests.
//!
//! Owns the command line of it. Must not know how a guest is run.
//!
//! ```text
//! run -> image, boot -> memory        setup -> Board -> a thread per processor: Carrier <-> KVM
//!                                                         |  accesses, interrupts
//!                                              Machine: APICs, directory, devices, clock, life
//!                                                         |  messages
//!                                              hosts (at the root) <-> member (elsewhere)
//! ```

mod boot;
mod devices;
mod failure;
mod hosts;
mod image;
mod layout;
mod life;
mod machine;
pub mod member;
mod message;
mod part;
mod processor;
mod run;
mod setup;

use clap::{CommandFactory, Parser, Subcommand};
use failure::Failure;
use std::ffi::OsString;

/// The word that leads here when it is the first of the command line.
pub const NAME: &str = "kvm";

/// Runs guests. See docs/kvm.md.
#[derive(Debug, Parser)]
#[command(name = "kvm", bin_name = "dvm-exec kvm", version, about)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a guest; its serial line is standard input and output.
    Run(run::Options),
}

/// The definition of the command line.
#[must_use]
pub fn command() -> clap::Command {
    CommandLine::command()
}

/// Runs the command line, which begins with `kvm`, and gives its exit status.
pub fn main(arguments: impl Iterator<Item = OsString>) -> u8 {
    let CommandLine { command: Command::Run(options) } = CommandLine::parse_from(arguments);
    run::run(&options).unwrap_or_else(|failure: Failure| {
        eprintln!("dvm-exec: {failure}");
        failure.status()
    })
}
