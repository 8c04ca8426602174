//! DISA runs on a real etcd of which one host, whichever it is, is killed at any moment: nothing is lost.
//!
//! Owns the programs, and who is killed when, which follows from the seed. Must not know what the programs compute.

use super::super::bed::{Bed, shortened};
use super::super::failures::husks;
use super::super::words;
use super::runners::{NOT_HERE, POLL, ROOT, RUN_LATEST, attach, disa, space};
use super::server::Etcd;
use super::{HOSTS, SOON, start};
use anyhow::{Context, Result, ensure};
use dvm_disa::machine::chance::Chance;
use dvm_hosts::{kill_process, output_within};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The moment lies between these from when the others take part: before, who has asked for a host is told that it is gone.
const EARLIEST_MS: u64 = 700;
const SPAN_MS: usize = 2500;
const TEXT: &str = "text";
/// Some seconds of counting.
const TEXT_BYTES: usize = 24 << 20;

/// A program, and how it is asked to do some seconds of work in many commits.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    name: &'static str,
    source: &'static str,
    defines: &'static [&'static str],
    has_text: bool,
}

/// k-means, over and over.
pub const KMEANS: Program = Program {
    name: "kmeans.dc",
    source: include_str!("../../../../dvm-exec/disa/programs/kmeans.dc"),
    defines: &["-D", "PARTS=40", "-D", "ROUNDS=30"],
    has_text: false,
};

/// Word count, in many parts.
pub const WORD_COUNT: Program = Program {
    name: "wordcount.dc",
    source: include_str!("../../../../dvm-exec/disa/programs/wordcount.dc"),
    defines: &["-D", "PARTS=256", "-D", "SLOTS=65536"],
    has_text: true,
};

/// One run in which a host that follows from the seed is killed at a moment that follows from it.
pub fn kill_any(bed: &mut Bed<'_>, program: Program) -> Result<String> {
    let bed = &*bed;
    let mut chance = Chance::new(bed.effort.seed);
    let (victim, after_ms) = (chance.below(HOSTS), EARLIEST_MS + chance.below(SPAN_MS) as u64);
    let told = format!("seed {}: h{victim} killed after {after_ms} ms", bed.effort.seed);
    let etcd = Etcd::new(bed, false)?;
    start(bed, &etcd, &[0, 1, 2])?;
    let directory = written(bed, program)?;
    let expected = output_within(command(bed, program, &directory, &["--local"])?.stderr(Stdio::null()), RUN_LATEST)?;
    let socket = bed.hosts.host(ROOT)?.socket.display().to_string();
    let mut running = command(bed, program, &directory, &["--socket", &socket])?;
    let mut running = running.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    etcd.until("the others take part", SOON, || Ok(space(&etcd)?.is_some()))?;
    let job = space(&etcd)?.context("the job is gone")?;
    sleep(Duration::from_millis(after_ms));
    let is_early = running.try_wait()?.is_some();
    // The agent first: it would tell the others that what it serves has ended, and a host that fails tells nobody.
    kill_process(bed.hosts.agent(victim)?.context("no agent to kill")?.pid);
    if victim == ROOT {
        bed.hosts.processes(ROOT)?.iter().for_each(|process| kill_process(process.pid));
    } else {
        // What else is on the first host is etcd, which is none of the cluster's hosts.
        husks(bed, victim)?.into_iter().for_each(kill_process);
    }
    let struck = Instant::now();
    let mut found = running.wait_with_output()?;
    if victim == ROOT && !is_early {
        found = taken_over(bed, &job, struck)?;
    }
    ensure!(
        (found.status.code(), &found.stdout) == (expected.status.code(), &expected.stdout),
        "{told}: {:?} with {:?} instead of {:?}; stderr: {}",
        found.status.code(),
        String::from_utf8_lossy(&found.stdout),
        String::from_utf8_lossy(&expected.stdout),
        shortened(&String::from_utf8_lossy(&found.stderr))
    );
    let when = if is_early {
        "the run was over".to_owned()
    } else {
        format!("the end came {:.1} s later", struck.elapsed().as_secs_f64())
    };
    Ok(format!("{told}; {when}"))
}

/// What the host shows that has taken over, as soon as there is one.
fn taken_over(bed: &Bed<'_>, job: &str, since: Instant) -> Result<Output> {
    loop {
        let found = attach(bed, job)?;
        if found.status.code() != Some(NOT_HERE) || since.elapsed() > SOON {
            return Ok(found);
        }
        sleep(POLL);
    }
}

fn command(bed: &Bed<'_>, program: Program, directory: &Path, options: &[&str]) -> Result<Command> {
    let mut command = disa(bed, ROOT, &["run"])?;
    // Files go by the name under which they are given.
    command.current_dir(directory).args(options).args(program.defines);
    if program.has_text {
        command.args(["--file", TEXT]);
    }
    command.arg(program.name);
    if program.has_text {
        command.arg(TEXT);
    }
    Ok(command)
}

fn written(bed: &Bed<'_>, program: Program) -> Result<PathBuf> {
    let directory = bed.workshop.job_directory();
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(program.name), program.source)?;
    if program.has_text {
        std::fs::write(directory.join(TEXT), words::text(TEXT_BYTES))?;
    }
    Ok(directory)
}
