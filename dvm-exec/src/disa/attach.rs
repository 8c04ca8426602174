//! `dvm-exec disa attach`: shows a run whose root is lost, on a host that took part in it.
//!
//! Owns the command. Must not know how the run goes on.

use super::hosts::{self, Kind};
use super::show;
use crate::exit::Failure;
use crate::process::agent;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Exit status: that of the run.
#[derive(Args, Debug)]
pub struct Options {
    /// The agent's control socket [default: $DVM_SOCKET, or the only one in /run/dvm].
    #[arg(long)]
    socket: Option<PathBuf>,
    /// Begin with the byte at this place of all output.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The job, as `dvm-agent status` numbers it.
    job: u32,
}

/// Shows the run to its end.
pub fn attach(options: &Options) -> anyhow::Result<u8> {
    let socket = agent::attach(&agent::find_socket(options.socket.as_deref())?, options.job)?;
    let mut failed = None;
    let status = hosts::see(&mut socket.into(), options.from, |kind, bytes| {
        let shown = match kind {
            Kind::Output => show(bytes),
            Kind::Said | Kind::End | Kind::Refused => std::io::stderr().write_all(bytes).map_err(Into::into),
        };
        failed = failed.take().or(shown.err());
    })?;
    match failed {
        Some(error) => Err(Failure::Internal(format!("standard output: {error:#}")).into()),
        None => Ok(status),
    }
}
