//! `dvm-exec`: runs an unmodified program with its threads spread over several hosts.
//!
//! Owns the command line. Must not know how a program is run.

mod disa;
mod exit;
mod kvm;
mod manual;
mod process;
mod sys;

use clap::{CommandFactory, Parser};
use exit::Failure;
use process::husk::{self, Options};
use process::limits;
use process::placement::Placement;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Runs an unmodified program with its threads spread over several hosts, on one address space.
///
/// Exit status, standard input and output, and ^C are the program's own. With `disa` as the first word it is the tool for programs of
/// DISA instead, and with `kvm` that for guests: see `dvm-exec disa --help`, `dvm-exec kvm --help`, and `dvm-exec -- disa` for a program
/// of that name.
#[derive(Debug, Parser)]
#[command(name = "dvm-exec", version, about)]
struct CommandLine {
    /// Hosts by name, separated by commas [default: all of the cluster].
    #[arg(long, value_delimiter = ',')]
    hosts: Vec<String>,
    /// Where threads go: rr (one host after the other), fill (a host's processors first), block=N, local,
    /// auto (as rr, then threads that fight over pages are moved to one host, and all to the root if they wait more than they
    /// compute; it says at the end what it did) [default: auto, without a word].
    #[arg(long)]
    place: Option<Placement>,
    /// Most threads of the program at a time on one host, with rr and fill [default: rr any number, fill the processors].
    #[arg(long)]
    threads_per_host: Option<usize>,
    /// Show threads, faults, transfers, delegated calls and latencies on stderr when the program has ended.
    #[arg(long)]
    stat: bool,
    /// Write the same figures to this file as JSON.
    #[arg(long)]
    stat_json: Option<PathBuf>,
    /// Measure also how long faults take to reach the agent and threads to run again: on each host every fault and every
    /// switch of a thread then writes a record. They are shown by --stat and --stat-json.
    #[arg(long)]
    stages: bool,
    /// Name at the end the N pages that travel most between hosts: what they are, which threads want them, what would help.
    #[arg(long, value_name = "N", default_value_t = 0)]
    hot_pages: usize,
    /// Replace the program's malloc by one that never puts small blocks of two threads on one page.
    #[arg(long)]
    page_allocator: bool,
    /// The agent's control socket [default: $DVM_SOCKET, or the only one in /run/dvm].
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Run although a host lacks processor features that cannot be hidden from the program.
    #[arg(long)]
    unequal_cpus: bool,
    /// Run at this host only, without an agent, and list on stderr at the end what would be refused or done otherwise.
    #[arg(long)]
    check: bool,
    /// Show every call that a thread on another host delegates: unix time, host, thread, call, result, time it took.
    #[arg(long)]
    strace: bool,
    /// Write the lines of --strace to this file [default: stderr].
    #[arg(short, long, requires = "strace")]
    output: Option<PathBuf>,
    /// Run without an agent, in this process alone.
    #[arg(long, hide = true)]
    local_test: bool,
    /// Be the husk of a job started elsewhere; the agent's socket is descriptor 3.
    #[arg(long, hide = true)]
    husk: bool,
    /// The program's file, when its name is not where it is found: a program of a job has executed another one.
    #[arg(long, hide = true)]
    image: Option<PathBuf>,
    /// Write manual pages and shell completions to this directory.
    #[arg(long, hide = true, value_name = "DIRECTORY", exclusive = true)]
    manual: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required_unless_present_any = ["husk", "manual"])]
    command: Vec<OsString>,
}

fn main() {
    sys::startup::restore_signals();
    let tool = |name: &str| std::env::args_os().nth(1).is_some_and(|word| word == name);
    if tool(disa::NAME) {
        std::process::exit(i32::from(disa::main(std::env::args_os().skip(1))));
    }
    if tool(kvm::NAME) {
        std::process::exit(i32::from(kvm::main(std::env::args_os().skip(1))));
    }
    let line = CommandLine::parse();
    if let Some(directory) = &line.manual {
        std::process::exit(i32::from(manual::write(&CommandLine::command(), directory)));
    }
    let failure = run(line);
    process::say::line(&failure.to_string());
    std::process::exit(i32::from(failure.code()));
}

fn run(line: CommandLine) -> Failure {
    let stack_limit = match sys::startup::with_finite_stack() {
        Ok(limit) => limit,
        Err(error) => return Failure::Unsupported(format!("cannot set a finite stack limit: {error}")),
    };
    let files_limit = match limits::raise_files() {
        Ok(limit) => limit,
        Err(error) => return Failure::Unsupported(format!("cannot raise the limit of open files: {error}")),
    };
    if line.husk {
        return process::memberhusk::run();
    }
    husk::run(Options {
        command: line.command.into_iter().map(OsString::into_vec).collect(),
        hosts: line.hosts,
        placement: line.place,
        threads_per_host: line.threads_per_host,
        stat: line.stat,
        stat_json: line.stat_json,
        has_stages: line.stages,
        hot_pages: line.hot_pages,
        has_page_allocator: line.page_allocator,
        socket: line.socket,
        is_local_test: line.local_test,
        accepts_unequal: line.unequal_cpus,
        is_check: line.check,
        has_strace: line.strace,
        output: line.output,
        stack_limit,
        files_limit,
        image: line.image,
    })
}
