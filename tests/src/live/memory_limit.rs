//! Hosts with little memory: a job larger than one of them runs over two, and one that is too large for all ends by itself.
//!
//! Owns the sizes and what must follow. Must not know which pages go.

use super::bed::{Bed, left_behind, same_bytes, shortened};
use super::case::{Case, Need};
use anyhow::{Context, Result, anyhow, ensure};
use dvm_hosts::{Finished, Job, LocalHosts, alive};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// `memory` of each host, as node.toml has it and in bytes.
const LIMIT: &str = "64M";
const LIMIT_BYTES: u64 = 64 << 20;
/// What a job may have taken above it: pages that were on their way.
const ABOVE_PERCENT: u64 = 5;
/// A block larger than one host's limit, one that two hosts have no room for, and one that is nothing to either.
const LARGE: &str = "96";
const TOO_LARGE: &str = "160";
const SMALL: &str = "2";
/// Exit code of a job that cannot go on, as `docs/operating.md` has it.
const HOST_LOST: i32 = 87;
/// By when a job that is too large has ended.
const END_LATEST: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// All of them.
#[must_use]
pub fn cases() -> Vec<Case> {
    let case = |name: &str, run: fn(&mut Bed<'_>) -> Result<String>| {
        Case::new(format!("memory-limit/{name}"), 2, run).needs(&[Need::Program("gcc")]).with_memory(LIMIT)
    };
    vec![case("larger-than-one-host", larger_than_one), case("larger-than-all", larger_than_all)]
}

/// The output is the native one, pages went both ways, and no host took more than its limit at any time.
fn larger_than_one(bed: &mut Bed<'_>) -> Result<String> {
    let job = bed.job("fill", &[LARGE])?.options(["--place", "rr"]);
    let expected = bed.workshop.native("memory-limit", &job)?;
    let (finished, used) = watched(bed, &job, bed.deadline)?;
    ensure!(finished.code() == Some(0), "exit code {:?}; stderr: {}", finished.code(), shortened(&finished.stderr));
    same_bytes(&expected, &finished.stdout)?;
    let worked = bed.all_hosts_worked(&finished)?;
    let most = LIMIT_BYTES + LIMIT_BYTES / 100 * ABOVE_PERCENT;
    ensure!(used.iter().all(|used| *used <= most), "the hosts took up to {used:?} bytes of {LIMIT_BYTES}");
    let statistics = finished.statistics.as_ref().context("no statistics")?;
    let [away, clean, adopted] =
        ["pages_evicted_away", "pages_evicted_clean", "pages_adopted"].map(|name| statistics.counter(name));
    ensure!(away > 0 && clean > 0, "pages that went: {away} to the other host, {clean} dropped");
    let used: Vec<u64> = used.iter().map(|used| used >> 20).collect();
    Ok(format!("{worked}; up to {used:?} MiB; {away} pages went, {adopted} were taken on, {clean} copies dropped"))
}

/// It ends in time, with a message that names limit and host; a job beside it and the agents do not notice.
fn larger_than_all(bed: &mut Bed<'_>) -> Result<String> {
    let agents: Vec<i32> = (0..2).map(|index| Ok(bed.hosts.agent(index)?.context("no agent")?.pid)).collect::<Result<_>>()?;
    let beside = bed.job("endless", &["2", "60"])?.options(["--place", "rr"]).start(bed.hosts)?;
    let job = bed.job("fill", &[TOO_LARGE])?.options(["--place", "rr"]);
    let (finished, used) = watched(bed, &job, Instant::now() + END_LATEST)?;
    let said = shortened(&finished.stderr);
    ensure!(
        finished.code() == Some(HOST_LOST),
        "exit code {:?} instead of {HOST_LOST}, up to {used:?} bytes; stderr: {said}",
        finished.code()
    );
    ensure!(
        said.contains("memory limit of 64 MiB reached") && said.contains("host h"),
        "the message says nothing of the limit: {said}"
    );
    ensure!(alive(beside.pid()), "the job beside it has ended");
    beside.interrupt();
    beside.wait(bed.deadline, &AtomicBool::new(false))?;
    while !left_behind(bed.hosts)?.is_empty() {
        ensure!(Instant::now() < bed.deadline, "left: {:?}", left_behind(bed.hosts)?);
        sleep(POLL);
    }
    ensure!(agents.iter().all(|pid| alive(*pid)), "an agent has ended");
    let small = bed.job("fill", &[SMALL])?.options(["--place", "rr"]);
    bed.succeed(&small)?;
    let used: Vec<u64> = used.iter().map(|used| used >> 20).collect();
    Ok(format!("over after {:.1} s, up to {used:?} MiB: {said}", finished.elapsed.as_secs_f64()))
}

/// Runs a job to its end. Says what each host used at most, in bytes, as its agent has it.
fn watched(bed: &Bed<'_>, job: &Job, deadline: Instant) -> Result<(Finished, Vec<u64>)> {
    let is_over = AtomicBool::new(false);
    let hosts = bed.hosts;
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = vec![0; hosts.hosts().len()];
            while !is_over.load(Ordering::Relaxed) {
                for (index, most) in most.iter_mut().enumerate() {
                    *most = used(hosts, index)?.max(*most);
                }
                sleep(POLL);
            }
            Ok(most)
        });
        let finished = job.run(hosts, deadline);
        is_over.store(true, Ordering::Relaxed);
        let most: Result<Vec<u64>> = watching.join().map_err(|_| anyhow!("the thread that watches has panicked"))?;
        Ok((finished?, most?))
    })
}

fn used(hosts: &LocalHosts, index: usize) -> Result<u64> {
    let status = hosts.status(index)?.context("an agent does not answer")?;
    status.pointer("/memory/used_bytes").and_then(Value::as_u64).context("no memory in the status")
}
