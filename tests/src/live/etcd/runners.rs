//! DISA runs on a real etcd: any host of a run may be lost, the one where it was started included.
//!
//! Owns who is killed when. Must not know the program.

use super::super::bed::{Bed, shortened};
use super::server::Etcd;
use super::{HOSTS, SOON, start};
use anyhow::{Context, Result, ensure};
use dvm_hosts::{User, kill_process, output_within};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A program of which every host has pages, and how it is made to take longer than all waits here.
const PROGRAM: &str = include_str!("../../../../dvm-exec/disa/programs/kmeans.dc");
const ROUNDS: [&str; 2] = ["ROUNDS = 10;", "ROUNDS = 80;"];
/// Where the run is started: etcd is on the first host.
pub(super) const ROOT: usize = 1;
const OTHER: usize = 0;
pub(super) const RUN_LATEST: Duration = Duration::from_secs(90);
pub(super) const POLL: Duration = Duration::from_millis(20);
/// Exit code of `attach` where nobody has taken over.
pub(super) const NOT_HERE: i32 = 127;

/// The host where a run was started is killed with all that is on it, at several moments; `attach` shows what was to be seen.
pub fn root_killed(bed: &mut Bed<'_>) -> Result<String> {
    let bed = &*bed;
    let etcd = Etcd::new(bed, false)?;
    let path = written(bed)?;
    let expected = output_within(disa(bed, ROOT, &["run", "--local"])?.arg(&path), RUN_LATEST)?;
    let mut told = Vec::new();
    for after_ms in [1000, 1500, 2500, 3500] {
        start(bed, &etcd, &if told.is_empty() { vec![0, 1, 2] } else { vec![ROOT] })?;
        let socket = bed.hosts.host(ROOT)?.socket.display().to_string();
        let mut command = disa(bed, ROOT, &["run", "--copies", "2", "--socket", &socket])?;
        let mut running = command.arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        etcd.until("the others take part", SOON, || Ok(space(&etcd)?.is_some()))?;
        let job = space(&etcd)?.context("the job is gone")?;
        sleep(Duration::from_millis(after_ms));
        let struck = Instant::now();
        // The agent first: it would tell the others that its `dvm-exec` has ended, and a host that fails tells nobody.
        kill_process(bed.hosts.agent(ROOT)?.context("no agent to kill")?.pid);
        for process in bed.hosts.processes(ROOT)? {
            kill_process(process.pid);
        }
        running.wait()?;
        let found = loop {
            let found = attach(bed, &job)?;
            if found.status.code() != Some(NOT_HERE) || struck.elapsed() > SOON {
                break found;
            }
            sleep(POLL);
        };
        ensure!(
            (found.status.code(), &found.stdout) == (expected.status.code(), &expected.stdout),
            "after {after_ms} ms: {:?} with {:?}; stderr: {}",
            found.status.code(),
            String::from_utf8_lossy(&found.stdout),
            shortened(&String::from_utf8_lossy(&found.stderr))
        );
        told.push(format!("{:.1} s", struck.elapsed().as_secs_f64()));
    }
    Ok(format!("the root was killed {} times; the end was seen after {}", told.len(), told.join(", ")))
}

/// A member of such a run is killed, the one with the second log first: the run goes on where it is.
pub fn backup_killed(bed: &mut Bed<'_>) -> Result<String> {
    let bed = &*bed;
    let etcd = Etcd::new(bed, false)?;
    start(bed, &etcd, &[0, 1, 2])?;
    let path = written(bed)?;
    let expected = output_within(disa(bed, ROOT, &["run", "--local"])?.arg(&path), RUN_LATEST)?;
    let socket = bed.hosts.host(ROOT)?.socket.display().to_string();
    let mut command = disa(bed, ROOT, &["run", "--copies", "2", "--socket", &socket, "--hosts", "h2,h0"])?;
    let running = command.arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    etcd.until("the third host takes part", SOON, || Ok(space(&etcd)?.is_some()))?;
    sleep(Duration::from_millis(700));
    kill_process(bed.hosts.agent(2)?.context("no agent to kill")?.pid);
    let found = running.wait_with_output()?;
    let said = String::from_utf8_lossy(&found.stderr);
    ensure!(
        (found.status.code(), &found.stdout) == (expected.status.code(), &expected.stdout),
        "{:?}; stderr: {}",
        found.status.code(),
        shortened(&said)
    );
    ensure!(said.contains("host h2 lost"), "the loss is not told: {}", shortened(&said));
    Ok("the run went on without the host that had the log, too".to_owned())
}

fn written(bed: &Bed<'_>) -> Result<std::path::PathBuf> {
    let directory = bed.workshop.job_directory();
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("kmeans.dc");
    ensure!(PROGRAM.contains(ROUNDS[0]), "the program has no `{}`", ROUNDS[0]);
    std::fs::write(&path, PROGRAM.replace(ROUNDS[0], ROUNDS[1])).with_context(|| path.display().to_string())?;
    Ok(path)
}

pub(super) fn disa(bed: &Bed<'_>, index: usize, words: &[&str]) -> Result<Command> {
    let mut command = bed.hosts.command(index, User::Root, Path::new("timeout"))?;
    command.arg(RUN_LATEST.as_secs().to_string()).arg(&bed.hosts.binaries().exec).arg("disa").args(words);
    Ok(command)
}

/// What the host that has taken over shows; which one that is follows from the numbers that etcd gave out.
pub(super) fn attach(bed: &Bed<'_>, job: &str) -> Result<Output> {
    let mut found = None;
    for index in (0..HOSTS).filter(|index| *index != ROOT) {
        let socket = bed.hosts.host(index)?.socket.display().to_string();
        let mut command = disa(bed, index, &["attach", "--socket", &socket, job])?;
        let output = output_within(&mut command, RUN_LATEST)?;
        if output.status.code() != Some(NOT_HERE) {
            return Ok(output);
        }
        found = Some(output);
    }
    found.context("there is no other host")
}

/// The job in which the other hosts take part.
pub(super) fn space(etcd: &Etcd<'_>) -> Result<Option<String>> {
    let status = etcd.status(OTHER)?;
    let jobs = status["jobs"].as_array().context("no jobs")?;
    ensure!(jobs.len() <= 1 && HOSTS == 3, "{} jobs", jobs.len());
    Ok(jobs.first().map(|job| job["space"].to_string()))
}
