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
//! ps, pause, resume, stat: operate -> a socket -> control -> life, hosts
//! ```

mod boot;
mod clock;
mod control;
mod devices;
mod failure;
mod figures;
mod given;
mod hosts;
mod image;
mod layout;
mod life;
mod limits;
mod machine;
pub mod member;
mod message;
mod operate;
mod part;
mod processor;
mod pvclock;
mod rate;
mod run;
mod setup;
mod virtio;

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
    /// Lists the guests that were started on this host.
    Ps(operate::PsOptions),
    /// Holds all processors of a guest, on all its hosts.
    Pause(operate::GuestOptions),
    /// Lets the processors of a guest go on.
    Resume(operate::GuestOptions),
    /// Shows what each processor of a guest has done.
    Stat(operate::StatOptions),
}

/// The definition of the command line.
#[must_use]
pub fn command() -> clap::Command {
    CommandLine::command()
}

/// Runs the command line, which begins with `kvm`, and gives its exit status.
pub fn main(arguments: impl Iterator<Item = OsString>) -> u8 {
    let done = match CommandLine::parse_from(arguments).command {
        Command::Run(options) => run::run(&options),
        Command::Ps(options) => operate::ps(&options),
        Command::Pause(options) => operate::hold(&options, true),
        Command::Resume(options) => operate::hold(&options, false),
        Command::Stat(options) => operate::stat(&options),
    };
    done.unwrap_or_else(|failure: Failure| {
        eprintln!("dvm-exec: {failure}");
        failure.status()
    })
}
