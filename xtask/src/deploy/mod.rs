//! `cargo xtask deploy`: installs, upgrades and removes the agent on hosts, over the system's own ssh.
//!
//! Owns the order of things: look everywhere, judge, copy, ask doctor; only then change. Must not know the scripts' text.
//!
//! ```text
//!   hosts file -> connect -> look -> plan -> copy beside -> doctor -> switch and start -> see its peers
//!                 `------------ nothing is changed -------------'    `-- at once or one by one --'
//! ```

mod bundle;
mod diagnosis;
mod exit;
mod found;
mod hosts_file;
mod key;
mod layout;
mod plan;
mod remote;
mod run;
mod steps;
mod unit;
mod wanted;

pub use layout::documents;

use exit::Failure;
use std::path::PathBuf;
use std::process::ExitCode;

/// What to do with which hosts.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The hosts, as docs/operating.md describes them.
    #[arg(long)]
    hosts: PathBuf,
    /// Only say what would be done, and what doctor finds on each host.
    #[arg(long, conflicts_with_all = ["remove", "rolling"])]
    check: bool,
    /// Take everything away that was installed.
    #[arg(long, conflicts_with = "rolling")]
    remove: bool,
    /// One host at a time, each once no job runs there.
    #[arg(long)]
    rolling: bool,
    /// Longest to wait, in seconds, for the jobs of a host to end; 600 with --rolling, 0 without.
    #[arg(long)]
    wait: Option<u64>,
    /// End jobs that still run after that, instead of leaving their hosts as they are.
    #[arg(long)]
    end_jobs: bool,
    /// Install the programs in this directory instead of building them.
    #[arg(long)]
    binaries: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
/// Never: every cause has an exit code of its own.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let exit = match run::run(options) {
        Ok(exit) => exit,
        Err(Failure { exit, lines }) => {
            for line in lines {
                eprintln!("deploy: {line}");
            }
            exit
        }
    };
    Ok(ExitCode::from(exit as u8))
}
