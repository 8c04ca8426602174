//! Hosts, husks and links that go while a program runs on them.
//!
//! Owns the blows and what must follow: within five seconds the job has ended on every host, with its documented exit
//! code and a message that names the host, and nothing of it is left. Must not know how a loss is noticed.

use super::bed::{Bed, left_behind, shortened};
use super::case::{Case, Need};
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{Running, alive, kill_process};
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Exit code of `dvm-exec` when a host of the job is lost, as `docs/operating.md` has it.
pub(super) const HOST_LOST: i32 = 87;
/// Exit code after ^C.
const INTERRUPTED: i32 = 130;
/// Time from the blow to the end, everywhere.
pub(super) const END_LATEST: Duration = Duration::from_secs(5);
/// How long the job may take to start.
const START_LATEST: Duration = Duration::from_secs(20);
/// Between "running" and the blow, so that pages are on their way.
const SETTLE: Duration = Duration::from_millis(400);
const POLL: Duration = Duration::from_millis(20);
/// The host that is struck.
const VICTIM: usize = 1;

/// What happens to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    KillAgent,
    KillHusk,
    CutLink,
    KillRoot,
    Interrupt,
}

/// Each blow on two and on three hosts.
#[must_use]
pub fn cases() -> Vec<Case> {
    let blows = [
        ("agent-killed", Blow::KillAgent),
        ("husk-killed", Blow::KillHusk),
        ("link-cut", Blow::CutLink),
        ("root-killed", Blow::KillRoot),
        ("interrupt", Blow::Interrupt),
    ];
    let mut cases = Vec::new();
    for hosts in [2, 3] {
        for (name, blow) in blows {
            let case = Case::new(format!("failure-{name}-{hosts}"), hosts, move |bed| run(bed, blow));
            let case = case.needs(&[Need::Program("gcc")]);
            cases.push(if blow.harms_hosts() { case.harmful() } else { case });
        }
    }
    cases
}

impl Blow {
    fn harms_hosts(self) -> bool {
        matches!(self, Self::KillAgent | Self::CutLink)
    }

    fn strike(self, bed: &Bed<'_>, running: &Running<'_>) -> Result<()> {
        match self {
            Self::KillAgent => kill_process(bed.hosts.agent(VICTIM)?.context("no agent to kill")?.pid),
            Self::KillHusk => kill_process(husks(bed, VICTIM)?.first().copied().context("no husk to kill")?),
            Self::CutLink => bed.hosts.set_cable(VICTIM, false)?,
            Self::KillRoot => kill_process(running.pid()),
            Self::Interrupt => running.interrupt(),
        }
        Ok(())
    }

    fn code_wanted(self) -> i32 {
        match self {
            Self::KillAgent | Self::KillHusk | Self::CutLink => HOST_LOST,
            Self::KillRoot => 137,
            Self::Interrupt => INTERRUPTED,
        }
    }

    /// Whether the job must say which host is gone.
    fn names_host(self) -> bool {
        matches!(self, Self::KillAgent | Self::KillHusk | Self::CutLink)
    }
}

fn run(bed: &mut Bed<'_>, blow: Blow) -> Result<String> {
    let running = bed.job("endless", &["6", "60"])?.options(["--place", "rr"]).start(bed.hosts)?;
    let running = wait_for_start(running)?;
    sleep(SETTLE);
    for index in 0..bed.hosts.hosts().len() {
        ensure!(!husks(bed, index)?.is_empty(), "nothing of the job runs on {}", bed.hosts.host(index)?.name);
    }
    let struck = Instant::now();
    blow.strike(bed, &running)?;
    let finished = running.wait(struck + END_LATEST, &AtomicBool::new(false))?;
    let ended = struck.elapsed();
    let said = shortened(&finished.stderr);
    let Some(code) = finished.code() else {
        bail!("not over {} s after the blow; stderr: {said}\n{}", END_LATEST.as_secs(), finished.autopsy)
    };
    ensure!(code == blow.code_wanted(), "exit code {code} instead of {}; stderr: {said}", blow.code_wanted());
    let name = &bed.hosts.host(VICTIM)?.name;
    ensure!(!blow.names_host() || said.contains(name.as_str()), "the message does not name {name}: {said}");
    wait_gone(bed, struck)?;
    Ok(format!("over after {:.1} s, gone everywhere after {:.1} s: {said}", ended.as_secs_f64(), struck.elapsed().as_secs_f64()))
}

pub(super) fn wait_for_start(running: Running<'_>) -> Result<Running<'_>> {
    let latest = Instant::now() + START_LATEST;
    while !running.output_so_far().contains("running") {
        if Instant::now() >= latest || !alive(running.pid()) {
            let finished = running.wait(Instant::now() + POLL, &AtomicBool::new(false))?;
            bail!(
                "does not start (exit code {:?}); stderr: {}\n{}",
                finished.code(),
                shortened(&finished.stderr),
                finished.autopsy
            );
        }
        sleep(POLL);
    }
    Ok(running)
}

/// Processes of jobs on a host. An etcd there is none: without it nobody learns who is lost.
pub(super) fn husks(bed: &Bed<'_>, index: usize) -> Result<Vec<i32>> {
    let processes = bed.hosts.processes(index)?;
    Ok(processes
        .iter()
        .filter(|process| !["dvm-agent", "etcd"].contains(&process.name.as_str()))
        .map(|process| process.pid)
        .collect())
}

/// Until neither process nor memory of the job is left on any host.
fn wait_gone(bed: &Bed<'_>, struck: Instant) -> Result<()> {
    loop {
        let left = left_behind(bed.hosts)?;
        if left.is_empty() {
            return Ok(());
        }
        ensure!(struck.elapsed() < END_LATEST, "left {} s after the blow: {}", END_LATEST.as_secs(), left.join(", "));
        sleep(POLL);
    }
}
