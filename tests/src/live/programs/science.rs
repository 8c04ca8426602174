//! Programs of science: what reads genomes, searches families of proteins, moves molecules.
//!
//! Owns their arguments, their inputs, and what of their results is a time. Must not know how they are run.

use super::genome::{write_family, write_genome};
use super::{Need, PLAIN, Program, without_lines};
use anyhow::{Context, Result, ensure};
use dvm_hosts::output_within;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Longest step that makes an input.
const STEP_LATEST: Duration = Duration::from_secs(60);
const GENOME_LETTERS: usize = 200_000;

pub const PROGRAMS: &[Program] = &[
    Program {
        name: "bwa",
        arguments: &["mem", "-t", "4", "-K", "400000", "genome.fa", "reads.fq"],
        prepare: |_, directory| {
            write_genome(directory, GENOME_LETTERS, 8000)?;
            step(directory, "bwa", &["index", "genome.fa"])
        },
        needs: &[Need::Program("bwa")],
        ..PLAIN
    },
    Program {
        name: "minimap2",
        arguments: &["-t", "4", "-K", "400k", "-a", "-x", "sr", "genome.fa", "reads.fq"],
        prepare: |_, directory| write_genome(directory, GENOME_LETTERS, 8000),
        needs: &[Need::Program("minimap2")],
        ..PLAIN
    },
    Program {
        name: "bowtie2",
        command: Some("bowtie2-align-s"),
        arguments: &["--wrapper", "basic-0", "-p", "4", "--reorder", "-x", "genome", "-U", "reads.fq"],
        prepare: |_, directory| {
            write_genome(directory, GENOME_LETTERS, 1500)?;
            step(directory, "bowtie2-build-s", &["--wrapper", "basic-0", "-q", "genome.fa", "genome"])
        },
        needs: &[Need::Program("bowtie2-align-s")],
        ..PLAIN
    },
    Program {
        name: "samtools",
        arguments: &["sort", "-@", "4", "--no-PG", "-O", "bam", "reads.sam"],
        prepare: |_, directory| {
            write_genome(directory, GENOME_LETTERS, 16_000)?;
            step(directory, "minimap2", &["-a", "-x", "sr", "-o", "reads.sam", "genome.fa", "reads.fq"])
        },
        needs: &[Need::Program("samtools"), Need::Program("minimap2")],
        ..PLAIN
    },
    Program {
        name: "blastn",
        arguments: &["-num_threads", "4", "-db", "subjects", "-query", "queries.fa", "-outfmt", "6"],
        prepare: |_, directory| {
            write_genome(directory, GENOME_LETTERS, 8000)?;
            put_sequences(directory, "subjects.fa", 8000)?;
            put_sequences(directory, "queries.fa", 1000)?;
            step(directory, "makeblastdb", &["-in", "subjects.fa", "-dbtype", "nucl", "-out", "subjects"])
        },
        needs: &[Need::Program("blastn")],
        ..PLAIN
    },
    Program {
        name: "hmmsearch",
        arguments: &["--cpu", "4", "--noali", "family.hmm", "proteins.fa"],
        prepare: |_, directory| {
            write_family(directory, 8000)?;
            step(directory, "hmmbuild", &["family.hmm", "family.sto"])
        },
        normalise: |path| without_lines(path, &["# CPU time:", "# Mc/sec:"]),
        needs: &[Need::Program("hmmsearch")],
        ..PLAIN
    },
    Program {
        name: "gromacs",
        command: Some("gmx"),
        arguments: &["-quiet", "mdrun", "-s", "water.tpr", "-nt", "4", "-ntmpi", "1", "-reprod", "-c", "last.gro"],
        environment: GROMACS_ENVIRONMENT,
        prepare: |_, directory| put_water(directory, 2.3),
        result: Some("last.gro"),
        needs: &[Need::Program("gmx")],
        ..PLAIN
    },
    Program {
        name: "gromacs-ranks",
        command: Some("gmx"),
        arguments: &["-quiet", "mdrun", "-s", "water.tpr", "-ntmpi", "4", "-ntomp", "1", "-reprod", "-c", "last.gro"],
        environment: GROMACS_ENVIRONMENT,
        prepare: |_, directory| put_water(directory, 3.2),
        result: Some("last.gro"),
        needs: &[Need::Program("gmx")],
        ..PLAIN
    },
];

/// A result of an earlier run is replaced.
const GROMACS_ENVIRONMENT: &[(&str, &str)] = &[("GMX_MAXBACKUP", "-1")];
const TOPOLOGY: &str =
    "#include \"oplsaa.ff/forcefield.itp\"\n#include \"oplsaa.ff/spce.itp\"\n[ system ]\nwater\n[ molecules ]\n";
const PARAMETERS: &str =
    "integrator = md\nnsteps = 20\ndt = 0.002\ncoulombtype = PME\nnstenergy = 10\ngen_vel = yes\ngen_seed = 7\n";

/// A box of water of so many nanometres, ready to run.
fn put_water(directory: &Path, side: f64) -> Result<()> {
    fs::write(directory.join("topol.top"), TOPOLOGY)?;
    fs::write(directory.join("md.mdp"), PARAMETERS)?;
    let side = side.to_string();
    step(
        directory,
        "gmx",
        &["-quiet", "solvate", "-cs", "spc216.gro", "-box", &side, &side, &side, "-o", "water.gro", "-p", "topol.top"],
    )?;
    step(directory, "gmx", &["-quiet", "grompp", "-f", "md.mdp", "-c", "water.gro", "-p", "topol.top", "-o", "water.tpr"])
}

/// The first reads, without what says how sure each letter is.
fn put_sequences(directory: &Path, name: &str, count: usize) -> Result<()> {
    let reads = fs::read_to_string(directory.join("reads.fq"))?;
    let mut lines = reads.lines();
    let mut sequences = String::new();
    for _ in 0..count {
        let (Some(head), Some(letters), Some(_), Some(_)) = (lines.next(), lines.next(), lines.next(), lines.next()) else {
            break;
        };
        sequences += &format!(">{}\n{letters}\n", head.trim_start_matches('@'));
    }
    Ok(fs::write(directory.join(name), sequences)?)
}

/// Runs a program that makes an input, here and without `dvm-exec`.
fn step(directory: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let output = output_within(Command::new(program).args(arguments).current_dir(directory), STEP_LATEST);
    let output = output.with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
