//! Unmodified programs over two and three hosts, their output equal to a native run's.
//!
//! Owns what a program of the list is, and its cases; the list itself is in one file a kind. Must not know how a job is watched.

mod compressors;
mod genome;
mod media;
mod numeric;
mod omp;
mod own;
mod runtimes;
mod science;
mod servers;
mod small;
mod tools;

use super::bed::{Bed, same_bytes, shortened};
use super::case::{Case, Need};
use anyhow::{Context, Result};
use dvm_hosts::Job;
use std::fs;
use std::path::Path;

/// A program that writes its result to standard output, or to one file.
struct Program {
    /// Name of the case, and of the program unless `command` says otherwise.
    name: &'static str,
    command: Option<&'static str>,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// Mebibytes of the sample it reads from standard input; 0: none.
    input_mebibytes: usize,
    /// Numbers of hosts it is run on.
    hosts: &'static [usize],
    needs: &'static [Need],
    /// Puts files into the directory it starts in.
    prepare: fn(&mut Bed<'_>, &Path) -> Result<()>,
    /// The file in its directory that it writes its result to, if that is not standard output.
    result: Option<&'static str>,
    /// Takes out of its result what differs between two native runs, such as dates.
    normalise: fn(&Path) -> Result<()>,
    /// Longest run, in seconds.
    seconds: u64,
}

const GCC: Need = Need::Program("gcc");

/// Programs that are run on two and on three hosts with each fast path in a test; the others are [`further`] ones.
const EVERY_TURN: [&str; 10] =
    ["pigz", "xz", "zstd", "pbzip2", "povray", "openmp", "threads", "stress", "stress-static", "stress-static-pie"];

/// A program that needs nothing.
const PLAIN: Program = Program {
    name: "",
    command: None,
    arguments: &[],
    environment: &[],
    input_mebibytes: 0,
    hosts: &[2, 3],
    needs: &[],
    prepare: |_, _| Ok(()),
    result: None,
    normalise: |_| Ok(()),
    seconds: 90,
};

const LISTS: &[&[Program]] = &[
    compressors::PROGRAMS,
    media::PROGRAMS,
    numeric::PROGRAMS,
    omp::PROGRAMS,
    own::PROGRAMS,
    runtimes::PROGRAMS,
    science::PROGRAMS,
    tools::PROGRAMS,
];

/// Each program on two and on three hosts, and what programs rely on beside their output.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for hosts in [2, 3] {
        for program in LISTS.iter().copied().flatten().filter(|program| program.hosts.contains(&hosts)) {
            let is_first = EVERY_TURN.contains(&program.name);
            let name = if is_first { format!("program-{}-{hosts}", program.name) } else { further(program.name, hosts) };
            cases.push(Case::new(name, hosts, move |bed| run(bed, program)).needs(program.needs).within_seconds(program.seconds));
        }
    }
    cases.extend(servers::cases());
    cases.push(Case::new("refuse-java-zgc", 2, runtimes::refuse_zgc).needs(runtimes::JAVA));
    cases.push(Case::new("status-and-stdio", 2, small::status_and_stdio));
    cases.push(Case::new("sparse-touch", 2, small::sparse_touch).needs(&[GCC]));
    cases
}

/// Name of a case that is run on three hosts in one turn of a test, and in all ways in a soak.
fn further(name: &str, hosts: usize) -> String {
    format!("further-program-{hosts}/{name}")
}

/// A job of one of the list, for the cases that need a well-known program.
///
/// # Errors
/// No such program, or its files cannot be made.
pub fn job(bed: &mut Bed<'_>, name: &str) -> Result<Job> {
    let program =
        LISTS.iter().copied().flatten().find(|program| program.name == name).with_context(|| format!("no program {name}"))?;
    job_of(bed, program)
}

fn job_of(bed: &mut Bed<'_>, program: &Program) -> Result<Job> {
    let mut job = bed.job(program.command.unwrap_or(program.name), program.arguments)?;
    job.environment = program.environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    if program.input_mebibytes > 0 {
        job.stdin = Some(bed.workshop.sample(program.input_mebibytes)?);
    }
    fs::create_dir_all(&job.directory)?;
    (program.prepare)(bed, &job.directory)?;
    Ok(job)
}

fn run(bed: &mut Bed<'_>, program: &Program) -> Result<String> {
    // The others are placed as users have it, and say what was done.
    let placement = if EVERY_TURN.contains(&program.name) { "rr" } else { "auto" };
    let job = job_of(bed, program)?.options(["--place", placement]);
    let native = bed.workshop.native_directory(program.name)?;
    (program.prepare)(bed, &native)?;
    let mut expected = bed.workshop.native(program.name, &job)?;
    let finished = bed.succeed(&job)?;
    let mut found = finished.stdout.clone();
    if let Some(result) = program.result {
        (expected, found) = (native.join(result), job.directory.join(result));
    }
    (program.normalise)(&expected)?;
    (program.normalise)(&found)?;
    same_bytes(&expected, &found).with_context(|| format!("stderr: {}", shortened(&finished.stderr)))?;
    // Threads that it starts when all are gathered go nowhere else.
    if placement == "auto" && finished.stderr.lines().any(|line| line.contains("placement: ") && line.contains("all were on ")) {
        return Ok(format!("{:.1} s, gathered on one host", finished.elapsed.as_secs_f64()));
    }
    bed.all_hosts_worked(&finished)
}

fn put(directory: &Path, name: &str, text: &str) -> Result<()> {
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Takes the lines with one of these beginnings out of a text.
fn without_lines(path: &Path, beginnings: &[&str]) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let stays = |line: &&str| !beginnings.iter().any(|beginning| line.starts_with(beginning));
    Ok(fs::write(path, text.split_inclusive('\n').filter(stays).collect::<String>())?)
}
