//! DISA programs over hosts: they print what the machine of one host prints.
//!
//! Owns which programs. Must not know what they compute.

use super::bed::{Bed, shortened};
use super::case::Case;
use anyhow::{Context, Result, ensure};
use dvm_hosts::User;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

/// A run that takes longer hangs.
const RUN_SECONDS: &str = "90";

const PROGRAMS: [(&str, &str); 6] = [
    ("treesum", include_str!("../../../dvm-exec/disa/programs/treesum.disa")),
    ("bank", include_str!("../../../dvm-exec/disa/programs/bank.disa")),
    ("storm", include_str!("../../../dvm-exec/disa/programs/storm.disa")),
    ("kmeans", include_str!("../../../dvm-exec/disa/programs/kmeans.disa")),
    ("primes", include_str!("../../../dvm-exec/disa/programs/primes.disa")),
    ("write-skew", include_str!("../../../dvm-exec/disa/programs/write-skew.disa")),
];

/// The cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for hosts in [2, 3] {
        for (name, source) in PROGRAMS {
            let mut case = Case::new(format!("disa-{name}-{hosts}"), hosts, move |bed| same_as_local(bed, name, source));
            case.deadline = Duration::from_secs(200);
            cases.push(case);
        }
    }
    cases.push(Case::new("disa-traps-2", 2, traps));
    cases
}

/// What differs from the shipped program: sizes that an interpreter does in seconds, and a rule that leaves one result.
fn source_of(name: &str, source: &str) -> Result<String> {
    let (from, to) = match name {
        "primes" => (".equ CHUNK, 100000", ".equ CHUNK, 1000"),
        "write-skew" => (".entry main", ".serializable\n.entry main"),
        _ => return Ok(source.to_owned()),
    };
    ensure!(source.contains(from), "{name}: `{from}` is not in the program");
    Ok(source.replace(from, to))
}

fn written(bed: &Bed<'_>, name: &str, source: &str) -> Result<PathBuf> {
    let directory = bed.workshop.job_directory();
    std::fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{name}.disa"));
    std::fs::write(&path, source).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn run(bed: &Bed<'_>, options: &[&str], path: &Path) -> Result<Output> {
    let mut command = bed.hosts.command(0, User::Root, Path::new("timeout"))?;
    command.arg(RUN_SECONDS).arg(&bed.hosts.binaries().exec).args(["disa", "run", "--stat"]).args(options).arg(path);
    command.output().context("cannot start dvm-exec")
}

fn over_hosts(bed: &Bed<'_>, path: &Path) -> Result<Output> {
    let socket = bed.hosts.host(0)?.socket.display().to_string();
    run(bed, &["--socket", &socket], path)
}

fn same_as_local(bed: &mut Bed<'_>, name: &str, source: &str) -> Result<String> {
    let path = written(bed, name, &source_of(name, source)?)?;
    let expected = run(bed, &["--local"], &path)?;
    let found = over_hosts(bed, &path)?;
    let told = String::from_utf8_lossy(&found.stderr);
    ensure!(
        (found.status.code(), &found.stdout) == (expected.status.code(), &expected.stdout),
        "{:?} with {:?} instead of {:?} with {:?}; stderr: {}",
        found.status.code(),
        String::from_utf8_lossy(&found.stdout),
        expected.status.code(),
        String::from_utf8_lossy(&expected.stdout),
        shortened(&told)
    );
    let ends: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("ended on ")).collect();
    // Write skew has few runners, which one host may have taken.
    let is_spread = ends.len() == bed.hosts.hosts().len() || name == "write-skew";
    ensure!(is_spread, "not every host ran a runner: {}", shortened(&told));
    Ok(ends.join(", "))
}

/// Runners that die on other hosts: each is told, others go on, the status is 1.
fn traps(bed: &mut Bed<'_>) -> Result<String> {
    let source = "main: newr $d, $n, $n, $f\nnewr $d, $n, $n, $g\nnewr $d, $n, $n, $h\nexit:c\nbad: div w0, w1, w2\nexit:c\n\
                  far: mov $1, SR\nexit:c\ngood: sys $1, $7\nexit:c\n.entry main\n.rodata\nd: .quad 0, 0\nn: .quad 0\nf: .quad bad\ng: .quad far\nh: .quad good\n";
    let path = written(bed, "traps", source)?;
    let found = over_hosts(bed, &path)?;
    let told = String::from_utf8_lossy(&found.stderr);
    ensure!(
        found.status.code() == Some(1) && found.stdout == b"7\n" && told.contains("DIV0") && told.contains("RANGE"),
        "{:?}: {:?}; {}",
        found.status.code(),
        String::from_utf8_lossy(&found.stdout),
        shortened(&told)
    );
    Ok("two traps told, the third runner printed".to_owned())
}
