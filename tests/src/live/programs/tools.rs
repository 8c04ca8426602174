//! Tools for files, loads made for measuring, and interpreters.
//!
//! Owns the arguments of the programs, their trees of files, and what of their results are times. Must not know how they are run.

use super::{Bed, Need, PLAIN, Program};
use anyhow::Result;
use std::fs;
use std::path::Path;

const LINES: &str = "lines";
/// `sort` shares its work out from 131,072 lines on.
const LINES_COUNT: u64 = 400_000;

const SYSBENCH: Program =
    Program { command: Some("sysbench"), normalise: without_times, needs: &[Need::Program("sysbench")], ..PLAIN };
const SORT: Program = Program { command: Some("sort"), prepare: put_lines, needs: &[Need::Program("sort")], ..PLAIN };

pub const PROGRAMS: &[Program] = &[
    Program {
        name: "sysbench-cpu",
        arguments: &["cpu", "--threads=6", "--events=400", "--time=0", "--cpu-max-prime=20000", "run"],
        ..SYSBENCH
    },
    Program {
        name: "sysbench-mutex",
        arguments: &["mutex", "--threads=6", "--mutex-num=64", "--mutex-locks=20000", "--mutex-loops=2000", "run"],
        ..SYSBENCH
    },
    Program {
        name: "sysbench-memory",
        arguments: &[
            "memory",
            "--threads=6",
            "--time=0",
            "--memory-block-size=4K",
            "--memory-total-size=1G",
            "--memory-scope=local",
            "run",
        ],
        ..SYSBENCH
    },
    Program { name: "sort-merging", arguments: &["--parallel=4", "-S", "16M", LINES], ..SORT },
    Program { name: "sort", arguments: &["--parallel=6", "-S", "200M", "-k", "2", "-s", LINES], ..SORT },
    Program {
        name: "python3-threads",
        command: Some("python3"),
        arguments: &["-c", include_str!("../../../programs/pool.py")],
        needs: &[Need::Program("python3")],
        ..PLAIN
    },
    Program {
        name: "rg",
        arguments: &["--no-config", "-j", "6", "--text", "--count", "-e", r"(?i)\b(\w+ ){2,5}threads?\b.*\d{4}", "tree"],
        prepare: put_tree,
        normalise: in_order,
        needs: &[Need::Program("rg")],
        ..PLAIN
    },
];

/// Takes the lines out that name times, or counts that depend on them.
fn without_times(path: &Path) -> Result<()> {
    const TIMED: [&str; 9] =
        ["per second", "total time:", "transferred", "min:", "avg:", "max:", "percentile:", "sum:", "avg/stddev"];
    let text = fs::read_to_string(path)?;
    let kept = text.lines().filter(|line| !TIMED.iter().any(|timed| line.contains(timed)));
    Ok(fs::write(path, kept.map(|line| format!("{line}\n")).collect::<String>())?)
}

/// Sorts the lines: files are searched in the order in which threads get to them.
fn in_order(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    Ok(fs::write(path, lines.join("\n"))?)
}

/// Short lines in disorder, many of them with an equal second word.
fn put_lines(_: &mut Bed<'_>, directory: &Path) -> Result<()> {
    let line = |number: u64| {
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        format!("{:x} {}\n", mixed >> 24, mixed >> 11 & 0xfff)
    };
    Ok(fs::write(directory.join(LINES), (0..LINES_COUNT).map(line).collect::<String>())?)
}

/// Files of all sizes in several directories.
fn put_tree(bed: &mut Bed<'_>, directory: &Path) -> Result<()> {
    let sample = fs::read(bed.workshop.sample(8)?)?;
    for (number, part) in sample.chunks(200_003).enumerate() {
        let branch = directory.join(format!("tree/branch-{}", number % 7));
        fs::create_dir_all(&branch)?;
        for leaf in 0..4 {
            let kept = part.len() >> leaf;
            fs::write(branch.join(format!("leaf-{number}-{leaf}")), part.get(..kept).unwrap_or_default())?;
        }
    }
    Ok(())
}
