//! `cargo xtask hosts`: local hosts by hand.
//!
//! Owns the three commands. Must not know how hosts are made.

use crate::{cargo, ebpf};
use anyhow::{Context, Result};
use dvm_hosts::{Binaries, Config, Links, LocalHosts, User};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const INSTANCE: &str = "hosts";

/// What to do with local hosts.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Makes N hosts (network namespaces) and starts an agent in each.
    Up {
        /// Number of hosts.
        hosts: usize,
        /// MTU of their links.
        #[arg(long, default_value_t = 9000)]
        mtu: u32,
        /// Queues of each end of their links.
        #[arg(long, default_value_t = 1)]
        queues: usize,
        /// Let native XDP work on their links: a program that passes all goes to the ends at the switch.
        #[arg(long)]
        native_xdp: bool,
        /// Processors each offers to jobs; all of this machine's if left out.
        #[arg(long)]
        cpus: Option<usize>,
        /// `fast_path` of the nodes, in turn: auto, native, generic, tc, off.
        #[arg(long, value_delimiter = ',')]
        fast_path: Vec<String>,
        /// Name, where several sets are wanted.
        #[arg(long, default_value = INSTANCE)]
        instance: String,
        /// Use the programs in this directory instead of building them.
        #[arg(long)]
        binaries: Option<PathBuf>,
    },
    /// Ends everything on the hosts and removes them.
    Down {
        /// Name of the set.
        #[arg(long, default_value = INSTANCE)]
        instance: String,
    },
    /// Runs a command on host K (from 0), with `dvm-exec` and `dvm-agent` in its PATH and DVM_SOCKET set.
    Exec {
        /// Number of the host.
        host: usize,
        /// Name of the set.
        #[arg(long, default_value = INSTANCE)]
        instance: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// Does it.
///
/// # Errors
/// Whatever stands in the way.
pub fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Up { hosts, mtu, queues, native_xdp, cpus, fast_path, instance, binaries } => {
            let directory = match binaries {
                Some(directory) => directory.clone(),
                None => {
                    ebpf::provide()?;
                    cargo::build(&["dvm-agent", "dvm-exec", "dvm-alloc"])?
                }
            };
            up(&Config {
                instance: instance.clone(),
                hosts: *hosts,
                links: Links { mtu: *mtu, queues: *queues, has_native_xdp: *native_xdp },
                cpus: cpus.unwrap_or_else(processors),
                fast_paths: fast_path.clone(),
                memory: None,
                binaries: Binaries::in_directory(&directory),
            })
        }
        Command::Down { instance } => {
            LocalHosts::open(instance)?.down()?;
            eprintln!("hosts `{instance}` are down");
            Ok(ExitCode::SUCCESS)
        }
        Command::Exec { host, instance, command } => exec(*host, instance, command),
    }
}

/// Processors of this machine.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn up(config: &Config) -> Result<ExitCode> {
    let hosts = LocalHosts::up(config)?;
    for host in hosts.hosts() {
        println!("{} {} {}", host.name, host.address, host.socket.display());
    }
    eprintln!(
        "{} hosts are up: `cargo xtask hosts exec 0 -- dvm-exec -- pigz -p6 FILE`, then `cargo xtask hosts down`",
        config.hosts
    );
    hosts.keep()?;
    Ok(ExitCode::SUCCESS)
}

fn exec(host: usize, instance: &str, words: &[String]) -> Result<ExitCode> {
    let hosts = LocalHosts::open(instance)?;
    let (program, arguments) = words.split_first().context("no command given")?;
    let programs = hosts.binaries().exec.parent().context("programs without a directory")?.display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = hosts.command(host, User::Root, Path::new(program))?;
    command.args(arguments).env("PATH", format!("{programs}:{path}")).env("DVM_SOCKET", &hosts.host(host)?.socket);
    cargo::hand_over(command)
}
