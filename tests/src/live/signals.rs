//! Signals at the moments when they are easily lost, and a user's job control.
//!
//! Owns what must be seen. Must not know how signals reach a thread of another host.

use super::bed::{Bed, shortened};
use super::case::{Case, Need, find_program};
use anyhow::{Context, Result, ensure};
use dvm_hosts::{User, output_within};
use std::time::Instant;

/// A storm on two and on three hosts, and a terminal.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for hosts in [2, 3] {
        cases.push(Case::new(format!("signals-storm-{hosts}"), hosts, storm).needs(&[Need::Program("gcc")]).within_seconds(240));
    }
    let terminal = [Need::Program("gcc"), Need::Program("python3"), Need::Program("bash")];
    cases.push(Case::new("signals-job-control", 3, job_control).needs(&terminal).within_seconds(90));
    cases
}

fn storm(bed: &mut Bed<'_>) -> Result<String> {
    let signals = bed.effort.signals.to_string();
    let job = bed.job("signals", &["storm", &signals])?.options(["--place", "rr"]);
    let finished = bed.succeed(&job)?;
    let said = finished.output();
    let wanted = format!("{signals} signals handled, every kind of call broken off: yes, other results: 0\n");
    ensure!(said == wanted, "`{}` instead of `{}`", said.trim(), wanted.trim());
    Ok(format!("{:.1} s: {}", finished.elapsed.as_secs_f64(), said.trim()))
}

fn job_control(bed: &mut Bed<'_>) -> Result<String> {
    let program = bed.workshop.program("signals")?;
    let script = bed.workshop.script("jobcontrol.py")?;
    let python = find_program("python3").context("no python3")?;
    let mut command = bed.hosts.command(0, User::Root, &python)?;
    command.arg(script).arg(&bed.hosts.binaries().exec).arg("--socket").arg(&bed.hosts.host(0)?.socket);
    command.args(["--place", "rr", "--"]).arg(program).arg("clock").env("TERM", "dumb");
    let output = output_within(&mut command, bed.deadline.saturating_duration_since(Instant::now()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} {}", said.trim(), shortened(&errors));
    Ok(said.trim().to_owned())
}
