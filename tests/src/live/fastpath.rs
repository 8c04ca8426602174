//! The fast path at work: the kernel answers, and an agent that is killed takes its programs with it.
//!
//! Owns what is to be seen of it from outside. Must not know how programs are attached.

use super::bed::{Bed, same_bytes};
use super::case::{Case, Need};
use super::programs;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long an agent may take until its programs are attached.
const ATTACH_LATEST: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
/// The host whose agent is killed.
const VICTIM: usize = 1;

/// All of them, on hosts with the fast path.
#[must_use]
pub fn cases() -> Vec<Case> {
    let case = |name: &str, run: fn(&mut Bed<'_>) -> Result<String>| {
        Case::new(format!("fast-path/{name}"), 3, run)
            .needs(&[Need::Program("pigz"), Need::Program("gcc")])
            .with_fast_path("auto")
    };
    vec![
        case("serves", serves),
        Case::new("fast-path/fan-out", 4, fan_out).needs(&[Need::Program("gcc")]).with_fast_path("auto"),
        case("agent-killed-and-back", killed_and_back).harmful(),
        case("small-packets", small_packets).with_mtu(1500).harmful(),
    ]
}

/// Over three hosts the kernel serves pages, forwards requests and counts acknowledgements, and the output is the native one.
fn serves(bed: &mut Bed<'_>) -> Result<String> {
    attached(bed)?;
    let before = verdicts(bed)?;
    job(bed)?;
    let after = verdicts(bed)?;
    let more = |name: &str| more(&before, &after, name);
    let (served, forwarded, counted) = (more("serve"), more("forward"), more("counted"));
    ensure!(served > 0, "the kernel served nothing; verdicts of the first host: {}", after[0]);
    Ok(format!("served {served}, forwarded {forwarded}, counted {counted}"))
}

/// Over four hosts that read what one of them writes, the kernel of the pages' home tells the readers, and the sum is the native one.
fn fan_out(bed: &mut Bed<'_>) -> Result<String> {
    attached(bed)?;
    let before = verdicts(bed)?;
    let job = bed.job("readers", &["8", "120"])?.options(["--place", "rr"]);
    let expected = bed.workshop.native("readers", &job)?;
    let finished = bed.succeed(&job)?;
    same_bytes(&expected, &finished.stdout)?;
    let worked = bed.all_hosts_worked(&finished)?;
    let after = verdicts(bed)?;
    let more = |name: &str| more(&before, &after, name);
    let (told, counted) = (more("fan_out"), more("counted"));
    ensure!(told > 0, "the kernel told nobody; verdicts of the first host: {}", after[0]);
    Ok(format!("told the readers of {told} pages, counted {counted}; {worked}"))
}

/// Where a page does not fit a packet the kernel passes its readers up.
fn small_packets(bed: &mut Bed<'_>) -> Result<String> {
    attached(bed)?;
    job(bed)?;
    let verdicts = verdicts(bed)?;
    let all = |name: &str| verdicts.iter().map(|verdicts| count(verdicts, name)).sum::<u64>();
    let (passed, forwarded) = (all("pass_mtu"), all("forward"));
    ensure!(passed > 0 && all("serve") == 0, "passed up {passed}, served {}", all("serve"));
    Ok(format!("passed up for its size {passed}, forwarded {forwarded}"))
}

/// The agent of a host is killed while a program runs there, and started again: its programs were gone, and come back.
fn killed_and_back(bed: &mut Bed<'_>) -> Result<String> {
    attached(bed)?;
    job(bed)?;
    bed.hosts.restart_agent(VICTIM, &[])?;
    attached(bed)?;
    let status = bed.hosts.status(VICTIM)?.context("the agent that was started again does not answer")?;
    let path = status.get("fast_path").cloned().unwrap_or_default();
    ensure!(!path.to_string().contains("another agent"), "programs of the killed agent are still there: {path}");
    job(bed)?;
    Ok(format!("attached again: {}", path.get("attached").and_then(Value::as_str).unwrap_or_default()))
}

/// A program over all hosts, whose output is that of its native run.
pub(super) fn job(bed: &mut Bed<'_>) -> Result<()> {
    let job = programs::job(bed, "pigz")?.options(["--place", "rr"]);
    let expected = bed.workshop.native("pigz", &job)?;
    let finished = bed.succeed(&job)?;
    same_bytes(&expected, &finished.stdout)?;
    bed.all_hosts_worked(&finished)?;
    Ok(())
}

/// Waits until the programs are attached everywhere.
pub(super) fn attached(bed: &Bed<'_>) -> Result<()> {
    let latest = Instant::now() + ATTACH_LATEST;
    for index in 0..bed.hosts.hosts().len() {
        loop {
            let status = bed.hosts.status(index)?.unwrap_or_default();
            let path = status.get("fast_path").cloned().unwrap_or_default();
            if path.get("attached").and_then(Value::as_str).is_some_and(|rung| rung != "none") {
                break;
            }
            ensure!(Instant::now() < latest, "host {index}: not attached after {} s: {path}", ATTACH_LATEST.as_secs());
            sleep(POLL);
        }
    }
    Ok(())
}

pub(super) fn verdicts(bed: &Bed<'_>) -> Result<Vec<Value>> {
    let of = |index| {
        let status = bed.hosts.status(index)?.context("an agent does not answer")?;
        status.pointer("/fast_path/verdicts").cloned().context("no verdicts in the status")
    };
    (0..bed.hosts.hosts().len()).map(of).collect()
}

/// How often that verdict came on all hosts together.
fn more(before: &[Value], after: &[Value], name: &str) -> u64 {
    after.iter().zip(before).map(|(after, before)| count(after, name) - count(before, name)).sum()
}

pub(super) fn count(verdicts: &Value, name: &str) -> u64 {
    verdicts.get(name).and_then(Value::as_u64).unwrap_or(0)
}
