//! Jobs of ordinary users beside one another.
//!
//! Owns what users may and may not do to each other's jobs. Must not know how the agent starts husks.

use super::bed::{Bed, same_bytes, shortened};
use super::case::{Case, Need};
use super::programs;
use anyhow::{Result, bail, ensure};
use dvm_hosts::{User, output_within};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const FIRST: u32 = 64_101;
const SECOND: u32 = 64_102;
/// An intrusion is refused at once.
const ATTEMPT_LATEST: Duration = Duration::from_secs(5);

/// An ordinary user's job beside another's.
#[must_use]
pub fn cases() -> Vec<Case> {
    [2, 3]
        .into_iter()
        .map(|hosts| {
            Case::new(format!("ordinary-users-{hosts}"), hosts, two_users)
                .needs(&[Need::Program("pigz"), Need::Program("gcc")])
                .within_seconds(90)
        })
        .collect()
}

fn two_users(bed: &mut Bed<'_>) -> Result<String> {
    let mut other = bed.job("endless", &["4", "80"])?.options(["--place", "rr"]);
    other.user = User::Ordinary(FIRST);
    let running = other.start(bed.hosts)?;
    let patience = Instant::now() + Duration::from_secs(20);
    while !running.output_so_far().contains("running") {
        if Instant::now() > patience {
            let finished = running.wait(Instant::now(), &AtomicBool::new(true))?;
            bail!("the first user's job does not start; stderr: {}\n{}", shortened(&finished.stderr), finished.autopsy);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let checks = beside(bed);
    running.interrupt();
    let finished = running.wait(Instant::now() + Duration::from_secs(5), &AtomicBool::new(false))?;
    let said = checks?;
    ensure!(finished.code() == Some(130), "the first user's ^C gave {:?}: {}", finished.code(), shortened(&finished.stderr));
    Ok(said)
}

fn beside(bed: &mut Bed<'_>) -> Result<String> {
    let mut job = programs::job(bed, "pigz")?.options(["--place", "rr"]);
    let expected = bed.workshop.native("pigz", &job)?;
    job.user = User::Ordinary(SECOND);
    let finished = bed.succeed(&job)?;
    same_bytes(&expected, &finished.stdout)?;
    let mut tried = 0;
    for index in 0..bed.hosts.hosts().len() {
        for process in bed.hosts.processes(index)?.iter().filter(|process| process.name != "dvm-agent") {
            ensure!(process.uid == FIRST, "{} of {} runs as uid {}", process.name, bed.hosts.host(index)?.name, process.uid);
            let pid = process.pid.to_string();
            for attempt in [["kill", "-0", &pid].as_slice(), &["cat", &format!("/proc/{pid}/maps")]] {
                ensure!(!allowed(bed, index, attempt)?, "another user's `{}` succeeded", attempt.join(" "));
                tried += 1;
            }
        }
    }
    ensure!(tried >= 2 * bed.hosts.hosts().len(), "only {tried} attempts made: the first job is not on all hosts");
    Ok(format!("{}; {tried} intrusions refused", bed.all_hosts_worked(&finished)?))
}

/// Whether the second user's command succeeds on a host.
fn allowed(bed: &Bed<'_>, host: usize, words: &[&str]) -> Result<bool> {
    let mut command = bed.hosts.command(host, User::Ordinary(SECOND), Path::new("/usr/bin/env"))?;
    Ok(output_within(command.args(words), ATTEMPT_LATEST)?.status.success())
}
