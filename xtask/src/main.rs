//! `cargo xtask`: everything that is done to the project, by one name each.
//!
//! Owns the command line. Must not do the work itself, and must not depend on the rooms it checks.

mod bench;
mod cargo;
mod demo;
mod deploy;
mod ebpf;
mod guests;
mod histograms;
mod hosts;
mod interrupt;
mod linux;
mod live;
mod manual;
mod setup;
mod simulate;
mod soak;
mod stages;
mod tally;
mod tidy;
mod walls;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Helpers of the project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs pigz over three local hosts and shows what happened.
    Demo(demo::Options),
    /// Runs every check and test; the last line counts them.
    Test(stages::Options),
    /// Runs the checks of a stage: smoke (minutes) or full (what `test` runs).
    Ci {
        /// Which stage.
        stage: stages::Stage,
        #[command(flatten)]
        options: stages::Options,
    },
    /// Checks the form of the sources.
    Tidy,
    /// Writes manual pages and shell completions of all commands to target/manual.
    Docs,
    /// Checks that packages depend only on what they may.
    Walls,
    /// Runs the protocol simulator; all arguments are its own.
    Sim {
        /// Arguments of the simulator, such as --seeds 20000.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs live cases; all arguments are the harness's own.
    Live {
        /// Arguments of the harness, such as --only litmus.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds the programs of the fast path, has the kernel verify them, compares its counts, and runs them beside the host.
    Ebpf(ebpf::Options),
    /// Builds the images of guests.
    Guests,
    /// Installs, upgrades and removes the agent on hosts, over ssh.
    Deploy(deploy::Options),
    /// Collects and merges the latencies of running hosts; all arguments are those of `dvm-agent histograms`.
    Histograms {
        /// Such as --hosts all --watch.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Makes, uses and removes local hosts.
    #[command(subcommand)]
    Hosts(hosts::Command),
    /// Measures; all arguments are the benches' own.
    Bench {
        /// Arguments of the benches, such as --only fault.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Keeps the counted promises (20 of 20, 100,000 rounds, 20,000 seeds, 1,000,000 frames); goes on where it stopped.
    Soak(soak::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => stages::run(stages::Stage::Full, &options),
        Command::Ci { stage, options } => stages::run(stage, &options),
        Command::Tidy => tidy::run(),
        Command::Docs => manual::run(&Arguments::command()),
        Command::Walls => walls::run(),
        Command::Sim { arguments } => simulate::forward(&arguments),
        Command::Live { arguments } => live::forward(&arguments),
        Command::Ebpf(options) => ebpf::run(&options),
        Command::Guests => guests::run(),
        Command::Deploy(options) => deploy::run(&options),
        Command::Histograms { arguments } => histograms::forward(&arguments),
        Command::Hosts(command) => hosts::run(&command),
        Command::Bench { arguments } => bench::forward(&arguments),
        Command::Soak(options) => soak::run(&options),
    }
}
