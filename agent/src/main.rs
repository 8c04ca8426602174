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
mod drain;
mod exit;
mod fastpath;
mod figures;
mod job;
mod limits;
mod local;
mod log;
mod manual;
mod membership;
mod memory;
mod metrics;
mod net;
mod observe;
mod passing;
mod run;
mod shard;
mod standstill;
mod status;
mod sys;
mod trace;
mod watch;

use clap::{Args, CommandFactory, Parser, Subcommand};
use client::Target;
use exit::{Exit, Failure};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Length of an interval of `histograms --watch`.
const WATCH_SECONDS: u64 = 5;

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
        /// Serve metrics for Prometheus at this address and port [default: as node.toml says].
        #[arg(long, value_name = "ADDRESS")]
        metrics: Option<SocketAddr>,
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
    /// Latency histograms of the running agent, or of many hosts.
    Histograms {
        #[command(flatten)]
        ask: Ask,
        #[command(flatten)]
        many: Many,
    },
    /// Have a host take no new jobs and leave the cluster after its last one; with etcd only.
    #[command(group(clap::ArgGroup::new("which").required(true).args(["host", "own"])))]
    Drain {
        /// Name of the host.
        host: Option<String>,
        /// The host of the agent asked.
        #[arg(long = "self")]
        own: bool,
        /// It takes new jobs again, if it has not left yet.
        #[arg(long)]
        undo: bool,
        /// Wait until it has left, so many seconds at most.
        #[arg(long, value_name = "SECONDS", conflicts_with = "undo")]
        wait: Option<u64>,
        #[command(flatten)]
        ask: Ask,
    },
    /// What all hosts do now: faults, latencies, the fast path, memory, hot pages.
    Top {
        #[command(flatten)]
        ask: Ask,
        /// Print one screen of figures and end.
        #[arg(long)]
        once: bool,
        /// Time between two looks, in seconds.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
    },
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
    /// Write manual pages and shell completions.
    #[command(hide = true)]
    Manual {
        /// Directory for them.
        directory: PathBuf,
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
struct Many {
    /// Ask these hosts, separated by commas, through this one's agent, and merge what they say; `all` for all of the cluster.
    #[arg(long, value_delimiter = ',')]
    hosts: Vec<String>,
    /// Write report.json, report.hlog (HdrHistogram) and report.html to this directory.
    #[arg(long, requires = "hosts")]
    output: Option<PathBuf>,
    /// Compare with this report.json of an earlier run.
    #[arg(long, requires = "hosts", value_name = "FILE")]
    before: Option<PathBuf>,
    /// Only what happens within this time, in seconds [default: all since the agents started].
    #[arg(long, requires = "hosts", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: Option<u64>,
    /// Again and again, each --seconds [default: 5], until interrupted.
    #[arg(long, requires = "hosts")]
    watch: bool,
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

impl Many {
    /// How many hosts are asked; none: only this one.
    fn options(self, is_json: bool) -> Option<watch::histograms::Options> {
        let Self { hosts, output, before, seconds, watch } = self;
        let seconds = seconds.or(watch.then_some(WATCH_SECONDS));
        (!hosts.is_empty()).then_some(watch::histograms::Options { hosts, is_json, output, before, seconds, is_watch: watch })
    }
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
        Command::Run { cluster, node, metrics } => run::run(&cluster, &node, metrics),
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
        Command::Histograms { ask, many } => {
            let is_json = ask.json;
            match many.options(is_json) {
                None => client::histograms(&ask.target(), is_json).and_then(|text| print(&text)),
                Some(options) => watch::histograms::run(&ask.target(), &options, print),
            }
        }
        Command::Top { ask, once, seconds } => {
            let is_json = ask.json;
            watch::top::run(&ask.target(), seconds, (once || is_json).then_some(is_json)).and_then(|text| print(&text))
        }
        Command::Drain { host, own: _, undo, wait, ask } => {
            let options = drain::Options { host, is_wanted: !undo, wait, is_json: ask.json };
            drain::drain(&ask.target(), &options, print)
        }
        Command::Manual { directory } => manual::write(&CommandLine::command(), &directory),
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
