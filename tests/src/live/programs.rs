//! Unmodified programs over two and three hosts, their output equal to a native run's.
//!
//! Owns the list of programs and their arguments. Must not know how a job is watched.

use super::bed::{Bed, same_bytes, shortened};
use super::case::{Case, Need};
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{Job, memory_file_bytes};
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// A program that writes its result to standard output.
struct Program {
    name: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
    /// Mebibytes of the sample it reads from standard input; 0: none.
    input_mebibytes: usize,
    needs: &'static [Need],
}

const GCC: Need = Need::Program("gcc");

const PROGRAMS: [Program; 10] = [
    Program {
        name: "pigz",
        arguments: &["-p", "6", "-n", "-c"],
        environment: &[],
        input_mebibytes: 16,
        needs: &[Need::Program("pigz")],
    },
    Program {
        name: "xz",
        arguments: &["-T", "4", "-3", "--block-size=1MiB", "-c"],
        environment: &[],
        input_mebibytes: 8,
        needs: &[Need::Program("xz")],
    },
    Program {
        name: "zstd",
        arguments: &["-q", "-T4", "-12", "-B1MiB", "-c"],
        environment: &[],
        input_mebibytes: 8,
        needs: &[Need::Program("zstd")],
    },
    Program {
        name: "pbzip2",
        arguments: &["-p4", "-q", "-c"],
        environment: &[],
        input_mebibytes: 8,
        needs: &[Need::Program("pbzip2")],
    },
    Program {
        name: "povray",
        arguments: &["+Iscene.pov", "+O-", "+FP", "+W240", "+H180", "+WT4", "-D", "-GA"],
        environment: &[],
        input_mebibytes: 0,
        needs: &[Need::Program("povray")],
    },
    Program {
        name: "openmp",
        arguments: &["16", "6"],
        environment: &[("OMP_NUM_THREADS", "4"), ("OMP_WAIT_POLICY", "passive"), ("GOMP_SPINCOUNT", "0")],
        input_mebibytes: 0,
        needs: &[GCC],
    },
    Program { name: "threads", arguments: &["6"], environment: &[], input_mebibytes: 0, needs: &[Need::Program("cc")] },
    Program { name: "stress", arguments: &["6"], environment: &[], input_mebibytes: 0, needs: &[GCC] },
    Program { name: "stress-static", arguments: &["6"], environment: &[], input_mebibytes: 0, needs: &[GCC] },
    Program { name: "stress-static-pie", arguments: &["6"], environment: &[], input_mebibytes: 0, needs: &[GCC] },
];

/// Each program on two and on three hosts, and what programs rely on beside their output.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for hosts in [2, 3] {
        for program in &PROGRAMS {
            cases.push(
                Case::new(format!("program-{}-{hosts}", program.name), hosts, move |bed| run(bed, program))
                    .needs(program.needs)
                    .within_seconds(90),
            );
        }
    }
    cases.push(Case::new("status-and-stdio", 2, status_and_stdio));
    cases.push(Case::new("sparse-touch", 2, sparse_touch).needs(&[GCC]));
    cases
}

/// A job of one of the list, for the cases that need a well-known program.
///
/// # Errors
/// No such program, or its files cannot be made.
pub fn job(bed: &mut Bed<'_>, name: &str) -> Result<Job> {
    let program = PROGRAMS.iter().find(|program| program.name == name).with_context(|| format!("no program {name}"))?;
    let mut job = bed.job(program.name, program.arguments)?;
    job.environment = program.environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    if program.input_mebibytes > 0 {
        job.stdin = Some(bed.workshop.sample(program.input_mebibytes)?);
    }
    if name == "povray" {
        let scene = bed.workshop.scene()?;
        fs::create_dir_all(&job.directory)?;
        fs::copy(scene, job.directory.join("scene.pov"))?;
    }
    Ok(job)
}

fn run(bed: &mut Bed<'_>, program: &Program) -> Result<String> {
    let job = job(bed, program.name)?.options(["--place", "rr"]);
    let expected = bed.workshop.native(program.name, &job)?;
    let finished = bed.succeed(&job)?;
    if program.name == "povray" {
        without_date(&expected)?;
        without_date(&finished.stdout)?;
    }
    same_bytes(&expected, &finished.stdout).with_context(|| format!("stderr: {}", shortened(&finished.stderr)))?;
    bed.all_hosts_worked(&finished)
}

/// Takes the comments out of a PPM file's head: one of them is the time of rendering.
fn without_date(path: &Path) -> Result<()> {
    let bytes = fs::read(path)?;
    let (mut plain, mut rest, mut lines) = (Vec::with_capacity(bytes.len()), bytes.as_slice(), 0);
    // The head is three lines: format, size, largest value.
    while lines < 3 {
        let end = rest.iter().position(|byte| *byte == b'\n').context("the picture ends within its head")?;
        let (line, after) = rest.split_at(end + 1);
        if !line.starts_with(b"#") {
            plain.extend_from_slice(line);
            lines += 1;
        }
        rest = after;
    }
    plain.extend_from_slice(rest);
    Ok(fs::write(path, plain)?)
}

/// Exit codes, a signal's death, standard input and output of small programs.
fn status_and_stdio(bed: &mut Bed<'_>) -> Result<String> {
    for (program, code) in [("true", 0), ("false", 1)] {
        let finished = bed.job(program, &[])?.run(bed.hosts, bed.deadline)?;
        ensure!(finished.code() == Some(code), "{program}: exit code {:?}; {}", finished.code(), shortened(&finished.stderr));
    }
    let mut cat = bed.job("cat", &[])?;
    let sample = bed.workshop.sample(1)?;
    cat.stdin = Some(sample.clone());
    let finished = bed.succeed(&cat)?;
    same_bytes(&sample, &finished.stdout)?;
    let finished = bed.job("cat", &["/nonexistent/file"])?.run(bed.hosts, bed.deadline)?;
    ensure!(finished.code() == Some(1), "cat of a missing file: exit code {:?}", finished.code());
    ensure!(finished.stderr.contains("/nonexistent/file"), "cat's own message is missing: {}", shortened(&finished.stderr));
    Ok("exit codes, stdin, stdout, stderr".into())
}

/// One byte per 2 MiB over 8 GiB may cost 64 MiB, all hosts together.
fn sparse_touch(bed: &mut Bed<'_>) -> Result<String> {
    const BYTES_MAX: u64 = 64 << 20;
    let running = bed.job("sparse", &["3"])?.options(["--place", "rr"]).start(bed.hosts)?;
    let patience = bed.deadline.min(Instant::now() + Duration::from_secs(40));
    while !running.output_so_far().contains("touched") {
        if Instant::now() > patience {
            let finished = running.wait(Instant::now(), &AtomicBool::new(true))?;
            bail!("touches too slowly or hangs; stderr: {}\n{}", shortened(&finished.stderr), finished.autopsy);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut bytes = 0;
    for index in 0..bed.hosts.hosts().len() {
        bytes += bed.hosts.agent(index)?.map_or(0, |agent| memory_file_bytes(agent.pid));
    }
    let finished = running.wait(bed.deadline, &AtomicBool::new(false))?;
    ensure!(finished.code() == Some(0), "exit code {:?}; stderr: {}", finished.code(), shortened(&finished.stderr));
    ensure!(bytes > 0, "no memfd seen in any agent: nothing was measured");
    ensure!(bytes <= BYTES_MAX, "{} MiB of memory for 4,096 bytes touched: {} allowed", bytes >> 20, BYTES_MAX >> 20);
    Ok(format!("{} MiB", bytes >> 20))
}
