//! `dvm-agent`: the program on each host that owns the pages of every space.
//!
//! Owns the command line. Must not do anything itself.

mod agent;
mod buckets;
mod client;
mod clock;
mod config;
mod counters;
mod cpu;
mod doctor;
mod exit;
mod fastpath;
mod figures;
mod job;
mod limits;
mod local;
mod log;
mod memory;
mod net;
mod passing;
mod run;
mod shard;
mod standstill;
mod status;
mod sys;
mod trace;

use clap::{Args, Parser, Subcommand};
use client::Target;
use exit::{Exit, Failure};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Owns the pages of every space on this host, and runs the host's part of jobs.
#[derive(Parser)]
#[command(name = "dvm-agent", version, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Run {
        /// The cluster's file, equal on all hosts.
        #[arg(long)]
        cluster: PathBuf,
        /// This host's file.
        #[arg(long)]
        node: PathBuf,
    },
    /// Say what this host can do, and the fix for what it cannot.
    Doctor {
        /// This host's file: its executor is looked at, too.
        #[arg(long)]
        node: Option<PathBuf>,
        /// The cluster's file: with it the interface to the other hosts is looked at.
        #[arg(long, requires = "node")]
        cluster: Option<PathBuf>,
        /// One JSON object instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Node, peers, jobs and counters of the running agent.
    Status(Ask),
    /// Latency histograms of the running agent.
    Histograms(Ask),
    /// Where the microseconds of faults on this host go, stage by stage, as kernel and agent are seen to work.
    Trace {
        #[command(flatten)]
        ask: Ask,
        /// How long to look.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=trace::SECONDS_MAX))]
        seconds: u64,
        /// Write the faults as a Chrome trace, which Perfetto opens.
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Put an XDP program that passes every frame on an interface, to stay there: for the other end of a veth that has the address of an
    /// agent.
    #[command(hide = true)]
    XdpPass {
        /// Name of the interface; may be given several times.
        #[arg(long, required = true)]
        interface: Vec<String>,
    },
}

#[derive(Args)]
struct Ask {
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// The agent of this node file.
    #[arg(long, conflicts_with = "socket")]
    node: Option<PathBuf>,
    /// The agent at this control socket.
    #[arg(long)]
    socket: Option<PathBuf>,
}

impl Ask {
    fn target(self) -> Target {
        match (self.socket, self.node) {
            (Some(socket), _) => Target::Socket(socket),
            (None, Some(node)) => Target::Node(node),
            (None, None) => Target::Only,
        }
    }
}

fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(line) => line.command,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            // Nowhere is left to say that stderr is closed.
            drop(error.print());
            return ExitCode::from(exit.code());
        }
    };
    let done = match command {
        Command::Run { cluster, node } => run::run(&cluster, &node),
        Command::Doctor { node, cluster, json } => {
            doctor::doctor(node.as_deref(), cluster.as_deref(), json).and_then(|(text, healthy)| {
                print(&text)?;
                let unhealthy = || Failure::new(Exit::Unhealthy, anyhow::anyhow!("something is missing on this host"));
                if healthy { Ok(()) } else { Err(unhealthy()) }
            })
        }
        Command::Status(ask) => {
            let is_json = ask.json;
            client::status(&ask.target(), is_json).and_then(|text| print(&text))
        }
        Command::Histograms(ask) => {
            let is_json = ask.json;
            client::histograms(&ask.target(), is_json).and_then(|text| print(&text))
        }
        Command::Trace { ask, seconds, output } => {
            let is_json = ask.json;
            let options = trace::Options { seconds, output, is_json };
            trace::trace(&ask.target(), &options).and_then(|text| print(&text))
        }
        Command::XdpPass { interface } => passing::pass(&interface),
    };
    match done {
        Ok(()) => ExitCode::from(Exit::Success.code()),
        Err(failure) => {
            let text = format!("dvm-agent: {failure}\n");
            // Nowhere is left to say that stderr is closed; the exit code says the rest.
            drop(std::io::stderr().write_all(text.as_bytes()));
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Puts `text` on stdout; a reader that has gone (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(Exit::Internal, anyhow::anyhow!("cannot write to stdout: {error}"))),
    }
}
